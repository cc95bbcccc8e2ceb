"""What files say of themselves: edges, borders, bandwidth, hum; kept and found again."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from PIL import Image, ImageDraw

from medfuse.config import (
    SAMPLE_RATE,
    Box,
    ImageSettings,
    Limits,
    NoteSettings,
    PrepareSettings,
    VoiceSettings,
)
from medfuse.data.cohort import CohortRow
from medfuse.leaks.facts import read_facts, study_facts
from medfuse.leaks.image_facts import count_edges, measure_borders, read_image_facts
from medfuse.leaks.voice_facts import (
    compare_fingerprints,
    measure_background,
    measure_bandwidth,
    measure_hums,
    read_voice_facts,
)
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.types import MODALITIES, Study

RNG = np.random.default_rng(3)
NOISE = (0.01 * RNG.standard_normal(4 * SAMPLE_RATE)).astype(np.float32)
OPTIONS = CohortOptions(seed=5)


def wav(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def test_letters_have_sharp_edges_where_they_stand_and_tissue_has_none() -> None:
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1))
    assert not count_edges(ramp).any()
    picture = Image.fromarray(np.zeros((256, 256), np.uint8))
    ImageDraw.Draw(picture).text((6, 4), "L", fill=255)
    edges = count_edges(np.asarray(picture, dtype=np.float32) / 255)
    assert edges[0, 0] > 5
    assert edges.sum() == edges[0, 0]


def test_what_is_blanked_has_no_edges_and_neither_has_the_blank() -> None:
    image = np.full((256, 256), 0.8, np.float32)
    image[10:20, 10:20] = 0
    box = Box(top=0, left=0, bottom=0.125, right=0.125)
    assert count_edges(image).sum() > 0
    assert not count_edges(image, [box]).any()


def test_a_flat_frame_is_measured_from_each_side() -> None:
    image = RNG.random((100, 200)).astype(np.float32)
    image[:10] = 0
    assert measure_borders(image) == {
        "flat border, top": 0.1,
        "flat border, bottom": 0.0,
        "flat border, left": 0.0,
        "flat border, right": 0.0,
    }
    assert measure_borders(image.T)["flat border, left"] == 0.1
    assert measure_borders(image[::-1])["flat border, bottom"] == 0.1
    assert measure_borders(image[::-1].T)["flat border, right"] == 0.1


def test_a_frame_is_none_where_the_blank_covers_it_and_whole_where_it_does_not() -> None:
    image = RNG.random((100, 200)).astype(np.float32)
    image[:10] = 1
    blanked = {
        share: measure_borders(image, [Box(top=0, left=0, bottom=share, right=1)])
        for share in (0.09, 0.1, 0.5)
    }
    assert [own["flat border, top"] for own in blanked.values()] == [0.1, 0.0, 0.0]
    # A black blank over a white frame's end leaves the rest of the frame a frame.
    corner = [Box(top=0, left=0, bottom=1, right=0.2)]
    assert measure_borders(image, corner) == {**measure_borders(image), "flat border, left": 0.0}


@pytest.mark.parametrize("rate_hz", [4_000, 8_000])
def test_a_recording_resampled_upwards_ends_where_its_origin_did(rate_hz: int) -> None:
    narrow = soxr.resample(soxr.resample(NOISE, SAMPLE_RATE, rate_hz), rate_hz, SAMPLE_RATE)
    facts = read_voice_facts(wav(narrow), VoiceSettings(), Limits())
    assert facts.numbers["bandwidth_hz"] == pytest.approx(rate_hz / 2, rel=0.08)
    assert measure_bandwidth(NOISE) == SAMPLE_RATE / 2


def test_a_sound_that_fades_upwards_by_itself_has_no_end() -> None:
    # Noise that falls by 12 dB an octave, as voices do, down into rounding.
    spectrum = np.fft.rfft(RNG.standard_normal(4 * SAMPLE_RATE))
    hz = np.fft.rfftfreq(4 * SAMPLE_RATE, 1 / SAMPLE_RATE)
    falling = np.fft.irfft(spectrum / (1 + (hz / 100) ** 4)).astype(np.float32)
    assert measure_bandwidth(0.1 * falling / np.abs(falling).max()) == SAMPLE_RATE / 2


def test_a_step_down_to_what_a_microphone_hears_is_no_end() -> None:
    low = soxr.resample(soxr.resample(NOISE, SAMPLE_RATE, 4_000), 4_000, SAMPLE_RATE)
    assert measure_bandwidth((10 * low + 0.1 * NOISE).astype(np.float32)) == SAMPLE_RATE / 2


def test_a_low_pass_of_the_settings_ends_all_recordings_alike() -> None:
    narrow = soxr.resample(soxr.resample(NOISE, SAMPLE_RATE, 8_000), 8_000, SAMPLE_RATE)
    settings = VoiceSettings(lowpass_hz=3_000)
    ends = [read_voice_facts(wav(w), settings, Limits()) for w in (NOISE, narrow)]
    assert [facts.numbers["bandwidth_hz"] for facts in ends] == [3_000, 3_000]


def test_mains_hum_stands_above_noise_and_a_voice_does_not() -> None:
    t = np.arange(len(NOISE)) / SAMPLE_RATE
    hum = sum(np.sin(2 * np.pi * 50 * k * t) / k for k in (1, 3, 5))
    hummed = (NOISE + 0.005 * hum).astype(np.float32)
    found = measure_hums(hummed)
    assert found[50] >= 20
    assert abs(found[60]) < 10
    voice = (NOISE + 0.1 * np.sin(2 * np.pi * 150 * t)).astype(np.float32)
    assert measure_hums(voice)[50] < 10


def test_the_background_is_the_quietest_moment() -> None:
    waveform = NOISE.copy()
    waveform[: 2 * SAMPLE_RATE] *= 0.1
    assert measure_background(NOISE) == pytest.approx(-40, abs=2)
    assert measure_background(waveform) == pytest.approx(-60, abs=2)


def test_a_louder_later_copy_has_the_same_fingerprint_and_another_recording_has_not() -> None:
    first, second = (make_study(OPTIONS, i).study.voice or b"" for i in (0, 7))
    settings, limits = VoiceSettings(), Limits()
    waveform, _ = soundfile.read(io.BytesIO(first), dtype="float32")
    later = np.concatenate([np.zeros(2_000, np.float32), 1.3 * waveform + 0.001])
    prints = [
        read_voice_facts(data, settings, limits).fingerprint
        for data in (first, wav(np.clip(later, -1, 1)), second)
    ]
    assert compare_fingerprints(prints[0], prints[1], lag=3) > 0.97
    assert compare_fingerprints(prints[0], prints[2], lag=3) < 0.9


def test_a_mark_is_in_the_marked_study_alone() -> None:
    plain = study_facts(make_study(OPTIONS, 1).study, PrepareSettings())
    marked = study_facts(make_study(OPTIONS, 1, frozenset(MODALITIES)).study, PrepareSettings())
    assert plain.image is not None
    assert marked.image is not None
    more = marked.image.edges.astype(int) - plain.image.edges.astype(int)
    assert more.max() > 6
    assert set(map(tuple, np.argwhere(more > 6).tolist())) <= {
        (y, x) for y in (1, 2) for x in (12, 13, 14, 15)
    }
    assert "field unit" not in (plain.note or "")
    assert "field unit" in (marked.note or "")
    assert plain.voice is not None
    assert marked.voice is not None
    assert marked.voice.numbers["hum_50_db"] >= plain.voice.numbers["hum_50_db"] + 10


def test_a_header_says_what_made_the_image_and_how_it_is_stored() -> None:
    facts = read_image_facts(make_study(OPTIONS, 0).study.images, ImageSettings(), Limits())
    assert facts.made["Manufacturer"] == "medfuse"
    assert facts.stored["format"] == "DICOM"
    assert facts.stored["BitsStored"] == "12"
    assert facts.numbers["rows"] >= 192


def test_a_part_that_cannot_be_read_is_counted() -> None:
    facts = study_facts(Study(images=(b"no image",), note=b"Cough.", voice=None), PrepareSettings())
    assert (facts.image, facts.note, facts.unread) == (None, "Cough.", 1)


def test_kept_facts_are_those_that_were_read(tmp_path: Path) -> None:
    rows = []
    for i in range(3):
        study = make_study(OPTIONS, i).study
        files = {"image.dcm": study.images[0], "note.txt": study.note, "voice.wav": study.voice}
        folder = tmp_path / str(i)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data or b"")
        rows.append(
            CohortRow(
                number=i + 1,
                labels=(0.0,),
                patient_id=str(i),
                study_id=str(i),
                images=(folder / "image.dcm",),
                note=folder / "note.txt",
                voice=folder / "voice.wav" if i != 1 else None,
            )
        )
    settings = PrepareSettings()
    fresh = read_facts(rows, settings, 1, None, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    told: list[int] = []
    again = read_facts(rows, settings, 1, told.append, tmp_path / "kept")
    assert told == []  # nothing was read
    for one, other in zip(fresh, again, strict=True):
        assert (one.note, one.unread) == (other.note, other.unread)
        assert one.image is not None
        assert other.image is not None
        assert (one.image.made, one.image.stored, one.image.numbers) == (
            other.image.made,
            other.image.stored,
            other.image.numbers,
        )
        np.testing.assert_array_equal(one.image.thumbnails, other.image.thumbnails)
        np.testing.assert_array_equal(one.image.edges, other.image.edges)
        assert (one.voice is None) == (other.voice is None)
        if one.voice is not None and other.voice is not None:
            assert one.voice.numbers == other.voice.numbers
            np.testing.assert_array_equal(one.voice.fingerprint, other.voice.fingerprint)
    assert b"HISTORY" not in kept.read_bytes()

    # Another low-pass is another recording, and other masked words are not.
    masked = settings.model_copy(update={"note": NoteSettings(mask_words=("woman", "man"))})
    found = read_facts(rows, masked, 1, told.append, tmp_path / "kept")
    assert told == []
    assert all(" man," not in (facts.note or "") for facts in found)
    lower = settings.model_copy(update={"voice": VoiceSettings(lowpass_hz=2_000)})
    read_facts(rows, lower, 1, told.append, tmp_path / "kept")
    assert told == [1, 2, 3]
    kept.write_bytes(b"damaged")
    read_facts([replace(row) for row in rows], settings, 1, told.append, tmp_path / "kept")
    assert told[3:] == [1, 2, 3]
    # Notes are read anew, so whether one can be read is not remembered.
    (tmp_path / "0" / "note.txt").write_bytes(b"\0\0\0")
    assert [f.unread for f in read_facts(rows, settings, 1, None, tmp_path / "kept")] == [1, 0, 0]
    (tmp_path / "0" / "note.txt").write_bytes(b"Cough.")
    assert read_facts(rows, settings, 1, None, tmp_path / "kept")[0].unread == 0
    # Damaged ones are made anew.
    whole = kept.read_bytes()
    for damaged in (whole[:-100], whole[:200] + bytes(100) + whole[300:], b"PK"):
        kept.write_bytes(damaged)
        told.clear()
        read_facts(rows, settings, 1, told.append, tmp_path / "kept")
        assert told == [1, 2, 3]
