"""The golden study: a bundle in, one known synthetic study and the answers its model must give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, ValidationError

from medfuse.bundle import GOLDEN_ANSWER, Bundle, FileName
from medfuse.config import Settings
from medfuse.errors import BundleError
from medfuse.types import SUBSETS, Modality, Prediction, Study, subset_name

CLEAR = 0.05
"""The least lead, in logits, of every word of a sentence that any machine must write alike."""


class GoldenAnswer(Settings):
    """What ``golden/answer.json`` says: the study's files, and the torch model's answers to it.

    Attributes:
        images: The study's DICOM files, by their paths inside the bundle.
        note: Likewise.
        voice: Likewise.
        targets: The name of each logit.
        logits: By subset of modalities, all seven: the study with the other modalities left out.
        probabilities: Likewise, calibrated, all tasks' concatenated.
        sentences: What the torch model writes of each finding, by subset and target, stated or
            not; without those of which some word was hardly ahead of another (`CLEAR`), which
            rounding could change. Empty of a model that writes no text.
        scale: The logits' scale in the parity sweep; differences are relative to it.
        tolerance: The largest relative difference of a logit that passes. Wider than that of
            parity, since another machine's decoders and kernels round differently.
    """

    images: tuple[FileName, ...] = Field(min_length=1)
    note: FileName
    voice: FileName
    targets: tuple[str, ...] = Field(min_length=1)
    logits: dict[str, tuple[float, ...]]
    probabilities: dict[str, tuple[float, ...]]
    sentences: dict[str, dict[str, str]] = Field(default_factory=dict)
    scale: float = Field(gt=0)
    tolerance: float = Field(gt=0)


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden study once per subset of modalities, and what the model must answer to each.

    Attributes:
        studies: In the order of `SUBSETS`; the last is the full study.
        answer: The expected answers.
    """

    studies: tuple[Study, ...]
    answer: GoldenAnswer


def read_golden(bundle: Bundle) -> Golden:
    """Read a bundle's golden study, each file verified as it is read.

    Raises:
        BundleError: It is not there, or its answer is not valid.
    """
    try:
        answer = GoldenAnswer.model_validate_json(bundle.read(GOLDEN_ANSWER))
    except ValidationError as error:
        raise BundleError(
            f"{bundle.path}: {GOLDEN_ANSWER} is not valid; export the bundle again"
        ) from error
    names = {subset_name(subset) for subset in SUBSETS}
    if set(answer.logits) != names or set(answer.probabilities) != names:
        raise BundleError(f"{bundle.path}: {GOLDEN_ANSWER} does not answer every subset")
    full = Study(
        images=tuple(bundle.read(name) for name in answer.images),
        note=bundle.read(answer.note),
        voice=bundle.read(answer.voice),
    )
    return Golden(studies=tuple(keep(full, subset) for subset in SUBSETS), answer=answer)


def keep(study: Study, subset: frozenset[Modality]) -> Study:
    """Leave out of a study every modality that is not in ``subset``."""
    return Study(
        images=study.images if Modality.IMAGE in subset else (),
        note=study.note if Modality.NOTE in subset else None,
        voice=study.voice if Modality.VOICE in subset else None,
        patient_id=study.patient_id,
        study_uid=study.study_uid,
    )


def check_golden(golden: Golden, predictions: Sequence[Prediction]) -> float:
    """Compare predictions for `Golden.studies`, in order, with the expected answers.

    Returns:
        The largest difference of any logit, relative to the logits' scale.

    Raises:
        BundleError: It is above the tolerance or not a number: this machine runs the model wrongly.
    """
    worst = 0.0
    for subset, prediction in zip(SUBSETS, predictions, strict=True):
        expected = np.array(golden.answer.logits[subset_name(subset)])
        given = np.concatenate([task.logits for task in prediction.tasks])
        if prediction.used != subset or given.shape != expected.shape:
            raise BundleError(
                f"the golden study with {subset_name(subset)} was answered from other evidence "
                "or for other targets; export the bundle again"
            )
        difference = float(np.abs(given - expected).max()) / golden.answer.scale
        if not difference <= golden.answer.tolerance:
            raise BundleError(
                f"the golden study with {subset_name(subset)} is answered {difference:.1e} of the "
                f"logits' scale off, and {golden.answer.tolerance:.0e} is allowed; do not use the "
                "bundle here, and check the execution provider and the library versions"
            )
        worst = max(worst, difference)
    return worst


def check_sentences(golden: Golden, written: Sequence[Mapping[str, str]]) -> int:
    """Compare sentences of `Golden.studies`, in order, with those that the torch model writes.

    Args:
        golden: The study and its answers.
        written: By target, what was written of each finding, stated or not.

    Returns:
        How many were compared.

    Raises:
        BundleError: One of them is another: this machine runs the decoder wrongly.
    """
    compared = 0
    for subset, own in zip(SUBSETS, written, strict=True):
        for target, text in golden.answer.sentences.get(subset_name(subset), {}).items():
            if own.get(target) != text:
                raise BundleError(
                    f"the golden study's sentence of {target} with {subset_name(subset)} is not "
                    "the one that the model writes; do not use the bundle here, and check the "
                    "execution provider and the library versions"
                )
            compared += 1
    return compared
