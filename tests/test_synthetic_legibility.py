"""Detectors that were written apart from the renderers must read the signs back.

The exact posterior is the Bayes posterior of the bytes only if the signs can be told from them.
"""

import re
from functools import cache

import numpy as np
import pytest
from jaxtyping import Float
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
from medfuse.synthetic.world import SIGNS
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
}
NOT_THE_PATIENT = re.compile(r"\b(no|not|without|father|sister|aunt|partner)\b", re.IGNORECASE)


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


# Voice: the hiss of a cough, the periodicity of the vowel, a lasting tone outside the vowel.

STEP = SAMPLE_RATE // 100


def hear_voice(waveform: Float[np.ndarray, " n"]) -> frozenset[str]:
    hz, _, spectrum = stft(waveform, SAMPLE_RATE, nperseg=4 * STEP, noverlap=3 * STEP)
    power = np.abs(spectrum) ** 2  # (frequencies, steps of 10 ms)
    # The vowel is where its first formants stay strong for the longest.
    formants = power[(hz > 850) & (hz < 1400)].sum(axis=0)
    middle = int(uniform_filter1d(np.log(formants + 1e-12), 90).argmax())
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
    heard = {
        "cough": 10 * np.log10(hiss) > -37,
        "hoarseness": periodicity < 0.95,
        "wheeze": tonal.sum() > 25,
    }
    return frozenset(sign for sign, yes in heard.items() if yes)


def measure_periodicity(frame: Float[np.ndarray, " n"]) -> float:
    """The highest autocorrelation at the lag of a voice's pitch, 75 to 280 Hz."""
    n = len(frame)
    spectrum = np.abs(np.fft.rfft(frame - frame.mean(), 2 * n)) ** 2
    lags = np.fft.irfft(spectrum)[:n] * n / (n - np.arange(n))
    return float(lags[SAMPLE_RATE // 280 : SAMPLE_RATE // 75].max() / lags[0])


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


@pytest.mark.parametrize("sign", [sign.name for sign in SIGNS[Modality.VOICE]])
def test_voice_signs_can_be_heard(sign: str) -> None:
    truth, heard = listen()
    right = [(sign in t) == (sign in h) for t, h in zip(truth, heard, strict=True)]
    assert np.mean(right) >= ENOUGH
