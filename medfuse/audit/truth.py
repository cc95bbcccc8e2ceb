"""A study whose truth is known in; where its evidence lies, and what each modality tells, out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import binary_dilation
from scipy.special import logit

from medfuse.config import VoiceSettings
from medfuse.overlay import find_words, mel_centres_hz, mel_times_s
from medfuse.synthetic.evidence import ImageEvidence, NoteEvidence, VoiceEvidence
from medfuse.synthetic.findings import signs_of
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import Truth
from medfuse.synthetic.world import DISCORDANCE, SIGN_NAMES, TARGETS, build_world
from medfuse.types import (
    MODALITIES,
    SUBSETS,
    Modality,
    Prepared,
    PreparedImage,
    PreparedNote,
    PreparedVoice,
)

TOLERANCE_SHARE = 0.03
"""How near to a sign in an image counts as on it, as a share of the frame's longer side.

The pointing game's 15 pixels (Zhang et al. 2018, "Top-down Neural Attention by Excitation
Backprop", section 4.1), on photographs of about 500.
"""

TOLERANCE_S = 0.05
"""Likewise in a recording: half of a window of `medfuse.attribution.regions`."""

TOLERANCE_BANDS = 1
"""Likewise in pitch: a band overlaps the one beside it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where one modality shows a finding's signs, part by part as its map is displayed.

    Attributes:
        modality: Whose parts they are.
        direction: 1 where the signs speak for the finding, -1 where they speak against it.
        inside: Per part what the signs cover: an image's native pixels by frame, a note's read
            words (all in one part), a recording's mel bins (T, F).
        near: The same with its tolerance.
        weights: The size of an element of each part, so that parts can be added up: for an image
            the model's pixels in a native one, else 1.
    """

    modality: Modality
    direction: int
    inside: tuple[Bool[np.ndarray, "..."], ...]
    near: tuple[Bool[np.ndarray, "..."], ...]
    weights: tuple[float, ...]

    @property
    def area(self) -> float:
        """The share of the modality that is evidence: what chance would find."""
        sizes = zip(self.inside, self.weights, strict=True)
        total = sum(part.size * w for part, w in zip(self.inside, self.weights, strict=True))
        return float(sum(part.sum() * w for part, w in sizes) / total)


def unique_modality(finding: str) -> Modality | None:
    """Name the one modality that shows a finding; None where several do."""
    showing = [m for m in MODALITIES if signs_of(finding, m)]
    return showing[0] if len(showing) == 1 else None


def locate_evidence(
    truth: Truth,
    prepared: Prepared,
    finding: str,
    modality: Modality,
    options: CohortOptions,
    settings: VoiceSettings,
) -> Evidence | None:
    """Find the planted signs of a finding in what the model was given of a modality.

    Returns:
        None where no sign of it was planted there, or none that the model reads.
    """
    planted = frozenset(signs_of(finding, modality)) & truth.signs
    if not planted:
        return None
    match modality:
        case Modality.IMAGE if prepared.image is not None:
            inside, near, weights = _find_pixels(truth.image, planted, prepared.image)
        case Modality.NOTE if prepared.note is not None:
            inside = near = (_find_words(truth.note, planted, prepared.note),)
            weights = (1.0,)
        case Modality.VOICE if prepared.voice is not None:
            inside = (_find_bins(truth.voice, planted, prepared.voice, settings, 0.0, 0),)
            near = (
                _find_bins(
                    truth.voice, planted, prepared.voice, settings, TOLERANCE_S, TOLERANCE_BANDS
                ),
            )
            weights = (1.0,)
        case _:
            return None
    if not any(part.any() for part in inside):
        return None
    direction = _direction(truth, planted, finding, options)
    return Evidence(modality, direction, inside, near, weights)


def exact_outputs(
    truth: Truth, finding: str, options: CohortOptions
) -> dict[frozenset[Modality], float]:
    """Give the log odds of a finding that are exactly right, from every subset of the modalities.

    The empty subset has those of the finding's prevalence.
    """
    column = TARGETS.index(finding)
    prevalence = float(build_world(options).prevalence()[column])
    outputs = {frozenset[Modality](): float(logit(prevalence))}
    outputs |= {
        subset: float(logit(row[column]))
        for subset, row in zip(SUBSETS, truth.posterior, strict=True)
    }
    return outputs


def synergistic(finding: str, pair: frozenset[Modality]) -> bool:
    """Whether synergy was planted: two modalities that tell of it only together."""
    return finding == DISCORDANCE.name and all(signs_of(finding, m) for m in pair)


def _direction(truth: Truth, planted: frozenset[str], finding: str, options: CohortOptions) -> int:
    """Compare the exact posterior with what it would be without the planted signs."""
    world = build_world(options)
    column = TARGETS.index(finding)

    def posterior(signs: frozenset[str]) -> float:
        answers = {name: name in signs for name in SIGN_NAMES}
        return float(world.clinical(-1, answers)[column])

    return 1 if posterior(truth.signs) >= posterior(truth.signs - planted) else -1


def _find_pixels(
    evidence: tuple[ImageEvidence, ...], planted: frozenset[str], image: PreparedImage
) -> tuple[
    tuple[Bool[np.ndarray, "_ _"], ...], tuple[Bool[np.ndarray, "_ _"], ...], tuple[float, ...]
]:
    inside, near, weights = [], [], []
    for place in image.geometry:
        mask = np.zeros((place.rows, place.columns), bool)
        for each in evidence:
            if each.sign in planted and each.instance == place.instance:
                mask |= each.mask
        inside.append(mask)
        reach = round(TOLERANCE_SHARE * max(mask.shape))
        down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        disc = down**2 + across**2 <= reach**2
        near.append(binary_dilation(mask, disc))
        weights.append(place.height * place.width / (place.rows * place.columns))
    return tuple(inside), tuple(near), tuple(weights)


def _find_words(
    evidence: tuple[NoteEvidence, ...], planted: frozenset[str], note: PreparedNote
) -> Bool[np.ndarray, " w"]:
    """Tell which read words have a character in a sign's phrase."""
    words, _ = find_words(note.text, note.spans)
    spans = [(each.start, each.end) for each in evidence if each.sign in planted]
    return np.array(
        [any(start < last and first < end for first, last in spans) for start, end in words], bool
    )


def _find_bins(
    evidence: tuple[VoiceEvidence, ...],
    planted: frozenset[str],
    voice: PreparedVoice,
    settings: VoiceSettings,
    more_s: float,
    more_bands: int,
) -> Bool[np.ndarray, "t f"]:
    times, hz = mel_times_s(voice), mel_centres_hz(settings)
    mask = np.zeros(voice.values.shape, bool)
    for each in evidence:
        if each.sign in planted:
            when = (times >= each.start_s - more_s) & (times <= each.end_s + more_s)
            pitch = (hz >= each.low_hz) & (hz <= each.high_hz)
            pitch = binary_dilation(pitch, iterations=more_bands) if more_bands else pitch
            mask |= when[:, None] & pitch
    return mask
