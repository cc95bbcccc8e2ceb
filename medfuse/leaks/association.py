"""Features and labels in; which feature tells which label, beyond chance and by how much, out.

A feature is cut into levels, and each level (or cut, where levels have an order) against the rest
is tested with Fisher's exact test. What is counted are patients, not studies: the studies of one
patient that agree in level and label count once. Exact tests hold for any number of patients, and
Tarone's correction (1990) charges only for tests that could have been significant at all, so that
a level of three patients can be found if it is pure enough, and a cohort of ten finds nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.stats import hypergeom

from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.trust.metrics import auroc

MOST_LEVELS = 40
"""Levels of one feature; rarer values are one level together."""

BINS = 8
"""Levels that many different numbers are cut into, by their quantiles."""

FOLDS = 5

PRIOR = 2.0
"""Studies of the average label that each level's own mean is drawn towards."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that is known of every study beside its label.

    Attributes:
        name: In words.
        levels: Per study; -1 where it has none, such as the sampling rate without a recording.
        names: Of the levels.
        ordered: Whether the levels go from low to high.
    """

    name: str
    levels: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A yes or no that is to be told.

    Attributes:
        name: Such as ``findings.nodule``.
        labels: Per study, 1 or 0; NaN where not known.
    """

    name: str
    labels: Float[np.ndarray, " n"]

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        """Which studies have a label."""
        return np.asarray(~np.isnan(self.labels))


@dataclass(frozen=True, slots=True)
class Association:
    """A feature that tells a target beyond chance.

    Attributes:
        p: Adjusted for every test of the family.
        level: The level, or the cut up to and including it, that tells most.
    """

    feature: Feature
    target: Target
    p: float
    level: int


def cut_values(name: str, values: Sequence[str | None], least: int = 2) -> Feature | None:
    """Make a feature of values without an order; None where all are alike.

    Args:
        name: Of the feature.
        values: Per study; None where the feature does not apply.
        least: Studies that a value needs to be a level of its own.
    """
    own = [value for value in values if value is not None]
    uniques, counts = np.unique(np.array(own, dtype=np.str_), return_counts=True)
    common = counts >= least
    order = np.lexsort((uniques[common], -counts[common]))[:MOST_LEVELS]
    names = [str(value) for value in uniques[common][order]]
    number = {value: i for i, value in enumerate(names)}
    rest = len(names)
    levels = np.array([-1 if v is None else number.get(v, rest) for v in values], dtype=np.int64)
    if (levels == rest).any():
        names.append("another value")
    return Feature(name, levels, tuple(names)) if len(names) > 1 else None


def show_number(value: float) -> str:
    """Write a number with four digits."""
    return f"{value:.4g}"


def cut_numbers(
    name: str, values: Float[np.ndarray, " n"], show: Callable[[float], str] = show_number
) -> Feature | None:
    """Make a feature of numbers, NaN where it does not apply; None where all are alike.

    A few different numbers are a level each; many are cut at their quantiles.

    Args:
        name: Of the feature.
        values: Per study.
        show: Writes a number.
    """
    known = ~np.isnan(values)
    uniques = np.unique(values[known])
    if len(uniques) < 2:
        return None
    if len(uniques) <= 2 * BINS:
        edges = (uniques[:-1] + uniques[1:]) / 2
    else:
        edges = np.unique(np.quantile(values[known], np.arange(1, BINS) / BINS))
    levels = np.where(known, np.searchsorted(edges, values, side="left"), -1).astype(np.int64)
    used = np.unique(levels[known])
    levels[known] = np.searchsorted(used, levels[known])
    if len(used) < 2:
        return None
    own = values[known]
    names = tuple(f"up to {show(float(own[levels[known] == i].max()))}" for i in range(len(used)))
    return Feature(name, levels, names, ordered=True)


def flag(name: str, values: Bool[np.ndarray, " n"], applies: Bool[np.ndarray, " n"]) -> Feature:
    """Make a feature of a yes or no."""
    return Feature(name, np.where(applies, values, -1).astype(np.int64), ("no", "yes"))


def find_associations(
    features: Sequence[Feature],
    targets: Sequence[Target],
    patients: Int64[np.ndarray, " n"],
    alpha: float,
) -> tuple[Association, ...]:
    """Find what tells a target beyond chance, at a chance of ``alpha`` for any false one at all.

    Args:
        features: One family of tests, together with the targets.
        targets: What may be told.
        patients: A number per study, the same for the studies of one patient.
        alpha: Chance of a false finding in the whole family.
    """
    tested = [(f, t, _test(f, t, patients)) for f in features for t in targets]
    if not tested:
        return ()
    least = np.sort(np.concatenate([attainable for _, _, (_, attainable) in tested]))
    # Tarone's K: the smallest for which no more than K tests could reach alpha / K.
    factor = 1
    while factor < len(least) and least[factor] <= alpha / factor:
        factor += 1
    found = []
    for feature, target, (p, _) in tested:
        if not len(p):
            continue
        best = int(p.argmin())
        adjusted = min(1.0, float(p[best]) * factor)
        if adjusted <= alpha:
            found.append(Association(feature, target, adjusted, best))
    return tuple(found)


def measure_feature(
    feature: Feature,
    target: Target,
    patients: Int64[np.ndarray, " n"],
    resamples: int,
    seed: int,
) -> Figure:
    """Measure how well a feature tells a target out of fold: AUROC with interval, by patient."""
    scores = score_levels(feature.levels, target.labels, patients, seed)
    return measure_scores(scores, target, patients, resamples, seed)


def measure_scores(
    scores: Float[np.ndarray, " n"],
    target: Target,
    patients: Int64[np.ndarray, " n"],
    resamples: int,
    seed: int,
) -> Figure:
    """Measure the AUROC of scores, NaN left out, with its interval by patient."""
    use = target.known & ~np.isnan(scores)
    names = [str(p) for p in patients[use]]
    weights = patient_weights(names, resamples, seed)
    return summarise(auroc(scores[use], target.labels[use] == 1, weights))


def score_levels(
    levels: Int64[np.ndarray, " n"],
    labels: Float[np.ndarray, " n"],
    patients: Int64[np.ndarray, " n"],
    seed: int,
) -> Float[np.ndarray, " n"]:
    """Score every study by its level's mean label among other patients, less their average.

    The average is taken off since it differs from fold to fold, against the fold's own labels.
    """
    scores = np.full(len(levels), np.nan)
    use = (levels >= 0) & ~np.isnan(labels)
    fold = deal_folds(labels, patients, seed)
    for k in range(FOLDS):
        train, test = use & (fold != k), use & (fold == k)
        if not train.any():
            continue
        size = int(levels.max()) + 1
        counts = np.bincount(levels[train], minlength=size)
        sums = np.bincount(levels[train], weights=labels[train], minlength=size)
        mean = labels[train].mean()
        scores[test] = ((sums + PRIOR * mean) / (counts + PRIOR) - mean)[levels[test]]
    return scores


def deal_folds(
    labels: Float[np.ndarray, " n"], patients: Int64[np.ndarray, " n"], seed: int
) -> Int64[np.ndarray, " n"]:
    """Deal patients to folds, those with a positive study first, so that each fold has some."""
    count = int(patients.max()) + 1
    positive = np.zeros(count, dtype=bool)
    positive[patients[labels == 1]] = True
    shuffled = np.random.default_rng(seed).permutation(count)
    order = shuffled[np.argsort(~positive[shuffled], kind="stable")]
    fold = np.empty(count, dtype=np.int64)
    fold[order] = np.arange(count) % FOLDS
    return np.asarray(fold[patients])


def _test(
    feature: Feature, target: Target, patients: Int64[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Test every level and cut.

    Returns:
        The p of each test, and the least p that it could have had.
    """
    use = (feature.levels >= 0) & target.known
    levels, patient = feature.levels[use], patients[use]
    yes = (target.labels[use] == 1).astype(np.int64)
    size = len(feature.names)
    if size < 2 or not len(levels) or yes.all() or not yes.any():
        return np.ones(0), np.ones(0)
    counts = np.zeros((int(patients.max()) + 1, 2, size))
    np.add.at(counts, (patient, yes, levels), 1)
    total = counts.sum(axis=2, keepdims=True)
    inside = counts[:, :, :1] if size == 2 else counts
    if feature.ordered and size > 2:
        inside = np.concatenate([counts, counts.cumsum(axis=2)[:, :, 1:-2]], axis=2)
    within = (inside > 0).sum(axis=0)  # (2, tests)
    beyond = (total - inside > 0).sum(axis=0)
    return _fisher(within[1], within[0], beyond[1], beyond[0])


def _fisher(
    a: Int64[np.ndarray, " t"],
    b: Int64[np.ndarray, " t"],
    c: Int64[np.ndarray, " t"],
    d: Int64[np.ndarray, " t"],
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Give twice the smaller tail of Fisher's exact test of ((a, b), (c, d)), and its least."""
    whole, drawn, marked = a + b + c + d, a + c, a + b
    low, high = np.maximum(0, drawn + marked - whole), np.minimum(drawn, marked)
    p = 2 * np.minimum(
        hypergeom.sf(a - 1, whole, drawn, marked), hypergeom.cdf(a, whole, drawn, marked)
    )
    least = 2 * np.minimum(
        hypergeom.pmf(high, whole, drawn, marked), hypergeom.pmf(low, whole, drawn, marked)
    )
    return np.minimum(p, 1.0), np.minimum(least, 1.0)


def describe_level(association: Association) -> str:
    """Say which level or cut tells most."""
    feature = association.feature
    if association.level < len(feature.names):
        return feature.names[association.level]
    return feature.names[association.level - len(feature.names) + 1]


def balance(
    levels: Int64[np.ndarray, " n"], labels: Float[np.ndarray, " n"], seed: int
) -> Int64[np.ndarray, " k"]:
    """Choose studies to drop so that every level has the same share of positives.

    A level of one label alone goes altogether; of others, studies are drawn at random. The share
    is the one that keeps most studies of the rarer label.
    """
    use = (levels >= 0) & ~np.isnan(labels)
    yes, no = (np.bincount(levels[use & (labels == v)], minlength=levels.max() + 1) for v in (1, 0))
    mixed = (yes > 0) & (no > 0)
    kept_yes, kept_no = np.zeros(len(yes), np.int64), np.zeros(len(no), np.int64)
    if mixed.any():
        pairs = list(zip(yes[mixed].tolist(), no[mixed].tolist(), strict=True))

        def count_rarer(odds: float) -> int:
            kept = [_keep(y, n, odds) for y, n in pairs]
            return min(sum(y for y, _ in kept), sum(n for _, n in kept))

        overall = float(yes[mixed].sum() / no[mixed].sum())
        best = max((overall, *(y / n for y, n in pairs)), key=count_rarer)
        for level in np.flatnonzero(mixed).tolist():
            kept_yes[level], kept_no[level] = _keep(int(yes[level]), int(no[level]), best)
    rng = np.random.default_rng(seed)
    dropped: list[int] = []
    for level in range(len(yes)):
        for value, kept in ((1, kept_yes[level]), (0, kept_no[level])):
            those = np.flatnonzero(use & (levels == level) & (labels == value))
            dropped += rng.permutation(those)[kept:].tolist()
    return np.array(sorted(dropped), dtype=np.int64)


def _keep(yes: int, no: int, odds: float) -> tuple[int, int]:
    """Give how many positives and negatives keep these odds; none where one of them is none."""
    negatives = min(no, math.floor(yes / odds + 1e-9))
    positives = min(yes, round(negatives * odds))
    return (positives, negatives) if positives and negatives else (0, 0)
