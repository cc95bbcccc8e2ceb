"""The note encoder: word pieces (B, L) to one token per piece, by a BERT-style transformer."""

import json
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from medfuse.errors import SettingsError
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import AttentionPool, TokenAdapter, Tokens
from medfuse.models.weights import note_folder, tokenizer_path

__all__ = ["NoteEncoder", "build_note_encoder", "load_bert", "tokenizer_path"]


class NoteEncoder(nn.Module):
    """A BERT transformer and the layers that bring its states to the model's width.

    The transformer runs from word-piece embeddings, not piece numbers, so that attribution can
    reach them.
    """

    def __init__(self, bert: BertModel, width: int, dropout: float, *, frozen: bool) -> None:
        super().__init__()
        self.bert = bert
        self.frozen = frozen
        self.pad = int(bert.config.pad_token_id or 0)
        self.adapter = TokenAdapter(bert.config.hidden_size, width, dropout)
        self.pool = AttentionPool(width)
        if frozen:
            self.bert.requires_grad_(False)
            self.bert.train(False)

    def train(self, mode: bool = True) -> "NoteEncoder":
        """Set the mode, a frozen transformer excepted."""
        super().train(mode)
        if self.frozen:
            self.bert.train(False)
        return self

    def embed(
        self, pieces: Int64[Tensor, "b l"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l e"]:
        """Look up each word piece; padding counts as the padding piece."""
        embeddings: Tensor = self.bert.embeddings.word_embeddings(
            torch.where(mask, pieces, self.pad)
        )
        return embeddings

    def contextualise(
        self, embeddings: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l e"]:
        """Run the transformer over word-piece embeddings; no real piece attends to padding."""
        embeddings = torch.where(mask[..., None], embeddings, 0.0)
        hidden = torch.zeros_like(embeddings[..., 0])
        # An additive mask of four axes is taken as it is; one of two axes would be tested for
        # "all true", a branch on data that no graph can hold.
        hidden = torch.where(mask, hidden, torch.finfo(hidden.dtype).min)
        bias = hidden[:, None, None, :]
        states: Tensor = self.bert(inputs_embeds=embeddings, attention_mask=bias).last_hidden_state
        return states

    def extract(
        self, pieces: Int64[Tensor, "b l"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l e"]:
        """Return the transformer's state at each piece."""
        return self.contextualise(self.embed(pieces, mask), mask)

    def forward(self, features: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]) -> Tokens:
        """Return one token per word piece."""
        features = torch.where(mask[..., None], features, 0.0)
        tokens = torch.where(mask[..., None], self.adapter(features), 0.0)
        return Tokens(tokens, mask, self.pool(tokens, mask))


def load_bert(folder: Path, *, pretrained: bool) -> BertModel:
    """Build the transformer that a Hugging Face folder describes, without its pooler.

    Raises:
        SettingsError: The folder holds no BERT model, or its weights are not safetensors.
    """
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != "bert":
        raise SettingsError(f"{folder}: model_type {kind!r} is not supported; expected 'bert'")
    config = BertConfig.from_json_file(folder / "config.json")
    config._attn_implementation = "eager"  # plain matrix products: they export, and so do gradients
    bert = BertModel(config, add_pooling_layer=False)
    if pretrained:
        file = folder / "model.safetensors"
        if not file.is_file():
            raise SettingsError(f"{folder}: has no model.safetensors")
        wanted = set(bert.state_dict())
        state = {key.removeprefix("bert."): value for key, value in load_file(file).items()}
        if not wanted <= set(state):
            raise SettingsError(f"{file}: not the weights that config.json beside it describes")
        bert.load_state_dict({key: state[key] for key in wanted})
    return bert


def build_note_encoder(settings: ModelSettings, pieces: int, *, pretrained: bool) -> NoteEncoder:
    """Build the encoder for notes of at most ``pieces`` word pieces.

    Raises:
        SettingsError: The model is not installed or not a BERT, or notes are longer than it reads.
    """
    bert = load_bert(note_folder(settings), pretrained=pretrained)
    longest = bert.config.max_position_embeddings
    if pieces > longest:
        raise SettingsError(
            f"note.word_pieces = {pieces}, but {settings.note} reads at most {longest}"
        )
    return NoteEncoder(bert, settings.width, settings.dropout, frozen=settings.freeze_note)
