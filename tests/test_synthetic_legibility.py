"""Detectors that were written apart from the renderers must read the signs back.

The exact posterior is the Bayes posterior of the bytes only if the signs can be told from them.
"""

import re
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, uniform_filter1d
from scipy.signal import stft

from medfuse.config import SAMPLE_RATE, Limits
from medfuse.data.note import decode_note
from medfuse.data.voice import decode_voice
from medfuse.synthetic.note import write_note
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.patient import make_patient
from medfuse.synthetic.phantom import draw_lesions, make_body, render_frontal
from medfuse.synthetic.voice import make_speaker, record_voice
from medfuse.synthetic.world import MOOD_SIGNS, SIGNS
from medfuse.types import Modality

OPTIONS = CohortOptions(seed=5)
ENOUGH = 0.97


def draw_signs(modality: Modality, rng: np.random.Generator) -> frozenset[str]:
    """Each sign with chance one half, so that accuracy has no easy floor."""
    return frozenset(sign.name for sign in SIGNS[modality] if rng.random() < 0.5)


# Image: the lung inside a sign's template, against the lung outside all templates.


@cache
def measure_views() -> tuple[list[frozenset[str]], dict[str, list[float]]]:
    truth = []
    contrasts: dict[str, list[float]] = {sign.name: [] for sign in SIGNS[Modality.IMAGE]}
    for number in range(40):
        rng = np.random.default_rng([1, number])
        signs = draw_signs(Modality.IMAGE, rng)
        truth.append(signs)
        body = make_body(make_patient(OPTIONS, number), rng)
        lesions = draw_lesions(body, rng)
        image, bare, full = (
            render_frontal(wanted, body, lesions, 224, np.random.default_rng([2, number]))
            for wanted in (signs, frozenset[str](), frozenset(contrasts))
        )
        smooth = gaussian_filter(bare.attenuation, 1.0)
        lung = binary_erosion((smooth > 0.08) & (smooth < 0.45), iterations=2)
        covered = np.logical_or.reduce(list(full.masks.values()))
        clear = lung & ~binary_dilation(covered, iterations=3)
        for sign, values in contrasts.items():
            inside = image.attenuation[full.masks[sign] & lung]
            values.append(float(np.median(inside) - np.median(image.attenuation[clear])))
    return truth, contrasts


@pytest.mark.parametrize("sign", [sign.name for sign in SIGNS[Modality.IMAGE]])
def test_image_signs_can_be_seen(sign: str) -> None:
    truth, contrasts = measure_views()
    seen = np.array(contrasts[sign]) > 0.15
    there = np.array([sign in signs for signs in truth])
    assert (seen == there).mean() >= ENOUGH


# Note: sentences that name the sign and do not deny it, of the patient and not of a relative.

WORDS = {
    "pleuritic_pain": r"pleuritic|stab|knife|chest pain|chest pian|br?eath?ing in|inspir",
    "calf_swelling": r"calf|leg swollen|one leg",
    "productive_cough": r"sputum|spu?t|phlegm|phelgm|productive|purulent",
    "orthopnoea": r"pillow|lie flat|lying flat|orthop|upright",
    "anhedonia": r"hobbies|hob|company|joy|pastimes|indiff|interest",
    "early_waking": r"at four|early wa|lying awake|small hours|dawn",
}
NOT_THE_PATIENT = re.compile(
    r"\b(no|not|without|father|mother|brother|sister|aunt|partner)\b", re.IGNORECASE
)


def read_note(text: str) -> frozenset[str]:
    claims = [s for s in re.split(r"[.:\n]\s", text) if not NOT_THE_PATIENT.search(s)]
    return frozenset(
        sign for sign, words in WORDS.items() if any(re.search(words, s, re.I) for s in claims)
    )


@pytest.mark.parametrize("sign", [sign.name for sign in SIGNS[Modality.NOTE]])
def test_note_signs_can_be_read(sign: str) -> None:
    right = 0
    for number in range(400):
        rng = np.random.default_rng([3, number])
        signs = draw_signs(Modality.NOTE, rng)
        patient = make_patient(OPTIONS, number)
        note, _ = write_note(signs, False, patient, 60, rng)
        right += (sign in read_note(decode_note(note, Limits()))) == (sign in signs)
    assert right / 400 >= ENOUGH


# Voice: the hiss of a cough, the periodicity of the vowel, a lasting tone beside vowel and phrase;
# and of the phrase, which is the last four sounds, the gaps and how far apart the pitches are.

STEP = SAMPLE_RATE // 100


def hear_voice(waveform: Float[np.ndarray, " n"]) -> frozenset[str]:
    hz, _, spectrum = stft(waveform, SAMPLE_RATE, nperseg=4 * STEP, noverlap=3 * STEP)
    power = np.abs(spectrum) ** 2  # (frequencies, steps of 10 ms)
    # The vowel is where its first formants stay strong for longer than any wheeze's harmonics do.
    formants = power[(hz > 850) & (hz < 1400)].sum(axis=0)
    middle = int(uniform_filter1d(np.log(formants + 1e-12), 115).argmax())
    core = range(max(middle - 25, 3), min(middle + 25, power.shape[1] - 3))
    level = 0.003 * np.median(formants[core.start : core.stop])
    below = np.flatnonzero(formants < level)
    begin = below[below < middle].max(initial=0) - 2
    end = below[below > middle].min(initial=power.shape[1]) + 3
    outside = (np.arange(power.shape[1]) < begin) | (np.arange(power.shape[1]) > end)

    hiss = uniform_filter1d(power[(hz > 3000) & (hz < 6000)].sum(axis=0), 3).max()
    periodicity = np.median(
        [measure_periodicity(waveform[(i * STEP - 400) : (i * STEP + 400)]) for i in core]
    )
    tone = power[(hz > 220) & (hz < 720)].max(axis=0)
    around = np.median(power[(hz > 200) & (hz < 1500)], axis=0)
    tonal = outside & (tone > 30 * around) & (tone > 1e-8)
    syllables = find_syllables(formants > 20 * level)
    tonal[syllables[0].start - 5 :] = False
    gaps = [after.start - before.stop for before, after in pairwise(syllables)]
    # No syllable is an octave from the vowel, so none is taken for its own octave.
    own = measure_pitch(waveform[core.start * STEP : core.stop * STEP], 75, 280)
    sounds = [waveform[s.start * STEP : s.stop * STEP] for s in syllables]
    pitches = [measure_pitch(sound, 0.7 * own, 1.45 * own) for sound in sounds]
    heard = {
        "cough": 10 * np.log10(hiss) > -37,
        "hoarseness": periodicity < 0.95,
        "wheeze": tonal.sum() > 25,
        "long_pauses": min(gaps) > 15,
        "monotone": max(pitches) < 1.25 * min(pitches),
    }
    return frozenset(sign for sign, yes in heard.items() if yes)


def find_syllables(loud: Bool[np.ndarray, " t"]) -> list[range]:
    """Give the steps of the last four sounds."""
    edges = np.flatnonzero(np.diff(loud.astype(int), prepend=0, append=0)).reshape(-1, 2)
    return [range(start, stop) for start, stop in edges[-4:]]


def autocorrelate(frame: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The autocorrelation at every lag, 1 at none, made up for how little of the frame is left."""
    n = len(frame)
    spectrum = np.abs(np.fft.rfft(frame - frame.mean(), 2 * n)) ** 2
    lags = np.fft.irfft(spectrum)[:n] * n / (n - np.arange(n))
    return np.asarray(lags / lags[0])


def measure_pitch(sound: Float[np.ndarray, " n"], low_hz: float, high_hz: float) -> float:
    """The pitch at which the sound repeats itself best."""
    first = int(SAMPLE_RATE / high_hz)
    lags = autocorrelate(sound)[first : int(SAMPLE_RATE / low_hz)]
    return SAMPLE_RATE / (first + int(lags.argmax()))


def measure_periodicity(frame: Float[np.ndarray, " n"]) -> float:
    """The highest autocorrelation at the lag of a voice's pitch, 75 to 280 Hz."""
    return float(autocorrelate(frame)[SAMPLE_RATE // 280 : SAMPLE_RATE // 75].max())


@cache
def listen() -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    truth, heard = [], []
    for number in range(200):
        rng = np.random.default_rng([4, number])
        signs = draw_signs(Modality.VOICE, rng)
        speaker = make_speaker(make_patient(OPTIONS, number), rng)
        voice, _ = record_voice(signs, False, speaker, rng)
        truth.append(signs)
        heard.append(hear_voice(decode_voice(voice, Limits()).waveform))
    return truth, heard


def test_a_mood_changes_nothing_that_is_heard_of_the_findings() -> None:
    mood = {sign.name for sign in MOOD_SIGNS[Modality.VOICE]}
    for number in range(12):
        rng = np.random.default_rng([5, number])
        signs = draw_signs(Modality.VOICE, rng) - mood
        speaker = make_speaker(make_patient(OPTIONS, number), rng)
        bright, low = (
            record_voice(wanted, False, speaker, np.random.default_rng(number))
            for wanted in (signs, signs | mood)
        )
        assert [e for e in bright[1] if e.sign != "hoarseness"] == [
            e for e in low[1] if e.sign not in mood | {"hoarseness"}
        ]
        waveforms = [decode_voice(voice, Limits()).waveform for voice, _ in (bright, low)]
        assert hear_voice(waveforms[0]) == hear_voice(waveforms[1]) - mood
        # Four syllables with long pauses and a silence take 1.64 to 2.51 s, all before is the same.
        before = len(waveforms[1]) - int(2.52 * SAMPLE_RATE)
        assert (waveforms[0][:before] == waveforms[1][:before]).all()


@pytest.mark.parametrize("sign", [sign.name for sign in SIGNS[Modality.VOICE]])
def test_voice_signs_can_be_heard(sign: str) -> None:
    truth, heard = listen()
    right = [(sign in t) == (sign in h) for t, h in zip(truth, heard, strict=True)]
    assert np.mean(right) >= ENOUGH
