"""A leaderboard's record and the same as Markdown tables."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from medfuse.config import Settings
from medfuse.leaks.report import LeakRecord, describe_overrides
from medfuse.training.report import table_head, table_row
from medfuse.trust.answers import AS_GIVEN
from medfuse.trust.bootstrap import Figure


class Entry(Settings):
    """One contender.

    Attributes:
        rank: 1 for the best headline figure.
        ranks: The ranks that it takes in 95 % of the bootstrap resamples.
        value: The headline figure on studies as they are, the mean over the repeats.
        repeat_values: Of each repeat by itself.
        subsets: The same from each subset of modalities, on the studies that have it.
        seconds: Of one fit, the mean.
        epochs: Likewise.
        parameters: Numbers that were trained.
        fusion_parameters: Those of the fusion alone.
    """

    name: str
    rank: int
    ranks: tuple[float, float]
    value: Figure
    repeat_values: tuple[float | None, ...]
    subsets: dict[str, Figure]
    seconds: float
    epochs: float
    parameters: int
    fusion_parameters: int


class Comparison(Settings):
    """One contender minus another on the same patients.

    Attributes:
        difference: Of the headline figures, with its paired bootstrap interval by patient.
        p_value: Corrected resampled t-test over the folds of all repeats.
        p_holm: Corrected for the number of those compared with the same one.
        folds: How many folds define a difference.
    """

    name: str
    against: str
    difference: Figure
    p_value: float | None
    p_holm: float | None
    folds: int


class Leaderboard(Settings):
    """All of it.

    Attributes:
        metric: The headline figure, after its task.
        left_out: Rows that were not used, by reason.
        entries: The best first.
        against_best: Every other contender minus the best.
        against_baseline: Every other contender minus the baseline.
        bayes: The best figure possible by subset, where the cohort's truth is known.
        leaks: What the check for leaks said of what each contender is trained on.
    """

    metric: str
    studies: int
    patients: int
    left_out: dict[str, int]
    folds: int
    repeats: int
    resamples: int
    baseline: str
    entries: tuple[Entry, ...]
    against_best: tuple[Comparison, ...]
    against_baseline: tuple[Comparison, ...]
    bayes: dict[str, Figure]
    leaks: dict[str, LeakRecord] = Field(default_factory=dict)


def format_leaderboard(board: Leaderboard) -> str:
    """Write it as Markdown."""
    return "\n".join(_lines(board)) + "\n"


def format_board_summary(board: Leaderboard) -> str:
    """Write what fits a terminal: the ranking and the comparison with the best."""
    lines = [*_ranking(board), *_comparison("the best", board.against_best)]
    return "\n".join(lines) + "\n"


def _lines(board: Leaderboard) -> Iterator[str]:
    yield "# Compared"
    yield ""
    yield (
        f"{board.metric} of {board.studies} studies of {board.patients} patients: "
        f"{board.repeats} times {board.folds}-fold cross-validation by patient, the same folds for "
        "all. The answers of a repeat's folds are pooled, and the figure is the mean over "
        "the repeats."
    )
    for reason, n in board.left_out.items():
        yield f"Left out: {n} ({reason})."
    yield f"Brackets: 95 % bootstrap interval by patient, {board.resamples} resamples."
    yield ""
    yield from _ranking(board)
    yield from _comparison("the best", board.against_best)
    yield from _comparison(f"the baseline {board.baseline}", board.against_baseline)
    yield ""
    yield "## By subset of modalities"
    yield ""
    subsets = [name for name in board.entries[0].subsets if name != AS_GIVEN]
    yield from table_head(("", *subsets))
    for entry in board.entries:
        yield table_row((entry.name, *(str(entry.subsets[name]) for name in subsets)))
    if board.bayes:
        yield table_row(("best possible", *(str(board.bayes.get(name, "-")) for name in subsets)))


def _ranking(board: Leaderboard) -> Iterator[str]:
    columns = (
        "rank",
        "",
        board.metric,
        "ranks",
        "parameters",
        "its own",
        "epochs",
        "s a fit",
    )
    yield from table_head(columns)
    for entry in board.entries:
        low, high = entry.ranks
        yield table_row(
            (
                str(entry.rank),
                entry.name,
                str(entry.value),
                f"{low:g} to {high:g}",
                f"{entry.parameters:,}",
                f"{entry.fusion_parameters:,}",
                f"{entry.epochs:.1f}",
                f"{entry.seconds:.1f}",
            )
        )
    if AS_GIVEN in board.bayes:
        best = str(board.bayes[AS_GIVEN])
        yield table_row(("", "best possible", best, "", "", "", "", ""))
    for line in describe_overrides(board.leaks):
        yield ""
        yield line


def _comparison(name: str, comparisons: Sequence[Comparison]) -> Iterator[str]:
    if not comparisons:
        return
    yield ""
    yield f"## Against {name}"
    yield ""
    yield from table_head(("", f"minus {comparisons[0].against}", "p", "p, Holm", "folds"))
    for c in comparisons:
        p, corrected = (_p(value) for value in (c.p_value, c.p_holm))
        yield table_row((c.name, str(c.difference), p, corrected, str(c.folds)))


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
