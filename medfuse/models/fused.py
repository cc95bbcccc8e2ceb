"""The whole network: a batch of studies in, every task's logits and the embeddings out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medfuse.config import PrepareSettings, Task
from medfuse.models.fusion import FUSIONS
from medfuse.models.heads import HEADS, Head
from medfuse.models.image import ImageEncoder, build_image_encoder
from medfuse.models.note import NoteEncoder, build_note_encoder
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import Tokens
from medfuse.models.voice import VoiceEncoder, build_voice_encoder
from medfuse.trust.calibration import label_slices, logit_slices
from medfuse.types import MODALITIES, Modality


class Outputs(NamedTuple):
    """What the network says of a batch; an absent modality's embedding is zero."""

    logits: Float[Tensor, "b k"]
    image_embedding: Float[Tensor, "b d"]
    note_embedding: Float[Tensor, "b d"]
    voice_embedding: Float[Tensor, "b d"]
    fused: Float[Tensor, "b d"]


class FusedModel(nn.Module):
    """Encoders, fusion and heads.

    Whatever stands where a mask is false is replaced before anything reads it, so the bytes of an
    absent modality or of padding change no bit of the outputs.

    Attributes:
        tasks: The questions, in the order of their logits.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        image: ImageEncoder,
        note: NoteEncoder,
        voice: VoiceEncoder,
        fusion: nn.Module,
        heads: Sequence[Head],
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.image = image
        self.note = note
        self.voice = voice
        self.fusion = fusion
        self.heads = nn.ModuleList(heads)

    @property
    def frozen(self) -> frozenset[Modality]:
        """The modalities whose `extract` never changes in training, so that it can be cached."""
        frozen = {Modality.IMAGE: self.image.frozen, Modality.NOTE: self.note.frozen}
        return frozenset(m for m, yes in frozen.items() if yes)

    def forward(
        self,
        image: Float[Tensor, "b s h w"],
        image_mask: Bool[Tensor, "b s"],
        note: Int64[Tensor, "b l"],
        note_mask: Bool[Tensor, "b l"],
        voice: Float[Tensor, "b t f"],
        voice_mask: Bool[Tensor, "b t"],
    ) -> Outputs:
        """Answer every task for every study, each with whatever modalities it has."""
        embeddings = self.note.embed(note, note_mask)
        return self.forward_embedded(image, image_mask, embeddings, note_mask, voice, voice_mask)

    def forward_embedded(
        self,
        image: Float[Tensor, "b s h w"],
        image_mask: Bool[Tensor, "b s"],
        note_embeddings: Float[Tensor, "b l e"],
        note_mask: Bool[Tensor, "b l"],
        voice: Float[Tensor, "b t f"],
        voice_mask: Bool[Tensor, "b t"],
    ) -> Outputs:
        """Do the same from word-piece embeddings, where attribution can reach."""
        features = {
            Modality.IMAGE: self.image.extract(image, image_mask),
            Modality.NOTE: self.note.contextualise(note_embeddings, note_mask),
            Modality.VOICE: self.voice.extract(voice, voice_mask),
        }
        masks = {
            Modality.IMAGE: image_mask,
            Modality.NOTE: note_mask,
            Modality.VOICE: voice_mask,
        }
        return self.forward_features(features, masks)

    def embed_note(self, pieces: Int64[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """Look up word pieces."""
        return self.note.embed(pieces, torch.ones_like(pieces, dtype=torch.bool))

    def extract(self, modality: Modality, values: Tensor, mask: Bool[Tensor, "b n"]) -> Tensor:
        """Run a modality's backbone alone; when it is frozen, the result can be cached.

        Returns:
            Image (B, S, P, C), note (B, L, E), voice (B, T, F).
        """
        encoder: ImageEncoder | NoteEncoder | VoiceEncoder = getattr(self, modality.value)
        return encoder.extract(values, mask)

    def forward_features(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]
    ) -> Outputs:
        """Answer from what `extract` gave; the masks are those of the raw values."""
        return self.fuse(self.encode(features, masks))

    def encode(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tokens]:
        """Bring each modality's features to tokens, alone of the others."""
        return {
            Modality.IMAGE: self.image(features[Modality.IMAGE], masks[Modality.IMAGE]),
            Modality.NOTE: self.note(features[Modality.NOTE], masks[Modality.NOTE]),
            Modality.VOICE: self.voice(features[Modality.VOICE], masks[Modality.VOICE]),
        }

    def fuse(self, encoded: dict[Modality, Tokens]) -> Outputs:
        """Fuse encoded modalities and answer every task."""
        fused = self.fusion(encoded)
        logits = torch.cat([head(fused) for head in self.heads], dim=1)
        image, note, voice = (encoded[m].pooled for m in MODALITIES)
        return Outputs(logits, image, note, voice, fused)

    def losses(
        self,
        logits: Float[Tensor, "b k"],
        labels: Float[Tensor, "b c"],
        weights: Float[Tensor, "b c"] | None = None,
    ) -> tuple[Float[Tensor, ""], ...]:
        """Return each task's own loss; labels are laid out as `medfuse.models.heads` says."""
        losses = []
        places = zip(self.heads, logit_slices(self.tasks), label_slices(self.tasks), strict=True)
        for head, (_, k), (_, c) in places:
            assert isinstance(head, Head)
            losses.append(
                head.loss(logits[:, k], labels[:, c], None if weights is None else weights[:, c])
            )
        return tuple(losses)


def build_model(
    settings: ModelSettings,
    prepare: PrepareSettings,
    tasks: Sequence[Task],
    *,
    pretrained: bool,
) -> FusedModel:
    """Build the network; new weights come from torch's global generator, so seed it first.

    Args:
        settings: Which parts.
        prepare: The shapes of what comes in.
        tasks: The questions.
        pretrained: Load the backbones' weights; a checkpoint that brings its own needs none.

    Raises:
        SettingsError: Weights are missing or do not fit.
    """
    return FusedModel(
        tasks,
        image=build_image_encoder(settings, prepare.image.size, pretrained=pretrained),
        note=build_note_encoder(settings, prepare.note.word_pieces, pretrained=pretrained),
        voice=build_voice_encoder(settings, prepare.voice.mel_bands),
        fusion=FUSIONS[settings.fusion](settings.width, settings.dropout),
        heads=[HEADS[task.kind](task, settings.width) for task in tasks],
    )
