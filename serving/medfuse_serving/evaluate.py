"""The commands evaluate and predict-cohort: a bundle and a cohort in; a report, or a table, out."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from medfuse_serving.commands import BundlePath, Provider

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from medfuse.data.cohort import Cohort, CohortRow, CohortSettings
    from medfuse.trust.evaluation import Evaluation
    from medfuse.types import Modality
    from medfuse_serving.cohort import AskedStudy
    from medfuse_serving.predictor import Predictor

Which = Literal["test", "validation", "train", "all"]

WRONG = 40
"""Wrong inputs of each kind."""


def evaluate(
    bundle: BundlePath,
    cohort: Annotated[
        Path,
        typer.Argument(help="A table (CSV, Parquet), or a TOML file of settings with a [cohort]."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json; made.")] = Path(
        "evaluation"
    ),
    split: Annotated[
        Which | None,
        typer.Option(help="Which studies; test where the table has splits, else all."),
    ] = None,
    every_subset: Annotated[
        bool,
        typer.Option(
            "--every-subset", help="Ask each study also with modalities taken away (slower)."
        ),
    ] = False,
    wrong_inputs: Annotated[
        bool,
        typer.Option(
            "--wrong-inputs", help="Measure how well inputs of a wrong kind are told as novel."
        ),
    ] = False,
    group_by: Annotated[
        list[str] | None,
        typer.Option(help="A further column of the table to compare groups by; may be repeated."),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap, by patient.", min=0)] = 1000,
    seed: Annotated[int, typer.Option(help="Of every draw.", min=0)] = 0,
    provider: Provider = None,
) -> None:
    """Measure a bundle on a labelled cohort: figures, promises, groups, decisions; no torch."""
    from medfuse.place import check_folder
    from medfuse_serving.evaluation_report import write_report
    from medfuse_serving.predictor import Predictor

    check_folder(out)
    predictor = Predictor(bundle, provider)
    report = measure_cohort(
        predictor,
        cohort,
        split=split,
        every_subset=every_subset,
        wrong_inputs=wrong_inputs,
        group_by=tuple(group_by or ()),
        resamples=resamples,
        seed=seed,
    )
    write_report(out, report, predictor.bundle.manifest)
    print_summary(report, Console(highlight=False))
    Console(highlight=False).print(f"Everything is in {out / 'report.html'}", soft_wrap=True)


def measure_cohort(
    predictor: "Predictor",
    source: Path,
    *,
    split: Which | None = None,
    every_subset: bool = False,
    wrong_inputs: bool = False,
    group_by: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> "Evaluation":
    """Ask a bundle about a cohort, and measure its answers.

    Raises:
        CohortError: The table, or a column to group by, cannot be used; or no study can.
    """
    from medfuse.data.cohort import read_cohort
    from medfuse.trust.evaluation import Evaluation, measure_answers, measure_novelty, measure_wrong
    from medfuse.trust.figures import ReportSettings
    from medfuse.trust.measure import read_bayes
    from medfuse.trust.record import TrustRecord
    from medfuse.types import MODALITIES
    from medfuse_serving.cohort import gather_answers, read_source

    manifest = predictor.bundle.manifest
    settings = read_source(source).cohort
    found = read_cohort(settings, manifest.tasks)
    chosen, rows = choose_rows(found, split)
    groups = read_columns(settings, rows, group_by)
    asked, unusable = ask_with_progress(
        predictor, rows, every_subset=every_subset, keep_inputs=WRONG if wrong_inputs else 0
    )
    left_out = dict(found.excluded) | unusable
    record = manifest.trust or TrustRecord()
    answers = gather_answers(asked).calibrated(manifest.tasks, manifest.calibration)
    place = {row.study_id: i for i, row in enumerate(rows)}
    where = [place[a.row.study_id] for a in asked]
    fields = describe_studies(asked) | {
        name: [values[i] for i in where] for name, values in groups.items()
    }
    drawn = ReportSettings(resamples=resamples, seed=seed)
    bayes = read_bayes(settings.table.parent, manifest.tasks, answers.rows)
    judged = [predictor.novelty.p_values(a.descriptions) for a in asked]
    p_values = {m: [own[m] for own in judged if m in own] for m in MODALITIES}
    return Evaluation.model_validate(
        {
            "model": predictor.bundle.digest,
            "cohort": found.digest,
            "split": chosen,
            "studies": len(asked),
            "patients": len({a.row.patient_id for a in asked}),
            "left_out": left_out,
            "resamples": resamples,
            "seed": seed,
            "novelty": measure_novelty(p_values, record),
            "wrong": (
                measure_wrong(
                    _describe_wrong(predictor, asked, seed),
                    {
                        m: [a.descriptions[m] for a in asked if m in a.descriptions]
                        for m in MODALITIES
                    },
                    predictor.novelty,
                    record,
                )
                if wrong_inputs
                else ()
            ),
            **measure_answers(manifest.tasks, answers, record, fields, bayes, drawn),
        }
    )


def choose_rows(cohort: "Cohort", split: Which | None) -> tuple[str, tuple["CohortRow", ...]]:
    """Choose the studies to measure.

    Raises:
        CohortError: There is none.
    """
    from medfuse.data.cohort import Split
    from medfuse.errors import CohortError

    wanted = split or ("test" if any(row.split for row in cohort.rows) else "all")
    rows = cohort.rows if wanted == "all" else cohort.part(Split(wanted))
    if not rows:
        raise CohortError(f"the cohort has no study of split {wanted!r}; choose another --split")
    return wanted, rows


def describe_studies(asked: Sequence["AskedStudy"]) -> dict[str, list[str]]:
    """Give what studies are grouped by: sex, age band, site, view and scanner."""
    from medfuse.trust.subgroups import age_band
    from medfuse.types import subset_name

    return {
        "sex": [a.row.sex for a in asked],
        "age": [age_band(a.row.age) for a in asked],
        "site": [a.row.site for a in asked],
        "view": [a.view for a in asked],
        "scanner": [a.scanner for a in asked],
        "modalities": [subset_name(a.present) for a in asked],
    }


def ask_with_progress(
    predictor: "Predictor",
    rows: Sequence["CohortRow"],
    *,
    every_subset: bool = False,
    keep_inputs: int = 0,
) -> "tuple[list[AskedStudy], dict[str, int]]":
    """Ask about studies, with progress on stderr.

    Returns:
        The answers, and how many studies could not be used, by reason.

    Raises:
        CohortError: None can.
    """
    from rich.progress import Progress

    from medfuse.errors import CohortError
    from medfuse_serving.cohort import ask_studies

    studies = ask_studies(predictor, rows, every_subset=every_subset, keep_inputs=keep_inputs)
    asked: list[AskedStudy] = []
    unusable: Counter[str] = Counter()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for study in bar.track(studies, total=len(rows), description="Asking about studies"):
            if isinstance(study, str):
                unusable[f"files cannot be used ({study})"] += 1
            else:
                asked.append(study)
    if not asked:
        raise CohortError("no study of the cohort can be used")
    return asked, dict(unusable)


def read_columns(
    settings: "CohortSettings", rows: Sequence["CohortRow"], names: Sequence[str]
) -> dict[str, list[str]]:
    """Read further columns of the table, in the order of the rows.

    Raises:
        CohortError: The table has no such column.
    """
    from medfuse.data.table import read_cells
    from medfuse.errors import CohortError

    if not names:
        return {}
    table = read_cells(settings.table)
    for name in names:
        if name not in table.columns:
            raise CohortError(f"the table has no column {name!r} to group by")
    return {name: [str(table[name].iloc[row.number - 1]) for row in rows] for name in names}


def predict_cohort(
    bundle: BundlePath,
    cohort: Annotated[
        Path,
        typer.Argument(help="A table (CSV, Parquet), or a TOML file of settings with a [cohort]."),
    ],
    out: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    split: Annotated[Which, typer.Option(help="Which studies.")] = "all",
    provider: Provider = None,
) -> None:
    """Answer every study of a table as Parquet, so that anyone can score the answers."""
    from medfuse.data.cohort import read_unlabelled
    from medfuse.place import check_file
    from medfuse_serving.cohort import read_source
    from medfuse_serving.predictor import Predictor

    check_file(out)
    predictor = Predictor(bundle, provider)
    found = read_unlabelled(read_source(cohort).cohort)
    _, rows = choose_rows(found, split)
    table = tabulate(predictor, rows)
    write_table(out, table, predictor.bundle.digest)
    failed = int((table["failure"] != "").sum())
    Console(stderr=True, highlight=False).print(
        f"{len(table) - failed} studies answered, {failed} could not be; in {out}", soft_wrap=True
    )


def tabulate(predictor: "Predictor", rows: Sequence["CohortRow"]) -> "pd.DataFrame":
    """Answer studies: a row for each, in their order; see docs/evaluate.md for the columns."""
    import pandas as pd
    from rich.progress import Progress

    from medfuse.data.cohort import load_study
    from medfuse.errors import CohortError, InputError
    from medfuse_serving.answer import to_answer

    lines = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for row in bar.track(rows, description="Answering studies"):
            line: dict[str, object] = {"study_id": row.study_id, "failure": "", "used": ""}
            try:
                (prediction,) = predictor.predict([load_study(row)])
            except (InputError, CohortError) as error:  # of a file that is damaged, or gone
                lines.append(line | {"failure": f"{type(error).__name__}: {error}"})
                continue
            answer = to_answer(prediction)
            line["used"] = "+".join(answer.used)
            for task in answer.tasks:
                line |= {f"{target}.logit": value for target, value in task.logits.items()}
                line |= {
                    f"{task.name}.{name}.probability": p for name, p in task.probabilities.items()
                }
                if task.value is not None:
                    line[f"{task.name}.value"] = task.value
                for own in task.judgements:
                    line[f"{own.question}.possible"] = "|".join(own.possible)
                    line[f"{own.question}.sure"] = own.sure
                    line[f"{own.question}.positive"] = own.positive
                    if own.interval is not None:
                        line[f"{own.question}.low"], line[f"{own.question}.high"] = own.interval
            line |= {f"novelty.{m}": own.p_value for m, own in answer.novelty.items()}
            lines.append(line)
    return pd.DataFrame(lines)


def write_table(out: Path, table: "pd.DataFrame", digest: str) -> None:
    """Write a table as Parquet, the model and the notice in its metadata.

    Raises:
        CohortError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from medfuse.bundle import NOTICE
    from medfuse.errors import CohortError

    made = pa.Table.from_pandas(table, preserve_index=False)
    about = {"medfuse.model": digest, "medfuse.notice": NOTICE}
    made = made.replace_schema_metadata({**(made.schema.metadata or {}), **about})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(made, out)
    except OSError as error:
        raise CohortError(f"{out}: cannot be written ({error.strerror})") from error


def print_summary(report: "Evaluation", console: Console) -> None:
    """Print the leading figures."""
    from medfuse.trust.figures import DEBIASED

    table = Table("modalities", "studies", "task", "figure", title="Answers", title_justify="left")
    for name, subset in report.subsets.items():
        for target, figures in subset.targets.items():
            if "." not in target:
                metric = "auroc" if "auroc" in figures else "mae"
                shown = f"{metric} {figures[metric]}"
                if DEBIASED in figures:
                    shown += f", calibration error {figures['ece']}"
                    shown += f", without chance {figures[DEBIASED]}"
                table.add_row(name, str(subset.studies), target, shown)
    console.print(table)
    broken = [p for p in report.promises if not p.kept]
    asked = sum(p.studies > 0 for p in report.promises)
    console.print(
        f"{asked - len(broken)} of {asked} promises kept; by chance about {0.025 * asked:.0f} that "
        "hold would not look so."
    )
    for own in report.novelty:
        console.print(
            f"{own.modality}: {own.novel} of {own.studies} studies called novel "
            f"({own.share:.1%} [{own.low:.1%}, {own.high:.1%}]; promised {own.promised:.1%})"
        )
    for each in report.wrong:
        console.print(
            f"wrong {each.modality}, {each.kind}: AUROC {each.auroc:.3f}, "
            f"{each.novel:.0%} called novel"
        )


def _describe_wrong(
    predictor: "Predictor", asked: Sequence["AskedStudy"], seed: int
) -> "dict[Modality, dict[str, list[np.ndarray]]]":
    from medfuse.audit.wrong import describe_wrong
    from medfuse.types import Modality

    images = [a.image for a in asked if a.image is not None]
    notes = [a.note for a in asked if a.note is not None]
    settings = predictor.bundle.manifest.prepare
    return describe_wrong(
        {Modality.IMAGE: images}, notes, settings, predictor.tokenizer, WRONG, seed
    )
