"""The command explain-eval: a bundle in; how far its maps find known truth, printed, out."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from medfuse.attribution.settings import METHODS, BaselineName, Method

TABLE_WIDTH = 190
"""Columns of text that the tables need; a narrower terminal wraps their lines."""


def explain_eval(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, as `medfuse export` made it.")],
    studies: Annotated[int, typer.Option(help="How many studies to make.", min=1)] = 24,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Method of attribution; several are compared. Integrated gradients by default."
        ),
    ] = None,
    baseline: Annotated[
        BaselineName | None,
        typer.Option(help="Against what; the mean if the bundle brings it, or else blank."),
    ] = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(help="Finding to explain; by default all that the bundle answers."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Points of the integral, at first.", min=1)] = 64,
    most_steps: Annotated[int, typer.Option(help="Points of the integral, at most.", min=1)] = 64,
    first: Annotated[
        int, typer.Option(help="Number of the first study.", min=1_000_000)
    ] = 1_000_000,
    badge: Annotated[
        bool, typer.Option(help="Compute each explanation's reliability badge.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of controls, orders and intervals.", min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="File to write all figures to.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.md.")] = None,
    provider: Annotated[str | None, typer.Option(help="Execution provider: cuda or cpu.")] = None,
) -> None:
    """Hold a bundle's explanations to studies whose truth is known, beside three controls.

    The studies are made on the fly and are in no cohort. The controls are a random map, an edge
    detector, and the same network with its weights permuted: a method that scores no better than
    they do ignores the model.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from medfuse.attribution.baselines import usual_baseline
    from medfuse.audit.evaluate import AuditSettings, audit, target_name
    from medfuse.audit.opened import open_audited
    from medfuse.audit.report import (
        badge_table,
        describe,
        place_tables,
        summarise,
        telling_table,
        write_report,
    )
    from medfuse.errors import SettingsError
    from medfuse.place import check_file, check_folder
    from medfuse.synthetic.world import TARGETS

    if json is not None:
        check_file(json)
    if out is not None:
        check_folder(out)
    unknown = [name for name in finding or () if name not in TARGETS]
    if unknown:
        raise SettingsError(
            f"--finding: {unknown[0]!r} is not a finding of the known-truth cohort; expected one "
            f"of {', '.join(TARGETS)}"
        )
    wrong = [name for name in method or () if name not in METHODS]
    if wrong:
        raise SettingsError(f"--method: {wrong[0]!r}; expected one of {', '.join(METHODS)}")
    chosen: list[Method] = [name for name in METHODS if name in (method or ())]
    model, digest = open_audited(bundle, provider, seed)
    default = AuditSettings()
    mood = [name for name in TARGETS if name not in default.findings]
    answered = [name for name in mood if target_name(name) in model.network.targets]
    settings = AuditSettings(
        studies=studies,
        first=first,
        methods=tuple(chosen) or default.methods,
        baseline=baseline or usual_baseline(model.tokenizer, model.background),
        findings=tuple(finding or (*default.findings, *answered)),
        steps=steps,
        most_steps=max(steps, most_steps),
        judged=badge,
        seed=seed,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("findings", total=studies * len(settings.findings))
        scores = audit(model, settings, lambda done, _: bar.update(task, completed=done))
    report = summarise(scores, settings, digest)

    console = Console(highlight=False)
    console = Console(highlight=False, width=max(console.width, TABLE_WIDTH))
    for table in (*place_tables(report), telling_table(report), badge_table(report)):
        if table.rows:
            console.print(table)
    for verdict in report.verdicts:
        console.print(describe(verdict), soft_wrap=True, markup=False)
    if json is not None:
        _write(json, report.model_dump_json(indent=2) + "\n")
    if out is not None:
        write_report(out, report)
        console.print(f"written to {out}", soft_wrap=True, markup=False)


def _write(path: Path, text: str) -> None:
    from medfuse.errors import SettingsError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written ({error.strerror})") from error
