"""A study that lacks modalities in; over what each of them could move its answer out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medfuse.types import MODALITIES, Modality, Prediction, Study
from medfuse_serving.answer import Answer
from medfuse_serving.predictor import Predictor

FEWEST = 5
"""Other studies below which their range says too little to be shown."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What the answer becomes with other studies' parts in the place of one that is missing.

    The parts are other patients', and are not chosen to go with what this study has: the range says
    what the model could have answered, not how likely any of it is.

    Attributes:
        modality: That is missing.
        count: How many studies lent theirs.
        ranges: Lowest and highest probability, or value of a regression, by ``task.class`` or task.
    """

    modality: Modality
    count: int
    ranges: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Reaches:
    """What came of asking what missing modalities might change.

    Attributes:
        answer: That could be moved; what was found stands beside no other.
        found: Over what; empty where it was not asked, or nothing is missing.
        problem: Why it could not be found.
    """

    answer: Answer | None = None
    found: tuple[Reach, ...] = ()
    problem: str = ""


def explore(predictor: Predictor, study: Study, others: Sequence[Study]) -> tuple[Reach, ...]:
    """Find all reaches: as `follow` does, with its errors."""
    *_, found = follow(predictor, study, others)
    assert not isinstance(found, float)
    return found


def follow(
    predictor: Predictor, study: Study, others: Sequence[Study]
) -> Iterator[float | tuple[Reach, ...]]:
    """Answer a study with each other study's part in the place of each that it lacks.

    Each answer is the predictor's own, calibrated for what the study has then.

    Args:
        predictor: Which answered it.
        study: With at least one modality.
        others: Whose parts are lent.

    Yields:
        The share of the answers that is there, before each; in the end what was found, of each
        missing modality that at least `FEWEST` others have. Whoever lets go of it before ends it.

    Raises:
        InputError: A study cannot be used.
    """
    found = []
    filled = {
        modality: [_lend(study, other, modality) for other in others if _has(other, modality)]
        for modality in MODALITIES
        if not _has(study, modality)
    }
    wanted, done = sum(map(len, filled.values())), 0
    for modality, own in filled.items():
        answers = []
        for one in own:
            yield done / wanted
            answers += predictor.predict([one])
            done += 1
        # A part may be there and hold nothing that the model reads.
        heard = [_list_numbers(a) for a in answers if modality in a.used]
        if len(heard) >= FEWEST:
            ranges = {
                name: (min(n[name] for n in heard), max(n[name] for n in heard))
                for name in heard[0]
            }
            found.append(Reach(modality, len(heard), ranges))
    yield tuple(found)


def _has(study: Study, modality: Modality) -> bool:
    if modality is Modality.IMAGE:
        return bool(study.images)
    return (study.note if modality is Modality.NOTE else study.voice) is not None


def _lend(study: Study, other: Study, modality: Modality) -> Study:
    if modality is Modality.IMAGE:
        return replace(study, images=other.images)
    if modality is Modality.NOTE:
        return replace(study, note=other.note)
    return replace(study, voice=other.voice)


def _list_numbers(prediction: Prediction) -> dict[str, float]:
    """List what is answered: each class's probability, or a regression's value."""
    numbers = {}
    for own in prediction.tasks:
        if own.value is not None:
            numbers[own.task.name] = own.value
        else:
            for name, p in zip(own.task.classes, own.probabilities.tolist(), strict=True):
                numbers[f"{own.task.name}.{name}"] = p
    return numbers
