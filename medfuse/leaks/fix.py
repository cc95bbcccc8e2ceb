"""A cohort that fails and its settings in; a new table and new settings without the leaks, out.

Nothing of the cohort is changed: rows are left out of a new table, patients are joined in it, and
what a model must not get is taken away by the preparation settings, in training and at the bedside.
"""

import csv
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tomlkit
from tomlkit.items import InlineTable

from medfuse.config import PrepareSettings
from medfuse.data.cohort import CohortSettings
from medfuse.data.table import read_cells
from medfuse.errors import CohortError
from medfuse.leaks.check import CheckRequest, check_cohort
from medfuse.leaks.report import PAGE, LeakFinding, LeakReport, Remedy, format_report
from medfuse.whole import write_whole

TABLE = "cohort.csv"
SETTINGS = "settings.toml"
LOG = "remedies.csv"

ROUNDS = 12
"""Times that remedies are applied and the cohort checked again."""


LAST = ("note-words",)
"""Kinds that are left until nothing else fails."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was done to a cohort.

    Attributes:
        before: The first report.
        after: The last one; it may still fail, where no remedy is known or helps.
        applied: In order: the kind and the remedy.
        rows: How many rows the new table has.
    """

    before: LeakReport
    after: LeakReport
    applied: tuple[tuple[str, Remedy], ...]
    rows: int


@dataclass
class _Work:
    """The new table and settings while they are made."""

    request: CheckRequest
    table: pd.DataFrame
    out: Path
    applied: list[tuple[str, Remedy]] = field(default_factory=list)


def fix_cohort(
    config: Path,
    request: CheckRequest,
    out: Path,
    *,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
    folder: Path | None = None,
) -> Fixed:
    """Apply remedies and check again, until nothing fails or nothing is left to do.

    What loses no study comes first; then rows are dropped, for the worst failure at a time.

    Args:
        config: The settings file that ``request`` is of; the new one is made from it.
        request: The cohort.
        out: Gets the table, the settings, what was done and the last report; new or empty.
        workers: Processes that read files.
        advance: Told how many studies are read.
        folder: Where facts about files are kept.

    Raises:
        CohortError: ``out`` holds something or can't be written, or the cohort cannot be read.
    """

    def look(asked: CheckRequest) -> LeakReport:
        return check_cohort(asked, workers=workers, advance=advance, folder=folder)

    with write_whole(out, CohortError) as part:
        before = after = look(request)
        work = _Work(_move_table(request, part), _number_studies(request.cohort), part)
        for _ in range(ROUNDS):
            chosen = _choose(after.by("fail"))
            if not chosen:
                break
            for finding in chosen:
                _apply(work, finding)
            _write_table(work)
            after = look(work.request)
        _write_table(work)
        _write_settings(config, work)
        _write_log(work)
        (part / PAGE).write_text(format_report(after), encoding="utf-8")
    return Fixed(before, after, tuple(work.applied), len(work.table))


def change_preparation(prepare: PrepareSettings, remedy: Remedy) -> PrepareSettings:
    """Add what a remedy takes away to the preparation settings."""
    note, image, voice = prepare.note, prepare.image, prepare.voice
    words = tuple(dict.fromkeys((*note.mask_words, *remedy.mask_words)))
    boxes = tuple(dict.fromkeys((*image.blank, *remedy.blank)))
    lowpass = min(voice.lowpass_hz, remedy.lowpass_hz or voice.lowpass_hz)
    return prepare.model_copy(
        update={
            "note": note.model_copy(update={"mask_words": words}),
            "image": image.model_copy(update={"blank": boxes}),
            "voice": voice.model_copy(update={"lowpass_hz": lowpass}),
        }
    )


def _choose(failures: Sequence[LeakFinding]) -> list[LeakFinding]:
    """Choose what to do next: all that loses no study, or else the worst failure's dropped rows."""
    able = [finding for finding in failures if finding.remedy is not None]
    # Words that merely tell much may be evidence, and cease to tell so much without the rest.
    able = [finding for finding in able if finding.kind not in LAST] or able
    gentle = [f for f in able if f.remedy is not None and not f.remedy.drop]
    if gentle:
        return gentle
    return sorted(able, key=_how_bad)[-1:]


def _how_bad(finding: LeakFinding) -> float:
    """Order failures; those without an AUROC, such as duplicates, are the worst."""
    if finding.figure is None or finding.figure.value is None:
        return 2.0
    return finding.figure.value


def _apply(work: _Work, finding: LeakFinding) -> None:
    remedy = finding.remedy
    assert remedy is not None  # `_choose` gives no others
    work.applied.append((finding.kind, remedy))
    prepare = change_preparation(work.request.prepare, remedy)
    work.request = replace(work.request, prepare=prepare)
    study = work.request.cohort.columns.study_id
    work.table = work.table[~work.table[study].isin(remedy.drop)]
    for group in remedy.group:
        _join(work, work.table[study].isin(group))


def _join(work: _Work, chosen: "pd.Series[bool]") -> None:
    """Give some rows the patient of the first and the split of most."""
    columns = work.request.cohort.columns
    if not chosen.any():
        return
    # All rows of the patients concerned move, so that no other study of theirs is torn off.
    patients = work.table.loc[chosen, columns.patient_id].str.strip()
    everyone = work.table[columns.patient_id].str.strip().isin(set(patients))
    work.table = work.table.copy()
    work.table.loc[everyone, columns.patient_id] = patients.iloc[0]
    if columns.split in work.table:
        splits = Counter(work.table.loc[everyone, columns.split].tolist())
        work.table.loc[everyone, columns.split] = splits.most_common(1)[0][0]


def _move_table(request: CheckRequest, out: Path) -> CheckRequest:
    """Let the settings name the new table, with paths from the old root."""
    cohort = request.cohort
    root = cohort.root or cohort.table.parent
    columns = cohort.columns
    if columns.study_id not in read_cells(cohort.table):
        columns = columns.model_copy(update={"study_id": "study_id"})
    moved = cohort.model_copy(update={"table": out / TABLE, "root": root, "columns": columns})
    return replace(request, cohort=moved)


def _number_studies(cohort: CohortSettings) -> pd.DataFrame:
    """Read the table, and write down the studies' identifiers where it has none."""
    table = read_cells(cohort.table)
    name = cohort.columns.study_id
    own = [f"row-{i + 1}" for i in range(len(table))]
    if name not in table:
        return table.assign(study_id=own)
    named = [cell.strip() or other for cell, other in zip(table[name], own, strict=True)]
    return table.assign(**{name: named})


def _write_table(work: _Work) -> None:
    work.table.to_csv(work.out / TABLE, index=False, lineterminator="\n")


def _write_settings(config: Path, work: _Work) -> None:
    """Write the old settings file with the new table and preparation in it."""
    document = tomlkit.parse(config.read_text(encoding="utf-8"))
    cohort, prepare = work.request.cohort, work.request.prepare
    own = _section(document, "cohort")
    # The table is beside the settings; the files stay where they are.
    own["table"], own["relative_to"] = TABLE, "settings_file"
    for name, path in (("root", cohort.root), ("sentences", cohort.sentences)):
        if path is not None:
            own[name] = str(path.resolve())
    if "columns" in own:
        _section(own, "columns")["study_id"] = cohort.columns.study_id
    sections = {
        "note": ("mask_words", list(prepare.note.mask_words), not prepare.note.mask_words),
        "image": (
            "blank",
            [box.model_dump() for box in prepare.image.blank],
            not prepare.image.blank,
        ),
        "voice": (
            "lowpass_hz",
            prepare.voice.lowpass_hz,
            prepare.voice.lowpass_hz == PrepareSettings().voice.lowpass_hz,
        ),
    }
    for name, (key, value, usual) in sections.items():
        if not usual:
            _section(_section(document, "prepare"), name)[key] = value
    (work.out / SETTINGS).write_text(tomlkit.dumps(document), encoding="utf-8")


def _section(parent: MutableMapping[str, Any], name: str) -> MutableMapping[str, Any]:
    """Find a section, whole, in parts or within braces, or add it."""
    if name not in parent:
        braced = isinstance(parent, InlineTable)
        parent[name] = tomlkit.inline_table() if braced else tomlkit.table()
    section = parent[name]
    assert isinstance(section, MutableMapping)  # the settings were read
    return section


def _write_log(work: _Work) -> None:
    """Write what was done, and to which studies."""
    with (work.out / LOG).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("step", "kind", "remedy", "study_id"))
        for step, (kind, remedy) in enumerate(work.applied, start=1):
            studies = [*remedy.drop, *(study for group in remedy.group for study in group)]
            for study in studies or [""]:
                rows.writerow((step, kind, str(remedy), study))
