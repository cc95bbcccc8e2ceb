"""Answers and groups of studies in; each group's figure, and its difference from the rest, out."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from medfuse.config import Settings, Task
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.trust.calibration import label_slices, logit_slices
from medfuse.trust.comparison import holm
from medfuse.trust.figures import ReportSettings
from medfuse.trust.metrics import headline, measure_headline

FEWEST = 20
"""Studies that a group, and the rest, must have to be compared."""

AGES = (18, 40, 65, 80)
"""Where age bands begin, in years."""


class SubgroupFigure(Settings):
    """One task's headline figure in one group of studies, against all other studies.

    Attributes:
        field: What the studies are grouped by.
        group: The value they share.
        task: Which one.
        metric: Its headline metric.
        studies: In the group.
        value: In the group, with its 95 % interval by patient.
        rest: In all other studies that say what group they are of.
        difference: Group less rest.
        p_value: Of no difference, by the difference's bootstrap spread; None where undefined.
        p_holm: The same, corrected for the number of comparisons in the whole table (Holm 1979).
    """

    field: str
    group: str
    task: str
    metric: str
    studies: int
    value: Figure
    rest: Figure
    difference: Figure
    p_value: float | None
    p_holm: float | None = None


def measure_subgroups(
    tasks: Sequence[Task],
    answers: Answers,
    fields: Mapping[str, Sequence[str]],
    settings: ReportSettings,
) -> tuple[SubgroupFigure, ...]:
    """Compare every group of at least `FEWEST` studies with the rest, each study as it was given.

    Args:
        tasks: In the order of the logits.
        answers: Calibrated.
        fields: What to group by, with each study's value; empty where not known.
        settings: How many resamples.
    """
    patients = [row.patient_id for row in answers.rows]
    weights = patient_weights(patients, settings.resamples, settings.seed)
    found: list[SubgroupFigure] = []
    for field, values in fields.items():
        own = np.array(values, dtype=np.str_)
        known = own != ""
        for group in sorted(set(own[known].tolist())):
            inside, outside = own == group, known & (own != group)
            if min(inside.sum(), outside.sum()) >= FEWEST:
                found += [
                    _compare(tasks, place, answers, field, group, inside, outside, weights)
                    for place in range(len(tasks))
                ]
    tested = [i for i, figure in enumerate(found) if figure.p_value is not None]
    corrected = holm([found[i].p_value or 0.0 for i in tested])
    for i, p in zip(tested, corrected, strict=True):
        found[i] = found[i].model_copy(update={"p_holm": p})
    return tuple(found)


def age_band(age: str) -> str:
    """Name the band of an age in years, such as ``40 to 64``; empty where it is not a number."""
    try:
        years = float(age)
    except ValueError:
        return ""
    if not 0 <= years < 150:
        return ""
    edges = (0, *AGES)
    lower = max(edge for edge in edges if edge <= years)
    if lower == edges[-1]:
        return f"{lower} and over"
    upper = min(edge for edge in edges if edge > years)
    return f"under {upper}" if not lower else f"{lower} to {upper - 1}"


def _compare(
    tasks: Sequence[Task],
    place: int,
    answers: Answers,
    field: str,
    group: str,
    inside: Bool[np.ndarray, " n"],
    outside: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, "r n"],
) -> SubgroupFigure:
    task, where = list(logit_slices(tasks))[place]
    _, columns = list(label_slices(tasks))[place]
    logits, labels = answers.logits[AS_GIVEN][:, where], answers.labels[:, columns]
    value, rest = (
        measure_headline(task, logits[chosen], labels[chosen], weights[:, chosen])
        for chosen in (inside, outside)
    )
    difference = value - rest
    resampled = difference[1:][~np.isnan(difference[1:])]
    spread = float(resampled.std(ddof=1)) if len(resampled) > 1 else 0.0
    p_value = None
    if spread > 0 and not np.isnan(difference[0]):
        p_value = float(2 * norm.sf(abs(difference[0]) / spread))
    return SubgroupFigure(
        field=field,
        group=group,
        task=task.name,
        metric=headline(task),
        studies=int(inside.sum()),
        value=summarise(value),
        rest=summarise(rest),
        difference=summarise(difference),
        p_value=p_value,
    )
