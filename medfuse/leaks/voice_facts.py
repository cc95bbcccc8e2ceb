"""A recording's bytes in; its format, its bandwidth, its background and a fingerprint out."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.fft
import soundfile
from jaxtyping import Float, Float32
from scipy.ndimage import median_filter
from scipy.signal import welch

from medfuse.config import SAMPLE_RATE, Limits, VoiceSettings
from medfuse.data.voice import decode_voice, is_voice_object, log_mel

BAND_HZ = 100
"""Width of the bands in which energy is looked for."""

SILENT_DB = -100.0
"""Power of a band, under full scale, that a microphone hardly stays below, and rounding does."""

DROP_DB = 20.0
"""How far the spectrum falls at a recording's upper end, from one band to the next but one."""

LOWEST_HZ = 800
"""Below this a fall is the sound's own."""

QUIET_S = 0.05
"""Length of the quietest moment, which is what the room and the microphone add."""

FINGERPRINT = VoiceSettings(mel_bands=16, window_s=0.064, step_s=0.064, low_hz=100, high_hz=2_000)
"""How a recording is compared with others: few bands, all of which any recording has."""

FINGERPRINT_S = 20.0
"""How much of it is compared."""

HUMS = (50, 60)
"""Mains frequencies."""


@dataclass(frozen=True, slots=True)
class VoiceFacts:
    """What is known of a recording beside what it says.

    Attributes:
        stored: Container, encoding, rate and channels.
        numbers: ``bandwidth_hz``, ``background_db``, ``hum_50_db``, ``hum_60_db``, ``duration_s``.
        fingerprint: Its spectrogram in few bands.
    """

    stored: Mapping[str, str]
    numbers: Mapping[str, float]
    fingerprint: Float32[np.ndarray, "t f"]


def read_voice_facts(data: bytes, settings: VoiceSettings, limits: Limits) -> VoiceFacts:
    """Listen to a recording as the model gets it: nothing above the low-pass is heard.

    Raises:
        LimitError: It is longer, or has more channels or another rate, than `Limits` allows.
        VoiceError: It is not a recording that can be read.
    """
    recording = decode_voice(data, limits)
    heard_hz = min(settings.lowpass_hz, settings.high_hz)
    waveform = recording.waveform[: round(settings.duration_s * SAMPLE_RATE)]
    format_, encoding = _describe(data)
    stored = {"format": format_, "encoding": encoding, "channels": str(recording.channels)}
    if recording.rate_hz / 2 < heard_hz or heard_hz >= SAMPLE_RATE / 2:
        stored["sampling rate"] = f"{recording.rate_hz} Hz"
    numbers = {
        "bandwidth_hz": min(measure_bandwidth(waveform), heard_hz),
        "background_db": measure_background(waveform),
        "duration_s": float(recording.duration_s),
    }
    numbers |= {f"hum_{hz}_db": level for hz, level in measure_hums(waveform).items()}
    start = waveform[: round(FINGERPRINT_S * SAMPLE_RATE)]
    return VoiceFacts(stored, numbers, log_mel(start, FINGERPRINT))


def measure_bandwidth(waveform: Float32[np.ndarray, " n"]) -> float:
    """Find where a recording ends in frequency, whatever rate its file has, in Hz.

    What was resampled upwards, or passed a telephone or a codec, falls within a few bands to what
    rounding leaves, and stays there. Where nothing falls so, the sound ends by itself or not at
    all, and half of `SAMPLE_RATE` is given: how far a quiet sound reaches is its own.
    """
    if len(waveform) < SAMPLE_RATE // BAND_HZ:
        return float("nan")
    hz, density = welch(waveform, SAMPLE_RATE, nperseg=min(len(waveform), 2048))
    band = (hz / BAND_HZ).astype(int)
    power = np.bincount(band, weights=density)[:-1] * (hz[1] - hz[0])
    levels = median_filter(10 * np.log10(power + 1e-20), 5)  # a lone tone is no band of sound
    for k in range(len(levels) - 2, LOWEST_HZ // BAND_HZ - 1, -1):
        above = levels[k + 1 :].max()
        if above <= SILENT_DB and levels[k - 2 : k].mean() - above >= DROP_DB:
            return float(k * BAND_HZ)
    return SAMPLE_RATE / 2


def measure_background(waveform: Float32[np.ndarray, " n"]) -> float:
    """Measure the level of the quietest moment, in dB under full scale, to the nearest 3 dB."""
    window = round(QUIET_S * SAMPLE_RATE)
    if len(waveform) < window:
        return float("nan")
    energy = np.cumsum(np.concatenate([[0.0], waveform.astype(np.float64) ** 2]))
    quietest = float((energy[window:] - energy[:-window]).min()) / window
    return 3.0 * round(10 * float(np.log10(max(quietest, 1e-12))) / 3)


def measure_hums(waveform: Float32[np.ndarray, " n"]) -> dict[int, float]:
    """Measure how far the hum of each of `HUMS` stands above its neighbourhood.

    Returns:
        In dB, to the nearest 3 dB: the smaller of what is measured at the fundamental and at its
        third harmonic, since a voice may be at one of them.
    """
    spectrum = np.abs(scipy.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    hz = np.arange(len(spectrum)) * SAMPLE_RATE / len(waveform)
    width = max(0.5, 2 * SAMPLE_RATE / len(waveform))
    found = {}
    for mains in HUMS:
        levels = [_stand_out(spectrum, hz, tone, width) for tone in (mains, 3 * mains)]
        found[mains] = float("nan") if np.isnan(levels).any() else 3.0 * round(min(levels) / 3)
    return found


def _stand_out(
    spectrum: Float[np.ndarray, " n"], hz: Float[np.ndarray, " n"], tone: int, width: float
) -> float:
    """Measure how far a tone stands above its neighbourhood, in dB."""
    away = np.abs(hz - tone)
    near, beside = spectrum[away <= width], spectrum[(away > 2 * width) & (away <= 10)]
    if not len(near) or not len(beside):
        return float("nan")
    return float(10 * np.log10((near.max() + 1e-12) / (np.median(beside) + 1e-12)))


def _describe(data: bytes) -> tuple[str, str]:
    """Name a recording's container and encoding."""
    if is_voice_object(data):
        return "DICOM", ""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        return str(file.format), str(file.subtype)


def compare_fingerprints(
    one: Float[np.ndarray, "t f"], other: Float[np.ndarray, "u f"], lag: int
) -> float:
    """Correlate two spectrograms over what they share, at the best shift of at most ``lag``."""
    best = -1.0
    for shift in range(-lag, lag + 1):
        a, b = one[max(0, shift) :], other[max(0, -shift) :]
        n = min(len(a), len(b))
        if n < 0.8 * min(len(one), len(other)) or n < 8:
            continue
        a, b = (part[:n] - part[:n].mean(axis=0) for part in (a, b))
        scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
        best = max(best, float((a * b).sum()) / scale if scale else -1.0)
    return best
