"""A recurrent network over word pieces, learnt from nothing: the classical baseline of text.

Long short-term memory in both directions (Hochreiter & Schmidhuber 1997; Graves & Schmidhuber
2005).
"""

import torch
from jaxtyping import Bool, Float
from tokenizers import Tokenizer
from torch import Tensor, nn

from medfuse.models.note.encoder import NoteEncoder
from medfuse.models.recurrent import Lstm
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path


class RecurrentText(nn.Module):
    """An embedding of its own for each word piece, read forwards and backwards.

    Args:
        pieces: How many word pieces there are.
        pad: The one that padding counts as.
        embedding: Numbers of an embedding.
        hidden: Of a state of either direction.
    """

    def __init__(self, pieces: int, pad: int, embedding: int = 128, hidden: int = 128) -> None:
        super().__init__()
        self.table = nn.Embedding(pieces, embedding)
        self.pad = pad
        self.channels = 2 * hidden
        self.ahead = Lstm(embedding, hidden)
        self.back = Lstm(embedding, hidden)

    def forward(
        self, embeddings: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l c"]:
        """Give both directions' state at each piece; padding stands behind all of them."""
        back = turn_around(self.back(turn_around(embeddings, mask)), mask)
        return torch.cat([self.ahead(embeddings), back], dim=2)


def turn_around(
    sequence: Float[Tensor, "b l c"], mask: Bool[Tensor, "b l"]
) -> Float[Tensor, "b l c"]:
    """Reverse the real part of each sequence, and leave the padding behind it where it is."""
    place = torch.arange(mask.shape[1], device=mask.device)
    last = mask.sum(dim=1, keepdim=True) - 1
    source = torch.where(mask, last - place, place)
    return sequence.gather(1, source[..., None].expand(sequence.shape))


def build_recurrent(settings: ModelSettings, pieces: int, *, pretrained: bool) -> NoteEncoder:
    """Build the encoder over MiniLM's word pieces; notes may be of any length.

    Raises:
        SettingsError: The package with the tokenizer is not installed.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_path(settings)))
    network = RecurrentText(tokenizer.get_vocab_size(), tokenizer.token_to_id("[PAD]") or 0)
    return NoteEncoder(network, settings.width, settings.dropout, frozen=False, pretrained=False)
