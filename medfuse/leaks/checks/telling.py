"""A family of features in; one finding per target that any of them tells, with its remedy, out."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from medfuse.leaks.association import (
    Association,
    Feature,
    balance,
    describe_level,
    find_associations,
    measure_feature,
)
from medfuse.leaks.examined import Examined
from medfuse.leaks.report import LeakFinding, Remedy, Severity, pick_examples
from medfuse.trust.bootstrap import Figure

SHOWN_PATIENTS = 5
"""A value is shown in a message when so many patients have it."""

Remedies = Callable[[Examined, Association], Remedy | None]


def balance_rows(examined: Examined, association: Association) -> Remedy | None:
    """Drop rows until the feature's levels have the label equally often; None if none stays."""
    levels, labels = association.feature.levels, association.target.labels
    dropped = balance(levels, labels, examined.settings.seed)
    if not 0 < len(dropped) < np.count_nonzero((levels >= 0) & association.target.known):
        return None
    return Remedy(drop=examined.name(dropped))


def find_telling(
    examined: Examined,
    kind: str,
    features: Sequence[Feature],
    remedy: Remedies = balance_rows,
    severity: Severity | None = None,
) -> list[LeakFinding]:
    """Find which targets a family of features tells, and report each with its best feature.

    Args:
        examined: The cohort.
        kind: Of the findings.
        features: The family.
        remedy: Makes a finding's remedy.
        severity: Of all findings; by the settings' least AUROC where it is None.
    """
    found = find_associations(features, examined.targets, examined.patients, examined.alpha)
    findings = []
    for target in dict.fromkeys(a.target.name for a in found):
        own = [a for a in found if a.target.name == target]
        figures = [measure(examined, a) for a in own]
        order = sorted(range(len(own)), key=lambda i: (-_value(figures[i]), own[i].p))
        best, figure = own[order[0]], figures[order[0]]
        others = [own[i].feature.name for i in order[1:]]
        inside = members(best)
        findings.append(
            LeakFinding(
                kind=kind,
                severity=severity or judge(examined, figure),
                target=target,
                feature=best.feature.name,
                figure=figure,
                count=len(inside),
                p=best.p,
                examples=pick_examples(examined.name(_telltale(best, inside))),
                message=_sentence(examined, best, inside)
                + (f" So do: {', '.join(others)}." if others else ""),
                remedy=remedy(examined, best),
            )
        )
    return findings


def measure(examined: Examined, association: Association) -> Figure:
    """Measure how well an association's feature tells its target."""
    return measure_feature(
        association.feature,
        association.target,
        examined.patients,
        examined.settings.resamples,
        examined.settings.seed,
    )


def judge(examined: Examined, figure: Figure) -> Severity:
    """Say whether a figure is large enough to refuse training."""
    return "fail" if _value(figure) >= examined.settings.least_auroc else "warn"


def members(association: Association) -> Int64[np.ndarray, " k"]:
    """Give the labelled studies of the level, or of all levels up to the cut, that tells most."""
    levels, n = association.feature.levels, len(association.feature.names)
    if association.level < n:
        inside = levels == association.level
    else:
        inside = (levels >= 0) & (levels <= association.level - n + 1)
    return np.flatnonzero(inside & association.target.known)


def _sentence(examined: Examined, best: Association, inside: Int64[np.ndarray, " k"]) -> str:
    labels = best.target.labels[inside] == 1
    shown = len(np.unique(examined.patients[inside])) >= SHOWN_PATIENTS or best.feature.ordered
    level = describe_level(best) if shown else "a rare value"
    return (
        f"{best.feature.name} tells {best.target.name}: of {len(inside)} studies with "
        f"'{level}', {int(labels.sum())} are positive, of all others "
        f"{_share_elsewhere(best, inside):.0%}."
    )


def _telltale(best: Association, inside: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " j"]:
    """Give the positive studies on the side of the level that has the larger share of them."""
    beyond = (best.feature.levels >= 0) & best.target.known
    beyond[inside] = False
    sides = [inside, np.flatnonzero(beyond)]
    side = max(sides, key=lambda own: (best.target.labels[own] == 1).mean() if len(own) else -1.0)
    return np.asarray(side[best.target.labels[side] == 1])


def _share_elsewhere(best: Association, inside: Int64[np.ndarray, " k"]) -> float:
    use = (best.feature.levels >= 0) & best.target.known
    use[inside] = False
    return float((best.target.labels[use] == 1).mean()) if use.any() else 0.0


def _value(figure: Figure) -> float:
    return 0.0 if figure.value is None else figure.value
