"""A pretrained speaker network: log-mel (B, T, 40) to one token per 0.8 s, each of 1.6 s of voice.

The network of Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification", with the
weights of the package Resemblyzer. It was trained on mel power (no logarithm) of recordings that
were brought to -30 dBFS and cut to 1.6 s; the same is made here of our log-mel.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from medfuse.config import SAMPLE_RATE, VoiceSettings
from medfuse.data.voice import FLOOR, mel_corners_hz
from medfuse.errors import SettingsError
from medfuse.models.recurrent import Lstm
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import Standardise, TokenAdapter, Tokens
from medfuse.models.voice.pool import StatisticsPool
from medfuse.models.weights import speaker_weights

BANDS = 40
HIDDEN = 256
NEEDED: dict[str, object] = {
    "mel_bands": BANDS,
    "window_s": 0.025,
    "step_s": 0.010,
    "mel_scale": "slaney",
    "low_hz": 0.0,
    "high_hz": 8_000.0,
}
"""How recordings must be prepared: as those that the network was trained on."""

WINDOW, STEP, COVERED = 160, 80, 120
"""Mel frames that the network reads at once, of a step to the next such window, and that a window
beyond the first must hold (three quarters, as in Resemblyzer)."""

LOUDNESS = 10 ** (-30 / 10)
"""The mean square that quieter recordings are brought to."""


class SpeakerNetwork(nn.Module):
    """Three layers of long short-term memory; the last state, rectified, at unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = Lstm(BANDS, HIDDEN, layers=3)
        self.linear = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, mel: Float[Tensor, "n t f"]) -> Float[Tensor, "n c"]:
        """Say who speaks in each window."""
        voice = functional.relu(self.linear(self.lstm(mel)[:, -1]))
        return voice / (voice.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()


class SpeakerVoiceEncoder(nn.Module):
    """The speaker network over windows of a recording, and what brings its vectors to tokens.

    Args:
        backbone: The network.
        voice: How recordings are prepared, as `NEEDED` says.
        width: D.
        dropout: Between the adapter's layers.
        frozen: Whether the network stays as it is.
    """

    pretrained = True
    feature_shape = (HIDDEN,)
    stride = 1
    area: Tensor

    def __init__(
        self,
        backbone: SpeakerNetwork,
        voice: VoiceSettings,
        width: int,
        dropout: float,
        *,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen = frozen
        corners = torch.from_numpy(mel_corners_hz(voice))
        # Our power is 1 for a full-scale sine, and Resemblyzer's is that of the windowed samples
        # through triangles whose area is 1 instead of their height.
        scale = (voice.window_s * SAMPLE_RATE / 4) ** 2
        area = scale * 2 / (corners[2:] - corners[:-2])
        self.register_buffer("area", area.float(), persistent=False)
        self.standardise = Standardise(HIDDEN)
        self.adapter = TokenAdapter(HIDDEN, width, dropout)
        self.pool = StatisticsPool(width, dropout)
        if frozen:
            self.backbone.requires_grad_(False)
            self.backbone.eval()

    def train(self, mode: bool = True) -> "SpeakerVoiceEncoder":
        """Set the mode, a frozen network excepted."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def hear(
        self, log_mel: Float[Tensor, "b t f"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b t f"]:
        """Give the mel power that the network was trained on; none at padding.

        A recording's loudness is read from its power: over a Hann window, triangles that add up to
        1 show three times the mean square of the samples (Parseval).
        """
        power = (math.log(FLOOR) / 2 * (1 - torch.where(mask[..., None], log_mel, 1.0))).exp()
        power = torch.where(mask[..., None], power, 0.0)
        frames = mask.sum(dim=1).clamp(min=1).to(power.dtype)
        square = power.sum(dim=(1, 2)) / (3 * frames)
        gain = (LOUDNESS / square.clamp(min=FLOOR)).clamp(min=1.0)
        return power * self.area * gain[:, None, None]

    def extract(
        self, log_mel: Float[Tensor, "b t f"], mask: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b w c"]:
        """Run the network on every window; silence stands behind a recording's end."""
        b, _, f = log_mel.shape
        mel = functional.pad(self.hear(log_mel, mask), (0, 0, 0, WINDOW))
        start = _begin(mask)
        place = (start[:, None] + torch.arange(WINDOW, device=mel.device)).flatten()
        windows = mel.index_select(1, place).reshape(b * start.shape[0], WINDOW, f)
        voices: Tensor = self.backbone(windows)
        return voices.reshape(b, start.shape[0], HIDDEN)

    def cover(self, mask: Bool[Tensor, "b t"]) -> Bool[Tensor, "b w"]:
        """Count a window as real when three quarters of it are, and the first one in any case."""
        start = _begin(mask)
        frames = mask.sum(dim=1, keepdim=True)
        first = (start == 0) & (frames > 0)
        return first | (start + COVERED <= frames)

    def forward(self, features: Float[Tensor, "b w c"], mask: Bool[Tensor, "b w"]) -> Tokens:
        """Return one token per window."""
        tokens = self.adapter(self.standardise(features, mask))
        tokens = torch.where(mask[..., None], tokens, 0.0)
        return Tokens(tokens, mask, self.pool(tokens, mask))


def build_speaker(
    settings: ModelSettings, voice: VoiceSettings, *, pretrained: bool
) -> SpeakerVoiceEncoder:
    """Build the encoder; its weights come from an installed package.

    Raises:
        SettingsError: The package is not installed, or recordings are prepared otherwise than
            those that the network was trained on.
    """
    wrong = {key: value for key, value in NEEDED.items() if getattr(voice, key) != value}
    if wrong:
        wanted = ", ".join(f"{key} = {value!r}" for key, value in wrong.items())
        raise SettingsError(
            "voice = 'speaker' was trained on recordings that were prepared otherwise; set "
            f"{wanted} under [prepare.voice]"
        )
    network = SpeakerNetwork()
    if pretrained:
        state = torch.load(speaker_weights(), map_location="cpu", weights_only=True)["model_state"]
        network.load_state_dict({key: state[key] for key in network.state_dict()})
    return SpeakerVoiceEncoder(
        network, voice, settings.width, settings.dropout, frozen=settings.freeze_voice
    )


def _begin(mask: Bool[Tensor, "b t"]) -> Int64[Tensor, " w"]:
    """Give the mel frame that each window begins with."""
    windows = (mask.shape[1] + STEP - 1) // STEP
    return STEP * torch.arange(windows, device=mask.device)
