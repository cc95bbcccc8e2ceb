"""Measure how far off dictated words' times are, on sentences that a synthetic voice says.

Each word is said by itself by espeak-ng, 20 ms apart, so that its place is known. Needs espeak-ng.
"""

import io
import subprocess

import numpy as np
import soundfile
import soxr

from medfuse.config import SAMPLE_RATE, Limits
from medfuse.dictation.transcribe import transcribe

SENTENCES = (
    "there is a round opacity in the right lung",
    "the patient has a cough and some fever today",
    "we see no change since the last visit",
    "the heart is large and the lungs are clear",
    "she was well until three days ago",
    "pain in the left side when he breathes",
)
GAP_S, BEFORE_S, AFTER_S = 0.02, 0.3, 0.5
QUIET = 0.01


def say(word: str) -> np.ndarray:
    """Let the synthetic voice say one word, its silence cut off."""
    command = ["espeak-ng", "-v", "en-us", "-s", "150", "--stdout", word]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    sound, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    sound = soxr.resample(sound, rate, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(sound) > QUIET)
    return np.asarray(sound[loud[0] : loud[-1]])


def main() -> None:
    """Print what was understood, and the errors of the words' beginnings and ends."""
    errors: list[float] = []
    for sentence in SENTENCES:
        parts = [np.zeros(int(BEFORE_S * SAMPLE_RATE))]
        times = []
        for word in sentence.split():
            begin = sum(map(len, parts)) / SAMPLE_RATE
            parts.append(say(word))
            times.append((begin, sum(map(len, parts)) / SAMPLE_RATE))
            parts.append(np.zeros(int(GAP_S * SAMPLE_RATE)))
        parts.append(np.zeros(int(AFTER_S * SAMPLE_RATE)))
        file = io.BytesIO()
        soundfile.write(file, np.concatenate(parts), SAMPLE_RATE, format="WAV")
        transcript = transcribe(file.getvalue(), Limits())
        counted = len(transcript.words) == len(times)
        print(f"{sentence!r} -> {transcript.text!r}{'' if counted else ' (not counted)'}")  # noqa: T201
        if counted:
            for word, (begin, end) in zip(transcript.words, times, strict=True):
                errors += [abs(word.start_s - begin), abs(word.end_s - end)]
    median, high = np.median(errors), np.quantile(errors, 0.9)
    print(f"{len(errors)} edges: median {median:.2f} s, 90th percentile {high:.2f} s")  # noqa: T201


if __name__ == "__main__":
    main()
