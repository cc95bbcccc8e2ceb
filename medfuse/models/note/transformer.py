"""A transformer from a Hugging Face folder: word-piece embeddings in, states out."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from medfuse.errors import SettingsError
from medfuse.models.note.encoder import NoteEncoder
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import note_folder


class Transformer(nn.Module):
    """A transformer whose attention to padding is closed by a mask that a graph can hold.

    Args:
        network: Without a pooler.
        pad: The word piece that padding counts as.
        longest: The most word pieces that it has positions for.
    """

    def __init__(self, network: PreTrainedModel, pad: int, longest: int) -> None:
        super().__init__()
        self.network = network
        self.channels = int(network.config.hidden_size)
        self.pad = pad
        self.longest = longest

    @property
    def table(self) -> nn.Embedding:
        """The embedding of each word piece."""
        table = self.network.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def forward(
        self, embeddings: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l c"]:
        """Give the state at each piece."""
        hidden = torch.zeros_like(embeddings[..., 0])
        # An additive mask of four axes is taken as it is; one of two axes would be tested for
        # "all true", a branch on data that no graph can hold.
        hidden = torch.where(mask, hidden, torch.finfo(hidden.dtype).min)
        bias = hidden[:, None, None, :]
        said = self.network(inputs_embeds=embeddings, attention_mask=bias)
        states: Tensor = said.last_hidden_state
        return states


class Kind(NamedTuple):
    """A kind of transformer: its classes, and what its classes leave open."""

    config: type[PreTrainedConfig]
    network: type[PreTrainedModel]
    pooled: bool = True
    counts_from_pad: bool = False


KINDS = {
    "bert": Kind(BertConfig, BertModel),
    "camembert": Kind(CamembertConfig, CamembertModel, counts_from_pad=True),
    "distilbert": Kind(DistilBertConfig, DistilBertModel, pooled=False),
    "electra": Kind(ElectraConfig, ElectraModel, pooled=False),
    "mpnet": Kind(MPNetConfig, MPNetModel, counts_from_pad=True),
    "roberta": Kind(RobertaConfig, RobertaModel, counts_from_pad=True),
    "xlm-roberta": Kind(XLMRobertaConfig, XLMRobertaModel, counts_from_pad=True),
}
"""By ``model_type``, what reads embeddings and a mask of four axes, and exports. Whether it has a
pooler, which is left out, and whether its positions begin after the number of the padding piece."""


def load_transformer(folder: Path, *, pretrained: bool) -> Transformer:
    """Build the transformer that a Hugging Face folder describes, without its pooler.

    Raises:
        SettingsError: The folder's transformer is of no kind in `KINDS`, or its weights are not
            safetensors, or are others than its ``config.json`` describes.
    """
    name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    kind = KINDS.get(name)
    if kind is None:
        raise SettingsError(
            f"{folder}: model_type {name!r} is not supported; expected one of {', '.join(KINDS)}"
        )
    config = kind.config.from_json_file(folder / "config.json")
    config._attn_implementation = "eager"  # plain matrix products: they export, and so do gradients
    network = kind.network(config, **({"add_pooling_layer": False} if kind.pooled else {}))
    if pretrained:
        _load(network, folder)
    pad = int(config.pad_token_id or 0)
    first = pad + 1 if kind.counts_from_pad else 0
    return Transformer(network, pad, int(config.max_position_embeddings) - first)


def _load(network: PreTrainedModel, folder: Path) -> None:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise SettingsError(f"{folder}: has no model.safetensors")
    wanted = set(network.state_dict())
    prefix = f"{network.base_model_prefix}."  # of a file that has a head over the transformer
    state = {key.removeprefix(prefix): value for key, value in load_file(file).items()}
    try:
        network.load_state_dict({key: state[key] for key in wanted})
    except (KeyError, RuntimeError) as error:
        raise SettingsError(
            f"{file}: not the weights that config.json beside it describes"
        ) from error


def build_transformer(settings: ModelSettings, pieces: int, *, pretrained: bool) -> NoteEncoder:
    """Build the encoder around MiniLM or a folder's transformer.

    Raises:
        SettingsError: The model is not installed or of no kind in `KINDS`, or notes are longer
            than it reads.
    """
    network = load_transformer(note_folder(settings), pretrained=pretrained)
    if pieces > network.longest:
        raise SettingsError(
            f"note.word_pieces = {pieces}, but {settings.note} reads at most {network.longest}"
        )
    return NoteEncoder(network, settings.width, settings.dropout, frozen=settings.freeze_note)
