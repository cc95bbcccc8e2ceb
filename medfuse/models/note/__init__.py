"""The note encoders: the table of networks, and how one is built."""

from collections.abc import Callable
from pathlib import Path

from medfuse.models.note.encoder import NoteEncoder
from medfuse.models.note.recurrent import build_recurrent
from medfuse.models.note.transformer import build_transformer
from medfuse.models.settings import ModelSettings

NOTE_NETWORKS: dict[str, Callable[..., NoteEncoder]] = {
    "minilm": build_transformer,
    "lstm": build_recurrent,
}
"""By name, what takes the model's settings, the most word pieces of a note, and ``pretrained``:
whether to load weights, where the network has any."""


def build_note_encoder(settings: ModelSettings, pieces: int, *, pretrained: bool) -> NoteEncoder:
    """Build the encoder for notes of at most ``pieces`` word pieces.

    Raises:
        SettingsError: The model is not installed or not one that is read here, or notes are longer
            than it reads.
    """
    folder = isinstance(settings.note, Path)
    build = build_transformer if folder else NOTE_NETWORKS[str(settings.note)]
    return build(settings, pieces, pretrained=pretrained)
