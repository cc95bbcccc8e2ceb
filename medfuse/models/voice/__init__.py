"""The voice encoders: the table of networks, and how one is built."""

from collections.abc import Callable

from medfuse.config import VoiceSettings
from medfuse.models.encoder import Encoder
from medfuse.models.settings import ModelSettings
from medfuse.models.voice.cnn import build_cnn
from medfuse.models.voice.speaker import build_speaker
from medfuse.models.voice.transformer import build_transformer

VOICE_NETWORKS: dict[str, Callable[..., Encoder]] = {
    "cnn": build_cnn,
    "transformer": build_transformer,
    "speaker": build_speaker,
}
"""By name, what takes the model's settings, the recordings' and ``pretrained``: whether to load
weights, where the network has any."""


def build_voice_encoder(
    settings: ModelSettings, voice: VoiceSettings, *, pretrained: bool
) -> Encoder:
    """Build the encoder for recordings that are prepared in this way.

    Raises:
        SettingsError: The network has weights and they are not installed, or were trained on
            recordings that were prepared otherwise.
    """
    return VOICE_NETWORKS[settings.voice](settings, voice, pretrained=pretrained)
