"""Inputs that are no study of the kind a model knows, described as novelty is told; by kind."""

import inspect
import io
import string
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
from jaxtyping import Float32, Float64
from PIL import Image, ImageDraw
from tokenizers import Tokenizer

from medfuse.config import SAMPLE_RATE, PrepareSettings
from medfuse.data import grey
from medfuse.data.note import prepare_note
from medfuse.data.voice import prepare_voice
from medfuse.trust.descriptors import describe_image, describe_voice
from medfuse.types import Modality

SECONDS = 5.0

OTHER_LANGUAGES = (
    "Der Patient klagt seit drei Tagen über Husten und Fieber, die Lunge ist beidseits frei.",
    "Le patient tousse depuis trois jours, il a de la fièvre et il respire avec difficulté.",
    "El paciente tiene tos y fiebre desde hace tres días y le duele el pecho al respirar.",
    "Il paziente ha la tosse e la febbre da tre giorni e respira con fatica.",
    "患者 咳嗽 发热 三天 呼吸困难 胸片 显示 右下 肺炎。",
    "Pacjent kaszle i gorączkuje od trzech dni, oddycha z trudem.",
)


def describe_wrong_images(
    usual: Sequence[Float32[np.ndarray, "s h w"]], side: int, count: int, seed: int
) -> dict[str, list[np.ndarray]]:
    """Describe images that are no radiograph, or one that is shown wrongly.

    Args:
        usual: Right ones, as the model reads them, to be shown wrongly.
        side: Of the model's square, in pixels.
        count: How many of each kind.
        seed: Of what is drawn.
    """
    rng = np.random.default_rng(seed)
    turned: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
        "mirrored": lambda frames: frames[:, :, ::-1],
        "upside down": lambda frames: frames[:, ::-1],
        "on its side": lambda frames: np.rot90(frames, axes=(1, 2)),
        "negative": lambda frames: 1 - frames,
    }
    made: Mapping[str, Callable[[], np.ndarray]] = {
        "noise": lambda: rng.random((side, side)),
        "photograph": lambda: _crop_photograph(side, rng),
        "page of text": lambda: _print_page(side, rng),
    }
    found = {
        name: [describe_image(np.ascontiguousarray(turn(frames))) for frames in usual[:count]]
        for name, turn in turned.items()
    }
    for name, make in made.items():
        found[name] = [describe_image(make().astype(np.float32)[None]) for _ in range(count)]
    return {name: own for name, own in found.items() if own}


def describe_wrong_voices(
    settings: PrepareSettings, count: int, seed: int
) -> dict[str, list[np.ndarray]]:
    """Describe recordings that are no speech."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    scale = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12)

    def play_chords() -> Float64[np.ndarray, " n"]:
        notes = [np.sin(2 * np.pi * hz * t) for hz in rng.choice(scale, 3, replace=False)]
        beat = np.exp(-4 * (t * rng.uniform(1, 3) % 1))
        return np.asarray(sum(notes) * beat / 6)

    makes: Mapping[str, Callable[[], np.ndarray]] = {
        "noise": lambda: rng.normal(0, rng.uniform(0.02, 0.2), len(t)),
        "tone": lambda: 0.3 * np.sin(2 * np.pi * rng.uniform(80, 3000) * t),
        "chords": play_chords,
        "clicks": lambda: 0.8 * (rng.random(len(t)) < rng.uniform(2e-4, 2e-3)),
    }
    found: dict[str, list[np.ndarray]] = {}
    for name, make in makes.items():
        for _ in range(count):
            file = io.BytesIO()
            soundfile.write(file, np.clip(make(), -1, 1), SAMPLE_RATE, format="WAV")
            voice, _ = prepare_voice(file.getvalue(), settings.voice, settings.limits)
            if voice is not None:
                found.setdefault(name, []).append(describe_voice(voice.values))
    return found


def collect_wrong_notes(
    usual: Sequence[str], settings: PrepareSettings, tokenizer: Tokenizer, count: int, seed: int
) -> dict[str, list[np.ndarray]]:
    """Give the word pieces of texts that are no note, or of one whose words are out of order."""
    rng = np.random.default_rng(seed)
    code = inspect.getsource(grey)
    letters = np.array([*string.ascii_lowercase, " ", " "])
    texts: Mapping[str, list[str]] = {
        "words out of order": [" ".join(rng.permutation(text.split())) for text in usual[:count]],
        "other languages": [
            " ".join(rng.permutation(own.split()).tolist() + own.split())
            for own in islice(cycle(OTHER_LANGUAGES), count)
        ],
        "program code": [code[i : i + 400] for i in rng.integers(0, len(code) - 400, count)],
        "random letters": ["".join(rng.choice(letters, 240)) for _ in range(count)],
    }
    found: dict[str, list[np.ndarray]] = {}
    for name, own in texts.items():
        for text in own:
            note, _ = prepare_note(text.encode(), settings.note, settings.limits, tokenizer)
            if note is not None:
                found.setdefault(name, []).append(note.values)
    return found


def describe_wrong(
    usual: Mapping[Modality, Sequence[np.ndarray]],
    notes: Sequence[str],
    settings: PrepareSettings,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
) -> dict[Modality, dict[str, list[np.ndarray]]]:
    """Describe wrong inputs of every modality.

    Args:
        usual: What the model reads of right ones; of images, to be shown wrongly.
        notes: Right notes' texts, to be mixed up.
        settings: How inputs are prepared.
        tokenizer: The note's.
        count: How many of each kind.
        seed: Of what is drawn.
    """
    side = settings.image.size
    return {
        Modality.IMAGE: describe_wrong_images(usual[Modality.IMAGE], side, count, seed),
        Modality.NOTE: collect_wrong_notes(notes, settings, tokenizer, count, seed),
        Modality.VOICE: describe_wrong_voices(settings, count, seed),
    }


def _crop_photograph(side: int, rng: np.random.Generator) -> Float64[np.ndarray, "h w"]:
    """Cut a square out of the photograph that comes with Matplotlib."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as photograph:
        image = photograph.convert("L")
    edge = int(rng.integers(min(image.size) // 3, min(image.size)))
    left, top = (int(rng.integers(0, length - edge + 1)) for length in image.size)
    cut = image.crop((left, top, left + edge, top + edge)).resize((side, side))
    return np.asarray(cut, dtype=np.float64) / 255


def _print_page(side: int, rng: np.random.Generator) -> Float64[np.ndarray, "h w"]:
    page = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(page)
    letters = np.array([*string.ascii_lowercase, " ", " ", " "])
    for y in range(4, side - 10, 12):
        draw.text((6, y), "".join(rng.choice(letters, side // 6 - 2)), fill=0)
    return np.asarray(page, dtype=np.float64) / 255
