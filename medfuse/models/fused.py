"""The whole network: a batch of studies in, every task's logits and the embeddings out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medfuse.config import PrepareSettings, Task
from medfuse.data.sentences import findings_of
from medfuse.models.alignment import Alignment
from medfuse.models.decoder import FindingsDecoder
from medfuse.models.encoder import Encoder
from medfuse.models.focus import PLAIN, Focus
from medfuse.models.fusion import FUSIONS
from medfuse.models.generator import Generator
from medfuse.models.heads import HEADS, Head
from medfuse.models.image import build_image_encoder
from medfuse.models.image.encoder import ImageEncoder
from medfuse.models.note import build_note_encoder
from medfuse.models.note.encoder import NoteEncoder
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import Tokens, absent
from medfuse.models.voice import build_voice_encoder
from medfuse.trust.calibration import label_slices, logit_slices
from medfuse.types import MODALITIES, Modality


class Outputs(NamedTuple):
    """What the network says of a batch; an absent modality's embedding is zero.

    The embeddings of a model with an `Alignment` are unit vectors of one space, comparable across
    modalities; otherwise they are the pooled ones, each in a space of its own.
    """

    logits: Float[Tensor, "b k"]
    image_embedding: Float[Tensor, "b e"]
    note_embedding: Float[Tensor, "b e"]
    voice_embedding: Float[Tensor, "b e"]
    fused: Float[Tensor, "b d"]


class FusedModel(nn.Module):
    """Encoders, fusion and heads.

    Whatever stands where a mask is false is replaced before anything reads it, so the bytes of an
    absent modality or of padding change no bit of the outputs.

    Attributes:
        tasks: The questions, in the order of their logits.
        width: D.
        alignment: Brings the embeddings into one space; None where that was not asked for.
        generator: Guesses missing modalities' embeddings for the fusion; likewise.
        decoder: Writes sentences of findings; likewise.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        width: int,
        image: ImageEncoder,
        note: NoteEncoder,
        voice: Encoder,
        fusion: nn.Module,
        heads: Sequence[Head],
        alignment: Alignment | None = None,
        generator: Generator | None = None,
        decoder: FindingsDecoder | None = None,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.width = width
        self.image = image
        self.note = note
        self.voice = voice
        self.fusion = fusion
        self.heads = nn.ModuleList(heads)
        self.alignment = alignment
        self.generator = generator
        self.decoder = decoder

    @property
    def embedding_length(self) -> int:
        """How many numbers a modality's embedding has among the outputs, E."""
        return self.width if self.alignment is None else self.alignment.length

    @property
    def channels(self) -> dict[Modality, int]:
        """How many channels each modality's features have."""
        return {m: encoder.feature_shape[-1] for m, encoder in self.encoders.items()}

    @property
    def strides(self) -> dict[Modality, int]:
        """How many steps of a modality's features become one token."""
        return {m: encoder.stride for m, encoder in self.encoders.items()}

    @property
    def encoders(self) -> dict[Modality, Encoder]:
        """Each modality's encoder."""
        return {Modality.IMAGE: self.image, Modality.NOTE: self.note, Modality.VOICE: self.voice}

    @property
    def frozen(self) -> frozenset[Modality]:
        """The modalities whose `extract` never changes in training, so that it can be cached."""
        return frozenset(m for m, encoder in self.encoders.items() if encoder.frozen)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Give the parameters of every backbone that came with weights."""
        for encoder in self.encoders.values():
            if encoder.pretrained and encoder.backbone is not None:
                yield from encoder.backbone.parameters()

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
        values = {
            Modality.IMAGE: image,
            Modality.NOTE: note_embeddings,
            Modality.VOICE: voice,
        }
        masks = {Modality.IMAGE: image_mask, Modality.NOTE: note_mask, Modality.VOICE: voice_mask}
        return self.forward_features(self.extract_embedded(values, masks), self.cover(masks))

    def extract_embedded(
        self, values: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tensor]:
        """Run every backbone, the note's from word-piece embeddings."""
        image, note, voice = ((values[m], masks[m]) for m in MODALITIES)
        return {
            Modality.IMAGE: self.image.extract(*image),
            Modality.NOTE: self.note.contextualise(*note),
            Modality.VOICE: self.voice.extract(*voice),
        }

    def embed_note(self, pieces: Int64[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        """Look up word pieces."""
        return self.note.embed(pieces, torch.ones_like(pieces, dtype=torch.bool))

    def extract(self, modality: Modality, values: Tensor, mask: Bool[Tensor, "b n"]) -> Tensor:
        """Run a modality's backbone alone; when it is frozen, the result can be cached.

        Returns:
            Image (B, S, P, C), note (B, L, C), voice (B, T, F) or what its encoder makes of that.
        """
        return self.encoders[modality].extract(values, mask)

    def cover(self, masks: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Give the masks of what `extract` gives from those of what it reads."""
        return {m: encoder.cover(masks[m]) for m, encoder in self.encoders.items()}

    def forward_features(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]
    ) -> Outputs:
        """Answer from what `extract` gave; the masks are those of `cover`."""
        return self.fuse(self.encode(features, masks))

    def encode(
        self, features: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tokens]:
        """Bring each modality's features to tokens, alone of the others."""
        return {m: encoder(features[m], masks[m]) for m, encoder in self.encoders.items()}

    def fuse(self, encoded: Mapping[Modality, Tokens]) -> Outputs:
        """Fuse encoded modalities and answer every task from those that it may read."""
        reads = [frozenset(map(Modality, task.modalities)) for task in self.tasks]
        everything = frozenset(MODALITIES)
        fused = {read: self._fuse(encoded, read) for read in dict.fromkeys([everything, *reads])}
        answers = zip(self.heads, reads, strict=True)
        logits = torch.cat([head(fused[read]) for head, read in answers], dim=1)
        pooled = {m: encoded[m].pooled for m in MODALITIES}
        embeddings = pooled if self.alignment is None else self.alignment(encoded)
        image, note, voice = (embeddings[m] for m in MODALITIES)
        return Outputs(logits, image, note, voice, fused[everything])

    def _fuse(
        self, encoded: Mapping[Modality, Tokens], read: frozenset[Modality]
    ) -> Float[Tensor, "b d"]:
        """Fuse these modalities; a generator never sees the others."""
        kept = {m: tokens if m in read else absent(tokens) for m, tokens in encoded.items()}
        fused: Tensor = self.fusion(kept if self.generator is None else self.generator(kept))
        return fused

    def losses(
        self,
        logits: Float[Tensor, "b k"],
        labels: Float[Tensor, "b c"],
        weights: Float[Tensor, "b c"] | None = None,
        focus: Focus = PLAIN,
    ) -> tuple[Float[Tensor, ""], ...]:
        """Return each task's own loss; labels are laid out as `medfuse.models.heads` says."""
        losses = []
        places = zip(self.heads, logit_slices(self.tasks), label_slices(self.tasks), strict=True)
        for head, (_, k), (_, c) in places:
            assert isinstance(head, Head)
            own = None if weights is None else weights[:, c]
            losses.append(head.loss(logits[:, k], labels[:, c], own, focus))
        return tuple(losses)


def build_model(
    settings: ModelSettings,
    prepare: PrepareSettings,
    tasks: Sequence[Task],
    *,
    pretrained: bool,
    words: int = 0,
) -> FusedModel:
    """Build the network; new weights come from torch's global generator, so seed it first.

    Args:
        settings: Which parts.
        prepare: The shapes of what comes in.
        tasks: The questions.
        pretrained: Load the backbones' weights; a checkpoint that brings its own needs none.
        words: How many words findings text is written with; without any there is no decoder.

    Raises:
        SettingsError: Weights are missing or do not fit.
    """
    width, dropout = settings.width, settings.dropout
    image = build_image_encoder(settings, prepare.image.size, pretrained=pretrained)
    return FusedModel(
        tasks,
        width,
        image=image,
        note=build_note_encoder(settings, prepare.note.word_pieces, pretrained=pretrained),
        voice=build_voice_encoder(settings, prepare.voice, pretrained=pretrained),
        fusion=FUSIONS[settings.fusion](width, dropout),
        heads=[HEADS[task.kind](task, width) for task in tasks],
        alignment=Alignment(width, settings.shared_space) if settings.shared_space else None,
        generator=Generator(width, dropout) if settings.generate_missing else None,
        decoder=(
            FindingsDecoder(len(findings_of(tasks)), words, image.feature_shape[0], width, dropout)
            if settings.findings_text and words
            else None
        ),
    )
