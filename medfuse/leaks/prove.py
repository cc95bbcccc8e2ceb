"""The check's own power: known-truth cohorts with planted leaks and without in; a table out."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from pydantic import Field
from scipy.stats import beta

from medfuse.config import Settings
from medfuse.leaks.check import check_table
from medfuse.leaks.plant import (
    COUNTED,
    PLANTS,
    PREPARE,
    Drawn,
    Plan,
    PoolStudy,
    draw_cohort,
    make_pool_study,
)
from medfuse.leaks.report import LeakReport
from medfuse.leaks.settings import CheckSettings
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.world import TARGETS

IMAGE_SIZE = 256
"""About the side of the pool's images in pixels."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was planted in one cohort and found.

    Attributes:
        kind: Of the planted leak; None where there is none.
        found: Whether it was found.
        alarms: All kinds that alarm.
        copies: Copies that were planted, and how many of them were found.
    """

    kind: str | None
    found: bool
    alarms: tuple[str, ...]
    copies: tuple[int, int] = (0, 0)


class ProofOptions(Settings):
    """How much is proven, and on what."""

    cohorts: int = Field(default=200, gt=0, description="with a leak, and as many without")
    pool: int = Field(default=600, ge=40, description="studies that cohorts are drawn from")
    smallest: int = Field(default=150, ge=20, description="studies of a cohort")
    largest: int = Field(default=300, ge=20)
    weakest: float = Field(default=0.6, gt=0, le=1, description="strength of a planted trait")
    strongest: float = Field(default=0.9, gt=0, le=1)
    seed: int = Field(default=0, ge=0)

    @property
    def steps(self) -> int:
        """How many studies are made and cohorts checked."""
        return self.pool + 2 * self.cohorts


class Share(Settings):
    """So many of so many, with the exact 95 % interval of Clopper and Pearson (1934)."""

    hits: int
    of: int
    low: float
    high: float

    def __str__(self) -> str:
        """Show it as ``19 of 20 (75.1 to 99.9 %)``."""
        return f"{self.hits} of {self.of} ({100 * self.low:.1f} to {100 * self.high:.1f} %)"


class Proof(Settings):
    """What was planted and found.

    Attributes:
        options: Of the proof.
        found: By kind of the planted leak: cohorts in which a finding of that kind fails or warns
            and, where the leak is of one label, names that label.
        copies: By kind of the copies, where there are such: how many of all of them are found; a
            cohort counts as found with one of its own.
        all_found: Of all planted leaks.
        false_alarms: Clean cohorts with any failure or warning.
        alarms: Their kinds.
        beside: Kinds that failed or warned beside the planted one, in planted cohorts.
    """

    options: ProofOptions
    found: dict[str, Share]
    copies: dict[str, Share]
    all_found: Share
    false_alarms: Share
    alarms: dict[str, int]
    beside: dict[str, int]


def prove(
    options: ProofOptions, *, workers: int = 0, advance: Callable[[int], None] | None = None
) -> Proof:
    """Plant one leak in each of many cohorts, check them and as many clean ones, and count."""
    cohort = CohortOptions(seed=1_000 + options.seed, studies=options.pool, size=IMAGE_SIZE)
    numbers = range(2 * options.cohorts)
    studies: list[PoolStudy] = []
    outcomes: list[Outcome] = []

    def tell() -> None:
        if advance is not None:
            advance(len(studies) + len(outcomes))

    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1:
        for study in map(partial(make_pool_study, cohort), range(options.pool)):
            studies.append(study)
            tell()
        for outcome in map(partial(_check_one, options, cohort, studies), numbers):
            outcomes.append(outcome)
            tell()
        return _count(options, outcomes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        for study in pool.map(partial(make_pool_study, cohort), range(options.pool), chunksize=8):
            studies.append(study)
            tell()
    with ProcessPoolExecutor(workers, context, _start, (options, cohort, studies)) as pool:
        for outcome in pool.map(_check, numbers):
            outcomes.append(outcome)
            tell()
    return _count(options, outcomes)


_shared: tuple[ProofOptions, CohortOptions, list[PoolStudy]]


def _start(options: ProofOptions, cohort: CohortOptions, studies: list[PoolStudy]) -> None:
    """Give a worker process what all its cohorts share."""
    global _shared
    _shared = options, cohort, studies


def _check(number: int) -> Outcome:
    return _check_one(*_shared, number)


def make_planted(
    options: ProofOptions, cohort: CohortOptions, studies: list[PoolStudy], number: int
) -> tuple[Drawn, str | None, str | None]:
    """Make cohort ``number``: the first half have a leak, of every kind in turn.

    Returns:
        The cohort, the kind of its leak and the label that it gives away; None where there is none.
    """
    rng = np.random.default_rng([options.seed, number])
    size = int(rng.integers(options.smallest, options.largest, endpoint=True))
    drawn = draw_cohort(cohort, studies, size, rng)
    if number >= options.cohorts:
        return drawn, None, None
    kind = list(PLANTS)[number % len(PLANTS)]
    target = int(rng.integers(len(TARGETS)))
    strength = float(rng.uniform(options.weakest, options.strongest))
    planted = PLANTS[kind](drawn, Plan(target, strength, rng))
    names = [f"{task.name}.{c}" for task in planted.table.cohort.tasks for c in task.classes]
    return planted, kind, None if kind in COUNTED - {"column", "label-conflict"} else names[target]


def _check_one(
    options: ProofOptions, cohort: CohortOptions, studies: list[PoolStudy], number: int
) -> Outcome:
    """Check one cohort."""
    drawn, kind, target = make_planted(options, cohort, studies, number)
    report = check_table(drawn.table, drawn.facts, PREPARE, CheckSettings(resamples=100))
    alarms = tuple(dict.fromkeys(f.kind for f in report.by("fail", "warn")))
    found = kind is not None and _is_found(report, kind, target)
    return Outcome(kind, found, alarms, (len(drawn.copies), _count_copies(report, drawn)))


def _count_copies(report: LeakReport, drawn: Drawn) -> int:
    """Count the planted copies that are in one group with what they were copied from."""
    remedies = [f.remedy for f in report.by("fail", "warn") if f.remedy is not None]
    groups = [set(group) for remedy in remedies for group in remedy.group]
    named = ({drawn.rows[i].study_id, drawn.rows[j].study_id} for i, j in drawn.copies)
    return sum(any(pair <= group for group in groups) for pair in named)


def _is_found(report: LeakReport, kind: str, target: str | None) -> bool:
    return any(
        finding.kind == kind and (target is None or finding.target == target)
        for finding in report.by("fail", "warn")
    )


def _count(options: ProofOptions, outcomes: Sequence[Outcome]) -> Proof:
    planted: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.kind is not None:
            planted.setdefault(outcome.kind, []).append(outcome)
    clean = [outcome.alarms for outcome in outcomes if outcome.kind is None]
    found = {kind: share(sum(o.found for o in own), len(own)) for kind, own in planted.items()}
    copied = {kind: np.sum([o.copies for o in own], axis=0) for kind, own in planted.items()}
    beside = Counter(
        alarm for kind, own in planted.items() for o in own for alarm in o.alarms if alarm != kind
    )
    return Proof(
        options=options,
        found=found,
        copies={kind: share(int(hits), int(of)) for kind, (of, hits) in copied.items() if of},
        all_found=share(sum(own.hits for own in found.values()), sum(map(len, planted.values()))),
        false_alarms=share(sum(bool(alarms) for alarms in clean), len(clean)),
        alarms=dict(Counter(alarm for alarms in clean for alarm in alarms)),
        beside=dict(beside),
    )


def share(hits: int, of: int) -> Share:
    """Give a share with its exact interval."""
    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return Share(hits=hits, of=of, low=low, high=high)


def format_proof(proof: Proof) -> str:
    """Write the table as Markdown."""
    o = proof.options
    alarms = ", ".join(f"{kind} {n}" for kind, n in proof.alarms.items()) or "none"
    beside = ", ".join(f"{kind} {n}" for kind, n in proof.beside.items()) or "none"
    lines = [
        "# Planted leaks and found ones",
        "",
        f"{o.cohorts} known-truth cohorts with one leak each and {o.cohorts} clean ones, of "
        f"{o.smallest} to {o.largest} studies from a pool of {o.pool}, seed {o.seed}. A trait is "
        f"there in (1 + s) / 2 of the label's studies and in (1 - s) / 2 of the others, s from "
        f"{o.weakest:g} to {o.strongest:g}; of copies, torn patients and contradictions there are "
        "4 to 8.",
        "",
        "| kind | planted and found (95 % interval) |",
        "| --- | --- |",
        *(f"| {kind} | {own} |" for kind, own in proof.found.items()),
        f"| all | {proof.all_found} |",
        f"| false alarms on clean cohorts | {proof.false_alarms} |",
        *(
            f"| each copied {kind.removeprefix('duplicate-')} | {own} |"
            for kind, own in proof.copies.items()
        ),
        "",
        f"Kinds of the false alarms: {alarms}. Found beside the planted leaks: {beside}.",
    ]
    return "\n".join(lines) + "\n"
