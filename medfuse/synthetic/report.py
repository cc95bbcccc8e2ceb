"""A cohort's summary in; the table that a command line shows out."""

import numpy as np
from jaxtyping import Float64
from rich.box import SIMPLE
from rich.table import Table

from medfuse.synthetic.cohort import BayesAreas, CohortSummary, by_target
from medfuse.synthetic.options import Mechanism
from medfuse.synthetic.world import FINDINGS, TARGETS
from medfuse.types import MODALITIES, SUBSETS, subset_name

COLUMNS = (*FINDINGS, "macro", *TARGETS[len(FINDINGS) :])
"""The findings with their mean, then the mood."""


def build_table(summary: CohortSummary) -> Table:
    """Tabulate the Bayes ROC area of every target from every subset."""
    table = Table(
        title="Bayes AUC: what no reader of these modalities can beat",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title_justify="left",
    )
    table.add_column("modalities", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name.replace("_", "\n"), justify="right")
    prevalence = dict(zip(TARGETS, summary.prevalence, strict=True))
    cells = [f"{prevalence[name]:.2f}" if name in prevalence else "" for name in COLUMNS]
    table.add_row("prevalence drawn", *cells, end_section=True)
    _add_rows(table, "any studies", summary.population, summary)
    _add_rows(table, f"these {summary.drawn.studies}", summary.drawn, summary)
    _add_rows(table, f"their test split, {summary.test.studies}", summary.test, summary)
    return table


def describe_missing(summary: CohortSummary) -> str:
    """Say how many studies lack each modality."""
    drawn = summary.missing[1]
    each = (f"{m.value} {share:.0%}" for m, share in zip(MODALITIES, drawn, strict=True))
    return f"missing: {', '.join(each)} of the studies, {drawn.mean():.0%} of all modalities"


def _add_rows(table: Table, title: str, areas: BayesAreas, summary: CohortSummary) -> None:
    """Add a section: the subsets, fewest modalities first, and what is delivered if it differs."""
    table.add_row(f"[bold]{title}[/]")
    order = sorted(range(len(SUBSETS)), key=lambda i: len(SUBSETS[i]))
    for i in order:
        table.add_row(subset_name(SUBSETS[i]), *_format(areas.subsets[i]))
    options = summary.options
    if options.shortcuts or options.missing is not Mechanism.COMPLETE:
        table.add_row("as delivered", *_format(areas.delivered))
    table.add_section()


def _format(values: Float64[np.ndarray, " k"]) -> list[str]:
    named = by_target(values)
    cells = [named[name] for name in COLUMNS]
    return ["-" if value is None else f"{value:.3f}" for value in cells]
