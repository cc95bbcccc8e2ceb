"""A dictated recording becomes a note whose words lead back to their sound."""

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from medfuse.cli import build_app
from medfuse.config import SAMPLE_RATE, Limits, PrepareSettings
from medfuse.dictation import transcribe as module
from medfuse.dictation.record import SpokenWord, Transcript
from medfuse.dictation.speech import find_speech, speech_chances
from medfuse.dictation.transcribe import follow, place_words, transcribe
from medfuse.errors import CohortError, VoiceError
from medfuse_serving.dictation_view import Dictated
from medfuse_serving.page.desk import Desk, edit_note, take_dictation, write_down
from medfuse_serving.page.desk_view import show_note
from medfuse_serving.shelves import Shelves

PHRASES = (
    "it was the best of times it was the worst of times",
    "it was the age of wisdom it was the age of foolishness",
)
SPOKEN = [word for phrase in PHRASES for word in phrase.split()]
"""The first ten seconds of the recording that the package comes with (A Tale of Two Cities)."""


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    from moonshine_voice.utils import get_assets_path

    sound, rate = soundfile.read(get_assets_path() / "two_cities.wav", dtype="float32")
    return soxr.resample(sound[: int(8.5 * rate)], rate, SAMPLE_RATE)  # type: ignore[no-any-return]


def encode(waveform: np.ndarray, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format=kind)
    return file.getvalue()


def plain(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c.isalpha() or c == " ").split()


# Speech


def test_speech_is_found_where_it_is_and_not_in_noise_or_tones(speech: np.ndarray) -> None:
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    mixed = np.concatenate([silence, speech, silence])
    spans = find_speech(mixed)
    heard = sum(s.end_s - s.start_s for s in spans)
    assert 0.6 * len(speech) / SAMPLE_RATE < heard < len(speech) / SAMPLE_RATE
    assert spans[0].start_s > 1.9
    assert spans[-1].end_s < 2.1 + len(speech) / SAMPLE_RATE
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(0, 0.1, len(t)).astype(np.float32)
    for other in (silence, noise, 0.3 * np.sin(2 * np.pi * 440 * t).astype(np.float32)):
        assert find_speech(other) == ()
    assert find_speech(np.zeros(0, np.float32)) == ()


def test_chances_do_not_depend_on_how_many_steps_are_asked_at_once(
    speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = speech_chances(speech)
    assert len(whole) == -(-len(speech) // 512)
    monkeypatch.setattr("medfuse.dictation.speech.BLOCK", 7)
    np.testing.assert_allclose(speech_chances(speech), whole, atol=1e-5)


# Transcripts


def test_what_is_spoken_is_written_down_with_times(speech: np.ndarray) -> None:
    transcript = transcribe(encode(speech), Limits())
    assert plain(transcript.text) == SPOKEN
    assert len(transcript.words) == len(SPOKEN)
    starts = [w.start_s for w in transcript.words]
    assert starts == sorted(starts)
    assert all(w.start_s < w.end_s <= transcript.duration_s for w in transcript.words)
    # "wisdom" ends the third phrase, which the recording has from 4.8 to 6.6 s.
    place = transcript.text.index("wisdom")
    sound = transcript.find_sound(place, place + 6)
    assert sound is not None
    assert 5.5 < sound.start_s < sound.end_s < 6.8
    assert transcript.find_sound(len(transcript.text) + 5, len(transcript.text) + 9) is None


def test_the_sound_of_a_word_is_enough_to_hear_it_again(speech: np.ndarray) -> None:
    transcript = transcribe(encode(speech), Limits())
    place = transcript.text.index("age of foolishness")
    sound = transcript.find_sound(place, place + len("age of foolishness"))
    assert sound is not None
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    cut = speech[int(sound.start_s * SAMPLE_RATE) : int(sound.end_s * SAMPLE_RATE)]
    again = transcribe(encode(np.concatenate([pause, cut, pause])), Limits())
    assert "foolishness" in again.text.lower()


def test_a_long_dictation_is_written_down_in_pieces(
    speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_S", 5.0)
    *shares, transcript = follow(encode(speech, "FLAC"), Limits())
    assert isinstance(transcript, Transcript)
    assert len(shares) > 1
    numbers = [share for share in shares if isinstance(share, float)]
    assert numbers == sorted(numbers) == shares
    assert plain(transcript.text) == SPOKEN


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 70 * SAMPLE_RATE).astype(np.float32)
    for pause_s in (22.0, 46.0):  # 0.2 s of each: too short to end a stretch
        sound[int(pause_s * SAMPLE_RATE) : int((pause_s + 0.2) * SAMPLE_RATE)] *= 0.01
    sound[int(27.0 * SAMPLE_RATE) : int(27.05 * SAMPLE_RATE)] = 0  # the closure of a consonant
    pieces = list(module._split([(0.0, 70.0)], sound))
    np.testing.assert_allclose(pieces, [(0, 22.1), (22.1, 46.1), (46.1, 70)], atol=0.03)


@given(st.lists(st.tuples(st.floats(0.31, 9), st.floats(0.25, 80)), min_size=1, max_size=6))
def test_pieces_hold_all_speech_in_order_and_none_is_too_long(
    drawn: list[tuple[float, float]],
) -> None:
    speech, at = [], 0.0
    for pause, length in drawn:
        speech.append((at + pause, at + pause + length))
        at = speech[-1][1]
    pieces = list(module._split(speech, np.zeros(int(at * SAMPLE_RATE) + 1, np.float32)))
    assert all(0 < end - start <= module.PIECE_S for start, end in pieces)
    assert all(a[1] <= b[0] for a, b in pairwise(pieces))
    covered = sum(
        min(e, end) - max(s, start)
        for s, e in speech
        for start, end in pieces
        if min(e, end) > max(s, start)
    )
    assert covered == pytest.approx(sum(length for _, length in drawn))


@settings(max_examples=60)
@given(
    st.lists(st.from_regex(r"[a-z]{1,9}[,.]?", fullmatch=True), min_size=1, max_size=12),
    st.floats(0, 3),
    st.floats(0.2, 6),
    st.integers(0, 50),
)
def test_placed_words_follow_each_other_and_fill_their_phrase(
    words: list[str], start_s: float, length_s: float, offset: int
) -> None:
    waveform = np.random.default_rng(0).normal(size=10 * SAMPLE_RATE).astype(np.float32)
    phrase = " ".join(words)
    placed = list(place_words(phrase, offset, waveform, start_s, start_s + length_s))
    assert [phrase[w.start - offset : w.end - offset] for w in placed] == words
    assert placed[0].start_s == start_s
    assert placed[-1].end_s == pytest.approx(start_s + length_s)
    for one, other in pairwise(placed):
        assert one.end_s == other.start_s
        assert one.start_s <= one.end_s


def test_an_edge_between_words_moves_to_the_pause() -> None:
    waveform = np.ones(2 * SAMPLE_RATE, np.float32)
    waveform[int(0.92 * SAMPLE_RATE) : int(0.95 * SAMPLE_RATE)] = 0.0
    first, second = place_words("half half", 0, waveform, 0.0, 2.0)
    assert first.end_s == second.start_s == pytest.approx(0.935, abs=0.01)


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_a_recording_without_speech_is_refused(seconds: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, int(seconds * SAMPLE_RATE))
    with pytest.raises(VoiceError, match="no speech"):
        transcribe(encode(noise), Limits())
    with pytest.raises(VoiceError, match="format is not known"):
        transcribe(b"not sound", Limits())


# The command


def run(*arguments: object) -> str:
    result = CliRunner().invoke(build_app(), [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_recording_becomes_a_note_by_command(speech: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "said.wav").write_bytes(encode(speech))
    said = run("dictate", tmp_path / "said.wav", "--out", tmp_path / "note.txt")
    assert plain(said) == SPOKEN
    assert plain((tmp_path / "note.txt").read_text()) == SPOKEN
    words = Transcript.model_validate_json((tmp_path / "note.words.json").read_text())
    assert plain(words.text) == SPOKEN
    assert json.loads(run("dictate", tmp_path / "said.wav", "--json"))["text"] == words.text


def test_a_table_of_dictations_becomes_one_with_notes(speech: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(speech))
    (tmp_path / "b.wav").write_bytes(encode(np.zeros(SAMPLE_RATE)))
    table = tmp_path / "cohort.csv"
    pd.DataFrame(
        {"study_id": ["1", "2", "3"], "dictation": ["a.wav", "", "b.wav"], "images": ["x", "", ""]}
    ).to_csv(table, index=False)
    out = tmp_path / "written.csv"
    assert "1 notes written down, 1 recordings without any" in " ".join(
        run("dictate", table, "--out", out).split()
    )
    made = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert made["note"].tolist() == ["written-notes/000001.txt", "", ""]
    assert made["images"].tolist() == ["x", "", ""]
    assert plain((tmp_path / made["note"][0]).read_text()) == SPOKEN
    with pytest.raises(CohortError, match="already"):
        run("dictate", table, "--out", out)
    with pytest.raises(CohortError, match="own folder"):
        run("dictate", table, "--out", tmp_path / "elsewhere" / "written.csv")
    with pytest.raises(CohortError, match="no column 'speech'"):
        run("dictate", table, "--out", tmp_path / "w.csv", "--column", "speech")
    with pytest.raises(CohortError, match="row 1"):
        run("dictate", table, "--out", tmp_path / "w.csv", "--column", "images")
    assert not (tmp_path / "w.csv").exists()


# The page


def test_a_dictation_becomes_the_pages_note_until_it_is_changed(speech: np.ndarray) -> None:
    prepare = PrepareSettings()
    *_, dictated = write_down(encode(speech), prepare, Shelves())
    assert isinstance(dictated, Dictated)
    desk = take_dictation(Desk(note_text="before"), dictated)
    assert plain(desk.note_text) == SPOKEN
    assert desk.study.note == desk.note_text.encode()
    page = show_note(desk, prepare)
    assert "check every word" in page
    assert desk.dictated is not None
    first = desk.dictated.transcript.words[0]
    assert f'title="{first.start_s:.2f} to {first.end_s:.2f} s"' in page
    changed = edit_note(desk, desk.note_text + " Indeed.", desk.laid)
    assert changed.dictated is None
    assert "check every word" not in show_note(changed, prepare)


def test_what_was_dictated_is_escaped_on_the_page() -> None:
    word = SpokenWord(start=0, end=8, start_s=0, end_s=1)
    said = Transcript(text="<script>", words=(word,), speech=(), duration_s=1, model="m")
    desk = Desk(dictated=Dictated(said, Shelves().put(1, lambda _: b"")))
    assert "<script>" not in show_note(desk, PrepareSettings())
