"""What an attribution is measured against: a study in, versions of it without its content out.

Sturmfels et al. 2020, "Visualizing the Impact of Feature Attribution Baselines": none is right for
every question and they move shares by up to 20 points, so each has a name, which an answer states.

Every version is as long as the study. An image's padding in the model's square and a note's special
pieces stay as they are in all of them, so they get no attribution.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import gaussian_filter
from tokenizers import Tokenizer

from medfuse.attribution.background import Background
from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.regions import NO_REGION
from medfuse.attribution.settings import BASELINE_NAMES, BaselineName
from medfuse.attribution.subject import Subject
from medfuse.data.voice import SILENCE
from medfuse.errors import SettingsError
from medfuse.types import MODALITIES, Modality

MASK_PIECE, PADDING_PIECE = "[MASK]", "[PAD]"

BLUR = 1 / 16
"""Deviation of the blur, as a share of each side: 14 pixels of 224, wider than most findings."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What stands in the study's place where it is taken away.

    Attributes:
        name: Which of `BASELINES`.
        versions: One, or a marginal sample each; in the study's shapes and with its masks.
    """

    name: BaselineName
    versions: tuple[Inputs, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """What a baseline is made from.

    Attributes:
        name: Which one.
        network: Looks up word pieces.
        tokenizer: Names them.
        background: The training set's means, where they were kept.
        samples: Other studies that have something the study has.
    """

    name: BaselineName
    network: Network
    tokenizer: Tokenizer
    background: Background | None
    samples: tuple[Inputs, ...]

    @property
    def special(self) -> tuple[int, ...]:
        """The pieces that stand around every note."""
        return tuple(self.tokenizer.encode("").ids)

    def means(self) -> Background:
        """Give the training set's means.

        Raises:
            SettingsError: There are none.
        """
        if self.background is None or not self.background.studies:
            raise SettingsError(
                f"baseline {self.name!r} needs the training set's means, which the model came "
                "without"
            )
        return self.background

    def contents(self, modality: Modality) -> tuple[Float[np.ndarray, "_ ..."], ...]:
        """Give each sample's real tokens; one that lacks the modality takes the next one's.

        Raises:
            SettingsError: No sample has the modality.
        """
        found = [self._content(sample, modality) for sample in self.samples]
        if not any(len(content) for content in found):
            raise SettingsError(
                f"baseline {self.name!r} needs samples of other studies that have "
                f"{modality.value}; there are none"
            )
        count = len(found)
        return tuple(
            next(found[(i + k) % count] for k in range(count) if len(found[(i + k) % count]))
            for i in range(count)
        )

    def _content(self, sample: Inputs, modality: Modality) -> Float[np.ndarray, "_ ..."]:
        values = np.asarray(sample.values[modality][0][sample.masks[modality][0]])
        if modality is not Modality.NOTE:
            return values
        special = self.network.embed(np.array([self.special], np.int64))[0]  # (special, E)
        return np.asarray(values[~(values[:, None] == special).all(axis=2).any(axis=1)])


Maker = Callable[[Subject, Sources], Float[np.ndarray, "_ ..."]]
"""Makes one modality's versions: an axis of versions, then what goes over the study's own axes."""


def make_baseline(
    name: BaselineName | None,
    subject: Subject,
    network: Network,
    tokenizer: Tokenizer,
    background: Background | None,
    samples: Sequence[Inputs],
) -> Baseline:
    """Make what a study is measured against.

    Args:
        name: Which of `BASELINES`; the first that can be made if not said.
        subject: The study.
        network: Looks up word pieces.
        tokenizer: The note's.
        background: The training set's means; `mean` needs them.
        samples: Other studies, one version each, taken up by the same network; `marginal` needs
            them. A sample without a modality borrows the next one's.

    Raises:
        SettingsError: What the baseline needs is missing; the message says what.
    """
    present = subject.inputs.present
    useful = tuple(s for s in samples if set(s.present) & set(present))
    if name is None:
        name = usual_baseline(tokenizer, background, useful, present)
    sources = Sources(name, network, tokenizer, background, useful)
    made: dict[Modality, np.ndarray] = {}
    for modality in present:
        own = subject.inputs.values[modality]
        kept = _find_kept(subject, modality, sources)
        versions = BASELINES[name][modality](subject, sources)
        made[modality] = np.where(kept, own, versions.astype(own.dtype))
    count = max(len(versions) for versions in made.values())
    return Baseline(
        name=name,
        versions=tuple(
            Inputs(
                values={**subject.inputs.values, **{m: v[i : i + 1] for m, v in made.items()}},
                masks=subject.inputs.masks,
            )
            for i in range(count)
        ),
    )


def available_baselines(
    tokenizer: Tokenizer,
    background: Background | None,
    samples: Sequence[Inputs],
    present: Collection[Modality] = MODALITIES,
) -> tuple[BaselineName, ...]:
    """Name the baselines that `make_baseline` has all it needs for.

    Args:
        tokenizer: The note's.
        background: The training set's means.
        samples: Other studies.
        present: The modalities of the study.
    """
    noted = Modality.NOTE in present
    masks = not noted or tokenizer.token_to_id(MASK_PIECE) is not None
    ready: dict[BaselineName, bool] = {
        "blank": masks,
        "padding": not noted or tokenizer.token_to_id(PADDING_PIECE) is not None,
        "blurred": masks,
        "mean": background is not None and background.studies > 0,
        "marginal": all(any(m in sample.present for sample in samples) for m in present),
    }
    return tuple(name for name in BASELINE_NAMES if ready[name])


def usual_baseline(
    tokenizer: Tokenizer,
    background: Background | None,
    samples: Sequence[Inputs] = (),
    present: Collection[Modality] = MODALITIES,
) -> BaselineName:
    """Name the baseline to use where none is asked for: the first available one."""
    return next(iter(available_baselines(tokenizer, background, samples, present)), "blank")


def _find_kept(
    subject: Subject, modality: Modality, sources: Sources
) -> Bool[np.ndarray, "..."] | bool:
    """Tell which elements no baseline changes, over the modality's own axes."""
    if modality is Modality.IMAGE:
        return np.asarray(subject.regions.labels[modality] == NO_REGION)
    if modality is Modality.NOTE:
        return np.isin(subject.pieces, sources.special)[:, None]
    return False


def _black(subject: Subject, sources: Sources) -> Float32[np.ndarray, "1 1 1 1"]:
    return np.zeros((1, 1, 1, 1), np.float32)


def _mask(subject: Subject, sources: Sources) -> Float[np.ndarray, "1 1 e"]:
    """Say "some word" in place of each word piece."""
    return _look_up(MASK_PIECE, sources)


def _pad(subject: Subject, sources: Sources) -> Float[np.ndarray, "1 1 e"]:
    return _look_up(PADDING_PIECE, sources)


def _silent(subject: Subject, sources: Sources) -> Float32[np.ndarray, "1 1 1"]:
    return np.full((1, 1, 1), SILENCE, np.float32)


def _blur_image(subject: Subject, sources: Sources) -> Float[np.ndarray, "1 s h w"]:
    """Blur what each frame shows of the image; the padding around it does not bleed in."""
    assert subject.prepared.image is not None
    values = np.array(subject.inputs.values[Modality.IMAGE])
    for frame, place in zip(values[0], subject.prepared.image.geometry, strict=True):
        rows = slice(place.top, place.top + place.height)
        columns = slice(place.left, place.left + place.width)
        frame[rows, columns] = gaussian_filter(
            frame[rows, columns], BLUR * place.size, mode="nearest"
        )
    return values


def _blur_voice(subject: Subject, sources: Sources) -> Float[np.ndarray, "1 t f"]:
    """Smooth over time and over bands, each by the same share of its length as an image."""
    values = subject.inputs.values[Modality.VOICE]
    _, frames, bands = values.shape
    return np.asarray(gaussian_filter(values, (0.0, BLUR * frames, BLUR * bands), mode="nearest"))


def _mean_image(subject: Subject, sources: Sources) -> Float32[np.ndarray, "1 1 h w"]:
    return sources.means().image[None, None]


def _mean_note(subject: Subject, sources: Sources) -> Float32[np.ndarray, "1 1 e"]:
    return sources.means().note[None, None]


def _mean_voice(subject: Subject, sources: Sources) -> Float32[np.ndarray, "1 1 f"]:
    return sources.means().voice[None, None]


def _other_images(subject: Subject, sources: Sources) -> Float[np.ndarray, "n s h w"]:
    places = np.arange(subject.inputs.values[Modality.IMAGE].shape[1])
    return _cycle(sources.contents(Modality.IMAGE), places)


def _other_notes(subject: Subject, sources: Sources) -> Float[np.ndarray, "n l e"]:
    """Put other notes' words where this note has its own."""
    words = ~np.isin(subject.pieces, sources.special)
    return _cycle(sources.contents(Modality.NOTE), words.cumsum() - words)


def _other_voices(subject: Subject, sources: Sources) -> Float[np.ndarray, "n t f"]:
    places = np.arange(subject.inputs.values[Modality.VOICE].shape[1])
    return _cycle(sources.contents(Modality.VOICE), places)


def _cycle(
    contents: Sequence[Float[np.ndarray, "_ ..."]], places: np.ndarray
) -> Float[np.ndarray, "n _ ..."]:
    """Read each sample at those places, from its start again where it ends too soon."""
    return np.stack([content[places % len(content)] for content in contents])


def _look_up(piece: str, sources: Sources) -> Float[np.ndarray, "1 1 e"]:
    number = sources.tokenizer.token_to_id(piece)
    if number is None:
        raise SettingsError(
            f"baseline {sources.name!r} of a note needs a {piece} piece; the tokenizer has none"
        )
    return sources.network.embed(np.array([[number]], np.int64))


BASELINES: Mapping[BaselineName, Mapping[Modality, Maker]] = {
    "blank": {Modality.IMAGE: _black, Modality.NOTE: _mask, Modality.VOICE: _silent},
    "padding": {Modality.IMAGE: _black, Modality.NOTE: _pad, Modality.VOICE: _silent},
    "blurred": {Modality.IMAGE: _blur_image, Modality.NOTE: _mask, Modality.VOICE: _blur_voice},
    "mean": {Modality.IMAGE: _mean_image, Modality.NOTE: _mean_note, Modality.VOICE: _mean_voice},
    "marginal": {
        Modality.IMAGE: _other_images,
        Modality.NOTE: _other_notes,
        Modality.VOICE: _other_voices,
    },
}
"""What stands in each modality's place, by name: a black image, ``[MASK]`` or ``[PAD]`` word
pieces, silence; the image and the recording blurred; the training set's mean picture, word piece
and spectrum; or what other studies have there."""
