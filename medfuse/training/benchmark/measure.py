"""What contenders said and the labels in; a table with intervals and paired differences out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from medfuse.errors import CohortError
from medfuse.training.benchmark.contest import Contender, Role, Said
from medfuse.training.benchmark.report import Entry, Table
from medfuse.trust.bootstrap import patient_weights, summarise
from medfuse.trust.metrics import Figures, Weights, auroc


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked about, and how.

    Attributes:
        title: Of the table.
        population: In words.
        judged: How patients were divided, in words.
        labels: Per study.
        patients: Whose studies they are.
        left_out: Rows that were not used, by reason.
        fusion: The contender, named before anything is measured, that a gain of fusion is read
            from; empty where nothing is fused.
    """

    title: str
    population: str
    judged: str
    labels: Bool[np.ndarray, " n"] = field(repr=False)
    patients: tuple[str, ...] = field(repr=False)
    left_out: Mapping[str, int] = field(default_factory=dict)
    fusion: str = ""


def measure_contest(
    asked: Asked,
    contenders: Sequence[Contender],
    said: Mapping[str, Said],
    resamples: int,
    seed: int,
) -> Table:
    """Measure every contender, and compare it in pairs.

    The best single modality is the one that turns out best on these very patients, which favours
    it over the fusions.

    Raises:
        CohortError: Nobody, or only one label, was asked about.
    """
    labels = asked.labels
    known = np.array([~np.isnan(each.scores).all(axis=0) for each in said.values()]).all(axis=0)
    if len(np.unique(labels[known])) < 2:
        raise CohortError(f"{asked.title}: all studies have one label; expected both")
    patients = [asked.patients[i] for i in np.flatnonzero(known)]
    weights = patient_weights(patients, resamples, seed)
    own = labels[known]
    areas: dict[str, Figures] = {}
    entries: list[Entry] = []
    for contender in contenders:
        # NaN in the repeats that a contender took no part in.
        scores = said[contender.name].scores[:, known]
        log_odds = said[contender.name].log_odds[:, known]
        mean = np.nanmean(scores, axis=0)
        areas[contender.name] = auroc(mean, own, weights)
        correct = (np.nanmean(scores + log_odds, axis=0) > 0) == own
        entries.append(
            Entry(
                name=contender.name,
                role=contender.role.value,
                auroc=summarise(areas[contender.name]),
                accuracy=summarise(_share(correct, weights)),
                repeat_aurocs=tuple(
                    float(auroc(row, own, weights[:1])[0])
                    for row in scores
                    if not np.isnan(row).any()
                ),
            )
        )
    metadata = _best(contenders, areas, Role.METADATA)
    single = _best(contenders, areas, Role.SINGLE)
    commoner = own == (2 * own.sum() >= len(own))
    return Table(
        title=asked.title,
        population=asked.population,
        studies=int(known.sum()),
        patients=len(set(patients)),
        positives=int(own.sum()),
        left_out=dict(asked.left_out),
        judged=asked.judged,
        resamples=resamples,
        majority=summarise(_share(commoner, weights)),
        entries=tuple(
            entry.model_copy(
                update={
                    "over_metadata": None
                    if entry.name == metadata
                    else summarise(areas[entry.name] - areas[metadata]),
                    "over_single": summarise(areas[entry.name] - areas[single])
                    if entry.role == "fusion"
                    else None,
                }
            )
            for entry in entries
        ),
        best_single=single,
        fusion=asked.fusion,
    )


def _best(contenders: Sequence[Contender], areas: Mapping[str, Figures], role: Role) -> str:
    return max(
        (c.name for c in contenders if c.role is role), key=lambda name: float(areas[name][0])
    )


def _share(correct: Bool[np.ndarray, " n"], weights: Weights) -> Figures:
    return np.asarray(weights @ correct / weights.sum(axis=1))
