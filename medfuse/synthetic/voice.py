"""A voice from a source-filter model: signs in, a WAV file out, with the seconds of every sign."""

import io
import wave
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float64
from scipy.signal import butter, lfilter, sosfilt

from medfuse.config import SAMPLE_RATE
from medfuse.synthetic.evidence import VoiceEvidence
from medfuse.synthetic.patient import Patient
from medfuse.synthetic.world import shortcut_name
from medfuse.types import Modality

Waveform = Float64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Speaker:
    """The voice that all recordings of one patient share.

    Attributes:
        pitch_hz: The mean fundamental frequency.
        formants_hz: The resonances of an open vowel in a tract of this speaker's length.
        noise: The microphone's noise relative to a full-scale voice.
    """

    pitch_hz: float
    formants_hz: tuple[float, ...]
    noise: float


_OPEN_VOWEL_HZ = (730.0, 1090.0, 2440.0, 3400.0)
"""Formants of /a/ in men (Peterson and Barney 1952, with a fourth one usual for synthesis)."""

_BANDWIDTHS_HZ = (80.0, 90.0, 120.0, 200.0)

_VOICED_HZ = (50.0, SAMPLE_RATE / 2)
"""The band that the harmonics and the noise of a voice fill."""


def make_speaker(patient: Patient, rng: np.random.Generator) -> Speaker:
    """Draw a patient's voice; the pitch and the tract's length go with the sex."""
    female = patient.sex == "F"
    scale = rng.normal(1.16 if female else 1.0, 0.03)
    pitch = rng.normal(205, 18) if female else rng.normal(120, 14)
    return Speaker(
        pitch_hz=float(np.clip(pitch, 80, 260)),
        formants_hz=tuple(float(f * scale) for f in _OPEN_VOWEL_HZ),
        noise={"north": 0.0006, "south": 0.002, "east": 0.004}[patient.site],
    )


def record_voice(
    signs: frozenset[str],
    mark: bool,
    speaker: Speaker,
    rng: np.random.Generator,
) -> tuple[bytes, tuple[VoiceEvidence, ...]]:
    """Record a sustained vowel and one breath, in either order, coughs among them, then a phrase.

    The phrase has random numbers of its own, so that whatever mood it tells of, all that comes
    before it is the same to the sample.

    Args:
        signs: What is present; signs of other modalities are ignored.
        mark: Whether the recording carries its shortcut, mains hum.
        speaker: Whose voice it is.
        rng: Owned by the caller and consumed.

    Returns:
        A mono 16-bit WAV file at `SAMPLE_RATE`, four to eight seconds long, and the evidence.
    """
    (speech_rng,) = rng.spawn(1)
    vowel = _vowel(speaker, "hoarseness" in signs, rng)
    breath, wheeze = _breath("wheeze" in signs, rng)
    parts: list[tuple[Waveform, list[VoiceEvidence]]] = [(vowel, []), (breath, wheeze)]
    if "hoarseness" in signs:
        parts[0][1].append(VoiceEvidence("hoarseness", 0.0, len(vowel) / SAMPLE_RATE, *_VOICED_HZ))
    if rng.random() < 0.5:
        parts.reverse()
    if "cough" in signs:
        coughs, bursts = _coughs(rng)
        parts.insert(int(rng.integers(0, 3)), (coughs, bursts))
    if rng.random() < 0.35:
        parts.insert(int(rng.integers(0, len(parts) + 1)), (_knock(rng), []))
    if rng.random() < 0.25:
        parts.insert(int(rng.integers(0, len(parts) + 1)), (_beep(rng), []))

    pieces = [_silence(rng.uniform(0.05, 0.2))]
    evidence = []
    for sound, spans in parts:
        offset = sum(map(len, pieces)) / SAMPLE_RATE
        evidence += [_later(span, offset) for span in spans]
        pieces += [sound, _silence(rng.uniform(0.08, 0.25))]
    waveform = np.concatenate(pieces)
    noise = speaker.noise * rng.lognormal(0, 0.3)
    waveform += noise * rng.standard_normal(len(waveform))
    phrase, spans = _phrase(speaker, signs, speech_rng)
    offset = len(waveform) / SAMPLE_RATE
    evidence += [_later(span, offset) for span in spans]
    phrase += noise * speech_rng.standard_normal(len(phrase))
    waveform = np.concatenate([waveform, phrase])
    if mark:
        duration_s = len(waveform) / SAMPLE_RATE
        waveform += _hum(len(waveform), rng)
        evidence.append(VoiceEvidence(shortcut_name(Modality.VOICE), 0.0, duration_s, 50.0, 350.0))
    return _encode_wav(waveform * rng.uniform(0.35, 0.9)), tuple(evidence)


def _later(span: VoiceEvidence, offset_s: float) -> VoiceEvidence:
    return replace(span, start_s=span.start_s + offset_s, end_s=span.end_s + offset_s)


@dataclass(frozen=True, slots=True)
class _Voicing:
    """How the vocal folds swing: deviations from cycle to cycle, and harmonics over noise."""

    jitter: float
    shimmer: float
    harmonics_db: float


def _draw_voicing(hoarse: bool, rng: np.random.Generator) -> _Voicing:
    """Keep hoarse and clear voices apart in each of jitter, shimmer and noise.

    Jitter and shimmer are relative standard deviations. A hoarse voice has jitter 2.5 to 4.5 % and
    3 to 8 dB of harmonics over noise, a clear one at most 0.6 % and at least 18 dB.
    """
    if hoarse:
        return _Voicing(rng.uniform(0.025, 0.045), rng.uniform(0.15, 0.3), rng.uniform(3, 8))
    return _Voicing(rng.uniform(0.002, 0.006), rng.uniform(0.01, 0.04), rng.uniform(18, 25))


def _vowel(speaker: Speaker, hoarse: bool, rng: np.random.Generator) -> Waveform:
    """Sustain a vowel."""
    voicing = _draw_voicing(hoarse, rng)
    duration_s = rng.uniform(1.2, 1.7)
    pitch_hz = speaker.pitch_hz * rng.normal(1, 0.03)
    return _fade(0.3 * _phonate(speaker, voicing, pitch_hz, duration_s, rng), 0.04)


SYLLABLES = 4

_MELODY = (-0.5, -0.15, 0.15, 0.5)
"""How far each syllable's pitch is from the mean, as a share of the range; in any order."""


def _phrase(
    speaker: Speaker, signs: frozenset[str], rng: np.random.Generator
) -> tuple[Waveform, list[VoiceEvidence]]:
    """Say four syllables; a low mood flattens their melody and draws out the pauses between them.

    The pitch of lively speech ranges over seven to nine semitones, that of a monotone voice over
    at most half a one; pauses last 50 to 90 ms, long ones 300 to 450 ms. Both signs are reported
    of depression (Cummins et al. 2015, "A review of depression and suicide risk assessment using
    speech analysis").
    A hoarse speaker is as hoarse here as in the vowel.
    """
    voicing = _draw_voicing("hoarseness" in signs, rng)
    semitones = rng.uniform(0.0, 0.5) if "monotone" in signs else rng.uniform(7.0, 9.0)
    shortest, longest = (0.3, 0.45) if "long_pauses" in signs else (0.05, 0.09)
    melody = semitones * rng.permutation(_MELODY)
    pieces: list[Waveform] = []
    evidence = []
    heard = [sign for sign in ("hoarseness", "monotone") if sign in signs]
    for syllable, height in enumerate(melody):
        start_s = sum(map(len, pieces)) / SAMPLE_RATE
        if syllable:
            pause = _silence(rng.uniform(shortest, longest))
            pieces.append(pause)
            end_s = start_s + len(pause) / SAMPLE_RATE
            if "long_pauses" in signs:
                evidence.append(VoiceEvidence("long_pauses", start_s, end_s, *_VOICED_HZ))
            start_s = end_s
        pitch_hz = speaker.pitch_hz * 2 ** (height / 12)
        sound = _phonate(speaker, voicing, pitch_hz, rng.uniform(0.16, 0.24), rng)
        pieces.append(_fade(rng.uniform(0.22, 0.3) * sound, 0.02))
        end_s = start_s + len(sound) / SAMPLE_RATE
        evidence += [VoiceEvidence(sign, start_s, end_s, *_VOICED_HZ) for sign in heard]
    pieces.append(_silence(rng.uniform(0.1, 0.2)))
    return np.concatenate(pieces), evidence


def _phonate(
    speaker: Speaker,
    voicing: _Voicing,
    pitch_hz: float,
    duration_s: float,
    rng: np.random.Generator,
) -> Waveform:
    """Voice an open vowel up to full scale: glottal pulses and breath noise through the tract.

    As much noise again arises at the lips, past the resonances, and fills the band above them.
    """
    source = _glottal_pulses(pitch_hz, voicing.jitter, voicing.shimmer, duration_s, rng)
    noise = rng.standard_normal(len(source))
    source += noise * np.sqrt(np.mean(source**2)) * 10 ** (-voicing.harmonics_db / 20)
    voice = source
    for formant, bandwidth in zip(speaker.formants_hz, _BANDWIDTHS_HZ, strict=True):
        voice = _resonate(voice, formant * rng.normal(1, 0.02), bandwidth)
    voice /= np.std(voice)
    lips = _band_noise(len(voice), 2500.0, 7000.0, rng)
    voice += 0.25 * 10 ** (-voicing.harmonics_db / 20) * lips
    return np.asarray(voice / np.abs(voice).max())


def _glottal_pulses(
    pitch_hz: float, jitter: float, shimmer: float, duration_s: float, rng: np.random.Generator
) -> Waveform:
    """The flow derivative of a train of Rosenberg pulses (Rosenberg 1971, type C)."""
    n = _samples(duration_s)
    cycles = int(duration_s * pitch_hz * 1.5) + 8
    slow = 1 + 0.01 * np.sin(2 * np.pi * rng.uniform(2, 5) * np.arange(cycles) / pitch_hz)
    periods = slow / pitch_hz * np.maximum(1 + jitter * rng.standard_normal(cycles), 0.5)
    heights = np.maximum(1 + shimmer * rng.standard_normal(cycles), 0.1)
    starts = np.concatenate([[0.0], np.cumsum(periods)])
    t = np.arange(n) / SAMPLE_RATE
    cycle = np.searchsorted(starts, t, side="right") - 1
    phase = (t - starts[cycle]) / periods[cycle]
    opening = 0.5 * (1 - np.cos(np.pi * phase / 0.4))
    closing = np.cos(np.pi * (phase - 0.4) / 0.32)
    flow = np.where(phase < 0.4, opening, np.where(phase < 0.56, closing, 0.0))
    return np.diff(flow * heights[cycle], prepend=0.0)


def _resonate(waveform: Waveform, formant_hz: float, bandwidth_hz: float) -> Waveform:
    """Pass through a two-pole resonator with unit gain at zero frequency (Klatt 1980, eq. 2)."""
    c = -np.exp(-2 * np.pi * bandwidth_hz / SAMPLE_RATE)
    b = (
        2
        * np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE)
        * np.cos(2 * np.pi * formant_hz / SAMPLE_RATE)
    )
    return np.asarray(lfilter([1 - b - c], [1, -b, -c], waveform))


def _breath(wheezing: bool, rng: np.random.Generator) -> tuple[Waveform, list[VoiceEvidence]]:
    """Breathe in and out; a wheeze is a tone of 250 to 650 Hz that lasts through the outbreath."""
    level = rng.uniform(0.015, 0.035)
    breath_in = level * _band_noise(_samples(rng.uniform(0.3, 0.45)), 500.0, 2500.0, rng)
    breath_out = level * _band_noise(_samples(rng.uniform(0.7, 1.0)), 300.0, 1600.0, rng)
    evidence = []
    pause = _silence(rng.uniform(0.05, 0.1))
    if wheezing:
        n = len(breath_out)
        low, high = sorted(rng.uniform(250, 650) * np.array([1, rng.uniform(0.85, 1.15)]))
        start, end = (low, high) if rng.random() < 0.5 else (high, low)
        phase = 2 * np.pi * np.cumsum(np.linspace(start, end, n)) / SAMPLE_RATE
        tone = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.15 * np.sin(3 * phase)
        breath_out = breath_out + rng.uniform(0.09, 0.18) * _fade(tone, 0.1)
        offset = (len(breath_in) + len(pause)) / SAMPLE_RATE
        evidence.append(
            VoiceEvidence("wheeze", offset, offset + n / SAMPLE_RATE, 0.95 * low, 3.05 * high)
        )
    return np.concatenate([breath_in, pause, breath_out]), evidence


def _coughs(rng: np.random.Generator) -> tuple[Waveform, list[VoiceEvidence]]:
    """Cough one to three times: bursts of noise that start at once and die away."""
    pieces = []
    evidence = []
    offset = 0.0
    for _ in range(int(rng.integers(1, 4))):
        n = _samples(rng.uniform(0.22, 0.34))
        t = np.arange(n) / SAMPLE_RATE
        envelope = np.minimum(t / 0.008, 1) * np.exp(-t / rng.uniform(0.05, 0.09))
        burst = _band_noise(n, 250.0, 6000.0, rng) * envelope
        burst = burst / np.abs(burst).max() * rng.uniform(0.35, 0.6)
        pieces += [burst, _silence(rng.uniform(0.08, 0.2))]
        evidence.append(VoiceEvidence("cough", offset, offset + n / SAMPLE_RATE, 50.0, 6000.0))
        offset += sum(map(len, pieces[-2:])) / SAMPLE_RATE
    return np.concatenate(pieces), evidence


def _knock(rng: np.random.Generator) -> Waveform:
    """Knock on the table: a low thud, brief like a cough but without its hiss."""
    t = np.arange(_samples(0.15)) / SAMPLE_RATE
    thud = np.sin(2 * np.pi * rng.uniform(90, 180) * t) * np.exp(-t / 0.03)
    return np.asarray(rng.uniform(0.2, 0.5) * thud * np.minimum(t / 0.003, 1))


def _beep(rng: np.random.Generator) -> Waveform:
    """A monitor's beep: a tone like a wheeze, but higher, shorter and pure."""
    t = np.arange(_samples(rng.uniform(0.12, 0.2))) / SAMPLE_RATE
    return rng.uniform(0.03, 0.08) * _fade(np.sin(2 * np.pi * rng.uniform(1200, 2200) * t), 0.01)


def _hum(n: int, rng: np.random.Generator) -> Waveform:
    """Mains hum: 50 Hz and its odd harmonics up to 350 Hz."""
    t = np.arange(n) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 2 * np.pi)) / k for k in (1, 3, 5, 7)]
    return np.asarray(rng.uniform(0.015, 0.03) * np.sum(tones, axis=0))


def _band_noise(n: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> Waveform:
    """Draw ``n`` samples of noise in a band, with unit power in the middle and faded ends."""
    noise = sosfilt(_band_filter(low_hz, high_hz), rng.standard_normal(n))
    return _fade(noise / np.std(noise), 0.05)


@cache
def _band_filter(low_hz: float, high_hz: float) -> Float64[np.ndarray, "sections 6"]:
    """Design a filter once, since that takes longer than filtering and the bands are few."""
    return np.asarray(butter(2, (low_hz, high_hz), "bandpass", fs=SAMPLE_RATE, output="sos"))


def _fade(waveform: Waveform, duration_s: float) -> Waveform:
    ramp = np.linspace(0, 1, _samples(duration_s))
    faded = waveform.copy()
    faded[: len(ramp)] *= ramp
    faded[-len(ramp) :] *= ramp[::-1]
    return faded


def _samples(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE)


def _silence(duration_s: float) -> Waveform:
    return np.zeros(_samples(duration_s))


def _encode_wav(waveform: Waveform) -> bytes:
    samples = np.clip(np.round(waveform * 32767), -32768, 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.tobytes())
    return file.getvalue()
