"""MIMIC-CXR's folder in; every study's films, its report's indication, labels and split out."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from medfuse.config import Task, TaskKind
from medfuse.data.importers.mimic_files import (
    CHEXPERT,
    NOTES,
    find_images,
    read_report,
    study_folder,
)
from medfuse.data.importers.source import (
    Importer,
    ImportOptions,
    SourceCohort,
    SourceStudy,
    choose,
    count_rows,
    find_table,
    read_flag,
    read_rows,
    slug,
)
from medfuse.errors import SourceError

LABELS = tuple(f"mimic-cxr-{version}-chexpert.csv" for version in ("2.0.0", "2.1.0"))
SPLITS = tuple(f"mimic-cxr-{version}-split.csv" for version in ("2.0.0", "2.1.0"))
_SPLIT_NAMES = {"train": "train", "validate": "validation", "test": "test"}


def read_mimic_cxr(folder: Path, options: ImportOptions) -> SourceCohort:
    """Read the labels' table, row by row, and each study's files.

    Raises:
        SourceError: The layout is another one.
    """
    labels = find_table(folder, LABELS, "CheXpert's labels, published with MIMIC-CXR-JPG")
    note = choose("note", options.note, NOTES)
    root = options.images or folder
    if not (root / "files").is_dir():
        raise SourceError(f"{root}: expected MIMIC-CXR's folder files/p10 to p19; there is none")
    splits = _read_splits(folder)
    left_out: Counter[str] = Counter()
    findings = Task(
        name="findings",
        kind=TaskKind.MULTILABEL,
        classes=tuple(slug(name) for name in CHEXPERT),
    )
    return SourceCohort(
        tasks=(findings,),
        studies=_read_all(labels, root, note, options, splits, left_out),
        total=count_rows(labels),
        left_out=left_out,
        remarks=(
            "Labels are read from the reports by a machine (CheXpert); not mentioned is unknown.",
        ),
    )


def _read_all(
    table: Path,
    root: Path,
    note: str,
    options: ImportOptions,
    splits: dict[str, str],
    left_out: Counter[str],
) -> Iterator[SourceStudy]:
    for row in read_rows(table, ("subject_id", "study_id", *CHEXPERT)):
        subject_id, study_id = row["subject_id"], row["study_id"]
        images = find_images(study_folder(root, subject_id, study_id), root)
        if not images:
            left_out["study whose images are not there"] += 1
            continue
        if splits and study_id not in splits:
            left_out["study that the official split does not name"] += 1
            continue
        yield SourceStudy(
            patient_id=subject_id,
            study_id=study_id,
            images=images,
            note=read_report(root, subject_id, study_id, note, left_out),
            labels={slug(name): read_flag(row[name], options.uncertain) for name in CHEXPERT},
            split=splits.get(study_id, ""),
        )


def _read_splits(folder: Path) -> dict[str, str]:
    """Read each study's part, if the table is there."""
    try:
        table = find_table(folder, SPLITS, "the official split")
    except SourceError:
        return {}
    splits = {}
    for row in read_rows(table, ("study_id", "split")):
        if row["split"] not in _SPLIT_NAMES:
            raise SourceError(f"{table.name}: a split is none of {', '.join(_SPLIT_NAMES)}")
        splits[row["study_id"]] = _SPLIT_NAMES[row["split"]]
    return splits


MIMIC_CXR = Importer(
    title="MIMIC-CXR",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    citation="Johnson et al. 2019, doi 10.1038/s41597-019-0322-0",
    read=read_mimic_cxr,
)
