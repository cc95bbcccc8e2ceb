"""The command recalibrate: a bundle and a hospital's labelled studies in; a bundle for them out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from medfuse_serving.commands import BundlePath, Provider

if TYPE_CHECKING:
    from medfuse.bundle import Bundle, Manifest, RecalibrationRecord
    from medfuse.config import Task
    from medfuse.data.cohort import Cohort, CohortRow
    from medfuse.trust.calibration import Calibration
    from medfuse.trust.fitting import Promised
    from medfuse.trust.novelty import NoveltyModel
    from medfuse.types import Modality
    from medfuse_serving.cohort import AskedStudy, Source
    from medfuse_serving.predictor import Predictor

Part = Literal["validation", "all"]

FEWEST_PATIENTS = 50
"""Below so many, thresholds of several findings and subsets would be chosen by a few people."""

CARD_HEADING = "\n## Recalibrated\n"


def recalibrate(
    bundle: BundlePath,
    cohort: Annotated[
        Path,
        typer.Argument(help="A table (CSV, Parquet), or a TOML file of settings with a [cohort]."),
    ],
    out: Annotated[Path, typer.Argument(help="The new bundle's folder; the old one is kept.")],
    split: Annotated[
        Part | None,
        typer.Option(help="Which studies; validation where the table has splits, else all."),
    ] = None,
    provider: Provider = None,
) -> None:
    """Fit a bundle's calibration and promises anew on labelled studies of one's own; no torch."""
    from medfuse.place import check_folder
    from medfuse_serving.predictor import Predictor

    check_folder(out)
    made = recalibrate_bundle(Predictor(bundle, provider), cohort, out, split)
    print_made(made, Console(highlight=False))


def recalibrate_bundle(
    predictor: "Predictor", source: Path, out: Path, split: Part | None = None
) -> "Bundle":
    """Write a bundle whose calibration, promises and novelty are fitted to a cohort.

    The network answers as before. What the cohort has too few studies for is read as before, and
    nothing is promised of it.

    Args:
        predictor: Of the parent bundle.
        source: The cohort, as `medfuse_serving.cohort.read_source` takes it.
        out: The new bundle's folder. A bundle that is there is replaced, but not the parent.
        split: Which studies; by default validation where the table has splits, else all.

    Raises:
        CohortError: The table cannot be used, has labels of other tasks or too few studies, or
            says that they trained the model.
        BundleError: ``out`` is the parent, or holds something that isn't a bundle.
    """
    from datetime import UTC, datetime

    from medfuse.bundle import RecalibrationRecord, check_place, write_bundle
    from medfuse.data.cohort import read_cohort
    from medfuse.errors import BundleError
    from medfuse.trust.fitting import fit_promises
    from medfuse.trust.record import TrustRecord
    from medfuse_serving.cohort import gather_answers, read_source
    from medfuse_serving.evaluate import ask_with_progress

    parent = predictor.bundle
    if out.resolve() == parent.path:
        raise BundleError(f"{out}: is the bundle to recalibrate, which is kept; choose another")
    check_place(out)
    given = read_source(source)
    refuse_other_tasks(given.tasks, parent.manifest.tasks)
    found = read_cohort(given.cohort, parent.manifest.tasks)
    chosen, rows = choose_part(found, given, split)
    refuse_few(parent.manifest.tasks, rows)
    asked, unusable = ask_with_progress(predictor, rows, every_subset=True)
    answers = gather_answers(asked)
    refuse_few(parent.manifest.tasks, answers.rows)  # those whose files cannot be used are gone
    settings = (parent.manifest.trust or TrustRecord()).settings
    # Another hospital's patients have other findings more often: a temperature alone is not enough.
    promised = fit_promises(
        parent.manifest.tasks, answers, settings, parent.manifest.calibration, bias=True
    )
    novelty, fitted = fit_usual(asked, predictor.novelty, settings.false_alarms)
    record = RecalibrationRecord(
        created=datetime.now(UTC).replace(microsecond=0),
        parent=parent.digest,
        cohort=found.digest,
        split=chosen,
        studies=len(asked),
        patients=count_patients(answers.rows),
        left_out=dict(found.excluded) | unusable,
        novelty=fitted,
    )
    manifest = rewrite_manifest(parent.manifest, promised, record)
    return write_bundle(out, rewrite_files(parent, manifest, novelty), manifest)


def choose_part(
    cohort: "Cohort", source: "Source", split: Part | None
) -> tuple[str, tuple["CohortRow", ...]]:
    """Choose the studies to fit to: none of which it is known that it trained the model.

    Raises:
        CohortError: There is none, or the table says that some are for training or for testing.
    """
    from medfuse.data.cohort import Split
    from medfuse.errors import CohortError
    from medfuse_serving.evaluate import choose_rows

    splits = {row.split for row in cohort.rows}
    if not any(splits) and source.fit is not None:
        raise CohortError(
            "these are the settings of a training run that divided the patients by itself, so the "
            "table does not say which of them trained the model; give a table of other patients"
        )
    if split == "all" and splits & {Split.TRAIN, Split.TEST}:
        raise CohortError(
            "the table's split says that some of its studies are for training or for testing; "
            "promises hold if they are chosen on neither: use --split validation, or name a table "
            "of studies for this alone"
        )
    return choose_rows(cohort, split or ("validation" if any(splits) else "all"))


def refuse_other_tasks(given: Sequence["Task"], tasks: Sequence["Task"]) -> None:
    """Refuse settings that ask something else than the bundle answers.

    Raises:
        CohortError: They do.
    """
    from medfuse.errors import CohortError

    asked = {task.name: (task.kind, task.classes) for task in given}
    for task in tasks if given else ():
        if asked.get(task.name) != (task.kind, task.classes):
            raise CohortError(
                f"the bundle's task {task.name!r} ({task.kind}: {', '.join(task.classes)}) is not "
                "among the settings' [[tasks]]; give labels of the bundle's own tasks"
            )


def refuse_few(tasks: Sequence["Task"], rows: Sequence["CohortRow"]) -> None:
    """Refuse a cohort that is too small for anything to be promised.

    Raises:
        CohortError: It is.
    """
    import numpy as np

    from medfuse.config import TaskKind
    from medfuse.errors import CohortError
    from medfuse.trust.calibration import FEWEST, name_fittable

    patients = count_patients(rows)
    if patients < FEWEST_PATIENTS:
        raise CohortError(
            f"{patients} patients can be used and at least {FEWEST_PATIENTS} are needed to "
            "recalibrate; label more studies"
        )
    only_quantities = all(task.kind is TaskKind.REGRESSION for task in tasks)
    if not only_quantities and not name_fittable(tasks, np.array([row.labels for row in rows])):
        raise CohortError(
            f"no finding has {FEWEST} studies with it and {FEWEST} without it; label more studies"
        )


def count_patients(rows: Sequence["CohortRow"]) -> int:
    """Count whose studies they are."""
    return len({row.patient_id for row in rows})


def fit_usual(
    asked: Sequence["AskedStudy"], before: "NoveltyModel", false_alarms: float
) -> "tuple[NoveltyModel, tuple[Modality, ...]]":
    """Learn what usual studies are; a modality that too few patients have stays as it was.

    Returns:
        The model, and the modalities that were learnt anew.
    """
    from medfuse.trust.novelty import NoveltyModel
    from medfuse.trust.novelty_fitting import Described, fit_novelty

    described = [Described(a.row.patient_id, a.descriptions) for a in asked]
    anew = fit_novelty(described, false_alarms, seed=0)
    model = NoveltyModel({**before.usual, **anew.usual}, anew.language or before.language)
    return model, tuple(anew.usual)


def rewrite_manifest(
    before: "Manifest", promised: "Promised", record: "RecalibrationRecord"
) -> "Manifest":
    """Put the new calibration and promises in a manifest's place, and where they come from."""
    from scipy.special import expit

    from medfuse.bundle import SCHEMA_VERSION
    from medfuse.text.thresholds import choose_thresholds
    from medfuse.trust.answers import AS_GIVEN

    text = before.text
    if text is not None:
        thresholds = choose_thresholds(
            before.tasks,
            expit(promised.answers.logits[AS_GIVEN]),
            promised.answers.labels,
            text.record.precision,
        )
        own = {target: thresholds[target] for target in text.record.findings}
        text = text.model_copy(
            update={"record": text.record.model_copy(update={"thresholds": own})}
        )
    return before.model_copy(
        update={
            "schema_version": SCHEMA_VERSION,
            "calibration": promised.calibration,
            "trust": promised.trust,
            "text": text,
            "recalibrated": record,
        }
    )


def rewrite_files(
    parent: "Bundle", manifest: "Manifest", novelty: "NoveltyModel"
) -> dict[str, bytes]:
    """Give the new bundle's files: the parent's, but for what calibration and promises change."""
    from medfuse.bundle import GOLDEN_ANSWER, MODEL_CARD, NOVELTY
    from medfuse.golden import read_golden
    from medfuse.trust.novelty import to_bytes

    golden = read_golden(parent).answer
    chances = calibrate_golden(manifest.tasks, golden.logits, manifest.calibration)
    answer = golden.model_copy(update={"probabilities": chances})
    card, _, _ = parent.read(MODEL_CARD).decode("utf-8").partition(CARD_HEADING)
    return {
        **{name: parent.read(name) for name in parent.manifest.files},
        NOVELTY: to_bytes(novelty),
        GOLDEN_ANSWER: answer.model_dump_json(indent=2).encode(),
        MODEL_CARD: (card.rstrip("\n") + "\n" + describe(manifest)).encode(),
    }


def calibrate_golden(
    tasks: Sequence["Task"], logits: Mapping[str, Sequence[float]], calibration: "Calibration"
) -> dict[str, tuple[float, ...]]:
    """Give the golden study's probabilities from every subset."""
    import numpy as np

    from medfuse.trust.calibration import answer

    return {
        name: tuple(
            p
            for task in answer(tasks, np.array(row), calibration, name)
            for p in task.probabilities.tolist()
        )
        for name, row in logits.items()
    }


def describe(manifest: "Manifest") -> str:
    """Write the model card's section on recalibration."""
    record = manifest.recalibrated
    assert record is not None
    usual = ", ".join(record.novelty) or "no modality, too few patients having any"
    parts = [
        f"On {record.created:%Y-%m-%d}, from bundle `{record.parent}`. Calibration and promises "
        f"rest on {record.studies} studies of {record.patients} patients (cohort "
        f"`{record.cohort}`, split: {record.split}), and no longer on those of training; so does "
        f"what is usual of: {usual}. The network is the parent's, and so are the metrics above.",
    ]
    if manifest.text is not None:
        thresholds = "\n".join(
            f"- {target}: {'never stated' if least is None else f'{least:.3f}'}"
            for target, least in manifest.text.record.thresholds.items()
        )
        parts += ["Findings are stated from these probabilities on, not from those above:"]
        parts += [thresholds]
    return CARD_HEADING + "\n" + "\n\n".join(parts) + "\n"


def print_made(made: "Bundle", console: Console) -> None:
    """Print what the new bundle rests on, and what it promises nothing of."""
    from rich.table import Table

    record, trust = made.manifest.recalibrated, made.manifest.trust
    assert record is not None
    assert trust is not None
    left_out = sum(record.left_out.values())
    console.print(
        f"{record.studies} studies of {record.patients} patients (split: {record.split}), "
        f"{left_out} left out"
    )
    table = Table("modalities", "studies", "left open")
    for subset, questions in trust.subsets.items():
        studies = max(sum(own.studies.values()) for own in questions.values())
        never = [
            f"{question} {name}"
            for question, own in questions.items()
            for name, least in own.least.items()
            if not least
        ]
        table.add_row(subset, str(studies), ", ".join(never))
    console.print(table)
    console.print("Left open: classes that too few studies have for them to be left out of a set.")
    console.print(f"novelty  {', '.join(record.novelty) or 'as before'}")
    console.print(f"digest   {made.digest}", soft_wrap=True)
    console.print(
        f"Now measure it on other patients: medfuse evaluate {made.path} COHORT", soft_wrap=True
    )
