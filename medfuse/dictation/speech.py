"""A waveform in, where there is speech in it out, by Silero's detector on ONNX Runtime.

The network (package ``silero-vad``, MIT licence) reads 512 samples at a time, each with the 64
before it, and carries a state from one to the next. The package itself asks for torch, so only its
ONNX file is used.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float32

from medfuse.config import SAMPLE_RATE
from medfuse.dictation.record import Span
from medfuse.errors import SettingsError

STEP, BEFORE = 512, 64
BLOCK = 512
"""Steps in one call."""

SPEECH = 0.5
"""The chance from which on a step is speech."""

SHORTEST_S, GAP_S = 0.25, 0.3
"""Speech that is shorter is none, and a shorter pause is speech still."""


def speech_chances(waveform: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " t"]:
    """Give the chance of speech in each step of 512 samples (32 ms).

    Args:
        waveform: Mono, at `SAMPLE_RATE`.

    Raises:
        SettingsError: The package with the network is not installed.
    """
    session = _open()
    if not len(waveform):
        return np.zeros(0, np.float32)
    steps = -(-len(waveform) // STEP)
    padded = np.zeros(BEFORE + steps * STEP, np.float32)
    padded[BEFORE : BEFORE + len(waveform)] = waveform
    frames = np.lib.stride_tricks.sliding_window_view(padded, BEFORE + STEP)[::STEP]
    h, c = np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32)
    chances = []
    for start in range(0, steps, BLOCK):
        block = np.ascontiguousarray(frames[start : start + BLOCK])
        said, h, c = session.run(None, {"input": block, "h": h, "c": c})
        chances.append(said)
    return np.concatenate(chances)


def find_speech(waveform: Float32[np.ndarray, " n"]) -> tuple[Span, ...]:
    """Give the stretches of speech, short pauses included and short noises left out."""
    said = speech_chances(waveform) >= SPEECH
    edges = np.flatnonzero(np.diff(said, prepend=False, append=False)).reshape(-1, 2)
    step_s = STEP / SAMPLE_RATE
    joined: list[list[float]] = []
    for start, end in (edges * step_s).tolist():
        if joined and start - joined[-1][1] < GAP_S:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    last = len(waveform) / SAMPLE_RATE
    return tuple(
        Span(start_s=start, end_s=min(end, last))
        for start, end in joined
        if end - start >= SHORTEST_S
    )


@cache
def _open() -> onnxruntime.InferenceSession:
    spec = find_spec("silero_vad")  # found, and not run: it imports torch
    if spec is None or spec.origin is None:
        raise SettingsError(
            "finding speech needs the package silero-vad; install it with "
            "'pip install --no-deps silero-vad==6.2.3'"
        )
    path = Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
