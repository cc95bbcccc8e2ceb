import io
import re
import struct
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from medfuse.config import SAMPLE_RATE, Limits, VoiceSettings
from medfuse.data.voice import (
    FLOOR,
    SILENCE,
    decode_voice,
    log_mel,
    mel_corners_hz,
    prepare_voice,
)
from medfuse.errors import InputError, LimitError, VoiceError
from tests.peak_memory import MOST_BYTES, measure
from tests.recordings import GENERAL_AUDIO, encode, sine, voice_object

LIMITS = Limits()
SETTINGS = VoiceSettings()
RNG = np.random.default_rng(7)
NOISE = (0.1 * RNG.standard_normal(SAMPLE_RATE)).astype(np.float32)


def codes(data: bytes, settings: VoiceSettings = SETTINGS) -> set[str]:
    return {remark.code for remark in prepare_voice(data, settings, LIMITS)[1]}


# Decoding


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-24), ("FLOAT", 0)],
)
def test_wav_samples_at_16_khz_come_back_as_they_went_in(subtype: str, step: float) -> None:
    recording = decode_voice(encode(NOISE, subtype=subtype), LIMITS)
    assert recording.duration_s == 1.0
    assert recording.waveform == pytest.approx(NOISE, abs=step)


@pytest.mark.parametrize(
    ("kind", "subtype", "rate_hz", "error"),
    [  # the codecs' own loss; FLAC has none but 16 bits
        ("WAVEX", "PCM_16", 44_100, 0.001),
        ("RF64", "PCM_24", 44_100, 0.001),
        ("FLAC", "PCM_16", 44_100, 0.001),
        ("OGG", "VORBIS", 44_100, 0.03),
        ("OGG", "OPUS", 48_000, 0.03),
        ("MP3", "MPEG_LAYER_III", 44_100, 0.03),
        ("WAV", "ULAW", 8_000, 0.03),
        ("WAV", "ALAW", 8_000, 0.03),
    ],
)
def test_every_container_and_rate_gives_the_same_tone(
    kind: str, subtype: str, rate_hz: int, error: float
) -> None:
    data = encode(sine(440, 2, rate_hz), rate_hz, kind, subtype)
    recording = decode_voice(data, LIMITS)
    assert recording.duration_s == pytest.approx(2.0, abs=0.001)
    assert recording.rate_hz == rate_hz
    expected = sine(440, 2)[4000:-4000]  # away from the ends, where resampling rings
    assert recording.waveform[4000 : len(expected) + 4000] == pytest.approx(expected, abs=error)


def test_channels_are_averaged() -> None:
    stereo = np.stack([NOISE, -NOISE / 2], axis=1)
    recording = decode_voice(encode(stereo, subtype="FLOAT"), LIMITS)
    assert recording.channels == 2
    assert recording.waveform == pytest.approx(NOISE / 4, abs=1e-7)


@pytest.mark.parametrize(
    ("kind", "subtype"), [("FLAC", None), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
)
def test_reading_block_by_block_equals_reading_at_once(kind: str, subtype: str | None) -> None:
    data = encode(np.tile(NOISE, 10), SAMPLE_RATE, kind, subtype)
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")  # one call to libsndfile
    # mpg123 rounds the last bit differently now and then.
    assert decode_voice(data, LIMITS).waveform == pytest.approx(whole, abs=1e-7)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 32_000, 48_000])
def test_an_mp3_of_any_rate_is_read_to_its_last_sample(rate_hz: int) -> None:
    loud_then_silent = np.concatenate([sine(300, 3, rate_hz), np.zeros(3 * rate_hz)])
    recording = decode_voice(encode(loud_then_silent, rate_hz, "MP3"), LIMITS)
    assert recording.duration_s == 6.0


def test_an_mp3_that_holds_more_than_is_decoded_is_refused() -> None:
    noise = np.tile(NOISE, 5)
    data = encode(np.concatenate([noise, 0 * noise]), kind="MP3")
    # Without its first frame, which tells the length, libsndfile guesses, and stops too soon.
    second = data.index(data[:2], 2)
    with pytest.raises(VoiceError, match="more sound than its header tells"):
        decode_voice(data[second:], LIMITS)


def test_a_tag_before_an_mp3_changes_nothing() -> None:
    data = encode(NOISE, kind="MP3")
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 16, 0]) + b"\xff" * 2048
    tagged, plain = decode_voice(tag + data, LIMITS), decode_voice(data, LIMITS)
    assert np.array_equal(tagged.waveform, plain.waveform)


# DICOM


@pytest.mark.parametrize(("interpretation", "subtype"), [("MB", "ULAW"), ("AB", "ALAW")])
def test_the_laws_of_g711_agree_with_libsndfile_on_every_byte(
    interpretation: str, subtype: str
) -> None:
    every = np.tile(np.arange(256, dtype=np.uint8), 32).tobytes()
    wav = bytearray(encode(np.zeros(len(every)), subtype=subtype))
    wav[wav.index(b"data") + 8 :] = every
    data = voice_object(every, samples=len(every), interpretation=interpretation, rate_hz=16_000)
    ours, theirs = decode_voice(data, LIMITS), decode_voice(bytes(wav), LIMITS)
    assert np.array_equal(ours.waveform, theirs.waveform)
    assert ours.clipped == theirs.clipped


@pytest.mark.parametrize(
    ("interpretation", "dtype", "zero"),
    [
        ("SB", "<i1", 0),
        ("UB", "<u1", 2**7),
        ("SS", "<i2", 0),
        ("US", "<u2", 2**15),
        ("SL", "<i4", 0),
        ("UL", "<u4", 2**31),
    ],
)
@pytest.mark.parametrize("big_endian", [False, True])
def test_dicom_samples_of_every_type_and_byte_order_are_read(
    interpretation: str, dtype: str, zero: int, big_endian: bool
) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    stereo = np.stack([NOISE, NOISE], axis=1)
    stored = (np.round(stereo.astype(np.float64) * 2 ** (bits - 1)) + zero).astype(
        dtype.replace("<", ">") if big_endian else dtype
    )
    data = voice_object(
        stored.tobytes(),
        samples=len(stored),
        interpretation=interpretation,
        bits=bits,
        channels=2,
        rate_hz=16_000,
        sop_class=GENERAL_AUDIO,
        syntax=ExplicitVRBigEndian if big_endian else ImplicitVRLittleEndian,
    )
    recording = decode_voice(data, LIMITS)
    assert recording.waveform == pytest.approx(NOISE, abs=2.0 ** (1 - bits))


def test_dicom_samples_of_12_bits_in_16_fill_the_whole_scale() -> None:
    stored = np.round(NOISE * 2**11).astype("<i2")
    data = voice_object(
        stored.tobytes(),
        samples=len(stored),
        interpretation="SS",
        bits=16,
        bits_stored=12,
        rate_hz=16_000,
    )
    assert decode_voice(data, LIMITS).waveform == pytest.approx(NOISE, abs=2**-11)


def test_a_dicom_object_without_preamble_is_read() -> None:
    data = voice_object(bytes([128]) * 8_000, samples=8_000)
    assert decode_voice(data[132:], LIMITS).duration_s == 1.0


def test_a_dicom_electrocardiogram_is_not_a_voice() -> None:
    ecg = Path(str(get_testdata_file("waveform_ecg.dcm"))).read_bytes()
    with pytest.raises(VoiceError, match="holds no sound"):
        decode_voice(ecg, LIMITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 9_000}, "8000 bytes; its header declares 9000"),
        ({"samples": 100}, "8000 bytes; its header declares 100"),
        ({"interpretation": "XX"}, "WaveformSampleInterpretation is not supported"),
        ({"interpretation": "SS"}, "WaveformBitsAllocated is not 16"),
        ({"bits_stored": 12}, "WaveformBitsStored"),
    ],
)
def test_a_dicom_header_that_does_not_fit_its_samples_is_refused(
    changes: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {"samples": 8_000, **changes}
    data = voice_object(bytes(8_000), **arguments)  # type: ignore[arg-type]
    with pytest.raises(VoiceError, match=message):
        decode_voice(data, LIMITS)


@pytest.mark.parametrize("length", [1, 3, 255])
def test_a_dicom_element_of_a_wrong_length_is_refused(length: int) -> None:
    data = voice_object(bytes(8_000), samples=8_000)
    channels = b"\x3a\x00\x05\x00US"  # NumberOfWaveformChannels, two bytes long
    changed = data.replace(channels + b"\x02\x00", channels + bytes([length, 0]))
    assert changed != data
    with pytest.raises(VoiceError, match="DICOM object cannot be read"):
        decode_voice(changed, LIMITS)


# Log-mel


def slow_log_mel(waveform: np.ndarray, settings: VoiceSettings, size: int) -> np.ndarray:
    """Work the log-mel out from its definition, by sums of sines in float64."""
    n, step = round(settings.window_s * SAMPLE_RATE), round(settings.step_s * SAMPLE_RATE)
    window = np.sin(np.pi * np.arange(n) / n) ** 2
    mels = np.linspace(
        1127 * np.log1p(settings.low_hz / 700),
        1127 * np.log1p(settings.high_hz / 700),
        settings.mel_bands + 2,
    )
    corners = 700 * np.expm1(mels / 1127)
    hz = np.arange(size // 2 + 1) * SAMPLE_RATE / size
    waves = np.exp(-2j * np.pi * np.outer(np.arange(n), hz) / SAMPLE_RATE)
    rows = []
    for start in range(0, len(waveform) - n + 1, step):
        frame = waveform[start : start + n].astype(np.float64) * window
        power = np.abs(frame @ waves / (window.sum() / 2)) ** 2
        bands = [
            float(power @ np.interp(hz, corners[band : band + 3], [0, 1, 0]))
            for band in range(settings.mel_bands)
        ]
        rows.append([1 + 2 * np.log10(max(band, FLOOR)) / 10 for band in bands])
    return np.array(rows)


def test_log_mel_agrees_with_its_definition_worked_out_by_hand() -> None:
    waveform = np.concatenate([NOISE[:4000], sine(1000, 0.1), np.zeros(800, dtype=np.float32)])
    # float32 against float64: 1e-4 is 0.005 dB.
    assert log_mel(waveform, SETTINGS) == pytest.approx(
        slow_log_mel(waveform, SETTINGS, 1024), abs=1e-4
    )


def test_log_mel_agrees_with_the_one_in_transformers() -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    n, step, size = 400, 160, 1024
    bank = mel_filter_bank(
        num_frequency_bins=size // 2 + 1,
        num_mel_filters=SETTINGS.mel_bands,
        min_frequency=SETTINGS.low_hz,
        max_frequency=SETTINGS.high_hz,
        sampling_rate=SAMPLE_RATE,
        norm=None,
        mel_scale="htk",
    )
    window = window_function(n, "hann", periodic=True)
    theirs = spectrogram(
        NOISE / (window.sum() / 2),
        window,
        frame_length=n,
        hop_length=step,
        fft_length=size,
        power=2.0,
        center=False,
        mel_filters=bank,
        mel_floor=FLOOR,
        log_mel="log10",
    )
    # theirs is log10 of power: -10 is our -1 and 0 our 1
    assert log_mel(NOISE, SETTINGS) == pytest.approx(1 + theirs.T / 5, abs=1e-4)


def test_silence_is_minus_one_and_a_full_scale_tone_reaches_one() -> None:
    silence = log_mel(np.zeros(SAMPLE_RATE, dtype=np.float32), SETTINGS)
    tone = log_mel(sine(1000, 1, amplitude=1.0), SETTINGS)
    assert silence == pytest.approx(-1, abs=1e-6)
    assert tone.max() == pytest.approx(1, abs=0.1)


def test_a_recording_ten_times_quieter_is_lower_by_a_fifth_of_the_scale_everywhere() -> None:
    # 20 dB of the 100 dB that [-1, 1] spans
    gap = log_mel(NOISE, SETTINGS) - log_mel(NOISE / 10, SETTINGS)
    assert gap == pytest.approx(0.4, abs=1e-4)


@given(
    samples=st.integers(1, 20_000),
    window_s=st.floats(0.005, 0.1),
    step_s=st.floats(0.002, 0.05),
    bands=st.integers(8, 256),
)
@settings(max_examples=40, deadline=None)
def test_frames_stay_within_the_recording_and_every_band_hears_noise(
    samples: int, window_s: float, step_s: float, bands: int
) -> None:
    voice = VoiceSettings(window_s=window_s, step_s=step_s, mel_bands=bands)
    window, step = round(window_s * SAMPLE_RATE), round(step_s * SAMPLE_RATE)
    values = log_mel(np.resize(NOISE, samples), voice)
    assert values.shape == (1 + max(0, samples - window) // step, bands)
    if samples >= 4 * window:  # else a frame is mostly padding
        assert (values.max(axis=0) > -1).all()


@given(frames=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_frame_depends_on_its_own_samples_alone(frames: int) -> None:
    whole = log_mel(NOISE, SETTINGS)
    beginning = log_mel(NOISE[: 400 + 160 * (frames - 1)], SETTINGS)
    later = log_mel(NOISE[160 * frames :], SETTINGS)
    assert beginning == pytest.approx(whole[:frames], abs=1e-5)
    assert later == pytest.approx(whole[frames:], abs=1e-5)


@given(at=st.floats(0.2, 0.8))
@settings(max_examples=20, deadline=None)
def test_a_click_shows_at_its_own_time(at: float) -> None:
    waveform = np.zeros(SAMPLE_RATE, dtype=np.float32)
    waveform[round(at * SAMPLE_RATE)] = 1
    prepared, _ = prepare_voice(encode(waveform), SETTINGS, LIMITS)
    loudest = int(prepared.values.sum(axis=1).argmax())
    assert prepared.start_s + loudest * prepared.step_s == pytest.approx(at, abs=0.006)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_the_log_mel_of_a_tone_does_not_depend_on_the_rate_it_came_with(rate_hz: int) -> None:
    direct = log_mel(sine(1000, 1), SETTINGS)
    recording = decode_voice(encode(sine(1000, 1, rate_hz), rate_hz, subtype="FLOAT"), LIMITS)
    near = abs(direct - direct.max(axis=1, keepdims=True)) < 0.5  # bands near the tone
    inner = slice(5, 90)
    ours = log_mel(recording.waveform, SETTINGS)
    assert ours[inner][near[inner]] == pytest.approx(direct[inner][near[inner]], abs=0.01)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@given(tone_hz=st.floats(2_000, 7_900), amplitude=st.floats(0.001, 0.9))
@settings(max_examples=20)
def test_above_the_lowpass_is_silence_to_the_last_bit(
    scale: str, tone_hz: float, amplitude: float
) -> None:
    own = VoiceSettings(lowpass_hz=2_000, mel_scale=scale)  # type: ignore[arg-type]
    corners = mel_corners_hz(own)
    heard = corners[2:] <= 2_000
    assert 0 < heard.sum() < own.mel_bands
    waveform = NOISE + sine(tone_hz, 1, amplitude=amplitude)
    found = log_mel(waveform, own)
    assert (found[:, ~heard] == SILENCE).all()
    whole = log_mel(waveform, VoiceSettings(mel_scale=scale))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[:, heard], whole[:, heard])


def test_a_lowpass_below_all_bands_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"lowpass_hz 40\.0 is not above low_hz 50\.0"):
        VoiceSettings(lowpass_hz=40)


# Remarks


def test_a_good_recording_has_no_remarks() -> None:
    assert codes(encode(NOISE)) == set()


@pytest.mark.parametrize(("amplitude", "silent"), [(0.0, True), (1e-4, True), (0.01, False)])
def test_silence_is_reported(amplitude: float, silent: bool) -> None:
    data = encode(sine(300, 1, amplitude=amplitude), subtype="PCM_24")
    assert ("voice-silent" in codes(data)) is silent


@pytest.mark.parametrize(
    ("subtype", "rate_hz"),
    [
        ("PCM_U8", 16_000),
        ("PCM_16", 16_000),
        ("PCM_24", 48_000),
        ("FLOAT", 16_000),
        ("ULAW", 16_000),
        ("ALAW", 16_000),
    ],
)
def test_clipping_is_reported_with_its_share(subtype: str, rate_hz: int) -> None:
    # A sine of amplitude 2 is beyond full scale for 2/3 of the time: |sin| > 1/2.
    loud = np.clip(sine(100, 1, rate_hz, amplitude=2), -1, 1)
    data = encode(loud, rate_hz, subtype=subtype)
    assert decode_voice(data, LIMITS).clipped == pytest.approx(2 / 3, abs=0.02)
    assert "voice-clipped" in codes(data)
    clean = sine(100, 1, rate_hz, amplitude=0.9)
    assert decode_voice(encode(clean, rate_hz, subtype=subtype), LIMITS).clipped == 0


def test_a_single_sample_at_full_scale_is_not_clipping() -> None:
    peak = NOISE.copy()
    peak[100] = 1
    assert decode_voice(encode(peak), LIMITS).clipped == 0


def test_clipping_is_found_across_decoded_blocks() -> None:
    edge = np.zeros(2**17, dtype=np.float32)
    edge[2**16 - 1 : 2**16 + 1] = 1  # one sample on either side
    assert decode_voice(encode(edge), LIMITS).clipped == 1 / 2**17


def test_what_is_cut_is_reported() -> None:
    data = encode(np.tile(NOISE, 12))
    prepared, remarks = prepare_voice(data, SETTINGS, LIMITS)
    assert [remark.code for remark in remarks] == ["voice-cut"]
    assert "12.0 s; the first 10 s" in remarks[0].message
    assert prepared.duration_s == 12.0
    assert np.array_equal(
        prepared.values, prepare_voice(encode(np.tile(NOISE, 10)), SETTINGS, LIMITS)[0].values
    )


def test_a_low_sample_rate_is_reported() -> None:
    assert codes(encode(sine(300, 1, 8_000), 8_000)) == {"voice-narrow-band"}
    assert codes(encode(sine(300, 1, 8_000), 8_000), VoiceSettings(high_hz=4_000)) == set()


def test_a_recording_below_the_shortest_is_refused() -> None:
    with pytest.raises(VoiceError, match=r"lasts 0\.20 s; at least 0\.3 s"):
        prepare_voice(encode(sine(300, 0.2)), SETTINGS, LIMITS)


def test_a_wav_that_breaks_off_is_reported() -> None:
    data = encode(NOISE)
    assert codes(data[:20_000]) == {"voice-incomplete"}


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_F024])
def test_a_wav_written_into_a_pipe_is_whole(size: int) -> None:
    data = bytearray(encode(NOISE))
    data[4:8] = data[40:44] = struct.pack("<I", size)
    recording = decode_voice(bytes(data), LIMITS)
    assert recording.complete
    assert recording.duration_s == 1.0


# Refusals


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_sound_level_are_refused(value: float, subtype: str) -> None:
    bad = NOISE.copy()
    bad[5000] = value
    with pytest.raises(VoiceError, match="not finite or far beyond full scale"):
        decode_voice(encode(bad, subtype=subtype), LIMITS)


@pytest.mark.parametrize(
    "data", [b"", b"R", b"RIFF", b"\xff", b"\xff\xfb", b"ID3", b"OggS", b"\x02\x00", bytes(200)]
)
def test_bytes_that_are_no_recording_are_refused(data: bytes) -> None:
    with pytest.raises(VoiceError):
        decode_voice(data, LIMITS)


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "VOC"])
def test_formats_beyond_the_documented_ones_are_refused(kind: str) -> None:
    with pytest.raises(VoiceError, match="expected WAV, FLAC, OGG, MP3"):
        decode_voice(encode(NOISE, kind=kind, subtype="PCM_16"), LIMITS)


def test_a_flac_that_breaks_off_is_refused() -> None:
    data = encode(NOISE, kind="FLAC")
    with pytest.raises(VoiceError, match="damaged"):
        decode_voice(data[: len(data) // 2], LIMITS)


SEEDS = [
    encode(NOISE[:8000]),
    encode(NOISE[:8000], subtype="FLOAT"),
    encode(NOISE[:8000], subtype="IMA_ADPCM"),
    encode(NOISE[:8000], kind="FLAC"),
    encode(NOISE[:8000], kind="OGG"),
    encode(NOISE[:8000], kind="MP3"),
    voice_object(bytes(8_000), samples=8_000),
]


@given(
    seed=st.integers(0, len(SEEDS) - 1),
    places=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    end=st.floats(0.1, 1),
)
@settings(max_examples=200, deadline=None)
def test_damage_ends_in_a_typed_error_or_in_sound(
    seed: int, places: list[tuple[float, bytes]], end: float
) -> None:
    data = bytearray(SEEDS[seed])
    for place, patch in places:
        at = int(place**3 * len(data))  # most often in the header
        data[at : at + len(patch)] = patch
    try:
        prepared, _ = prepare_voice(bytes(data[: int(end * len(data))]), SETTINGS, LIMITS)
    except InputError as error:
        assert isinstance(error, VoiceError | LimitError)  # noqa: PT017
    else:
        assert np.isfinite(prepared.values).all()


# Bounds


def declare_flac_samples(data: bytes, samples: int) -> bytes:
    """Overwrite the 36 bits of STREAMINFO that say how many samples follow; 0 is unknown."""
    changed = bytearray(data)
    changed[21] = changed[21] & 0xF0 | samples >> 32
    changed[22:26] = struct.pack(">I", samples & 0xFFFF_FFFF)
    return bytes(changed)


def claim_wav(*, channels: int = 1, rate_hz: int = 16_000, seconds: float = 1.0) -> bytes:
    """Write a WAV header that claims what nobody checked, before few samples."""
    frames = int(seconds * rate_hz)
    size = min(frames * channels * 2, 0x7FFF_0000)
    layout = struct.pack(
        "<IHHIIHH", 16, 1, channels, rate_hz, min(rate_hz * channels * 2, 2**32 - 1), 2, 16
    )
    return (
        b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + layout
        + b"data" + struct.pack("<I", size) + bytes(32_000)
    )  # fmt: skip


@cache
def day_of_flac() -> bytes:
    """Encode 24 hours of silence: 0.6 MB."""
    file, zeros = io.BytesIO(), np.zeros(2**20, dtype=np.int16)
    with soundfile.SoundFile(file, "w", 2_000, 1, format="FLAC", subtype="PCM_16") as flac:
        for _ in range(24 * 3600 * 2_000 // len(zeros) + 1):
            flac.write(zeros)
    return file.getvalue()


def day_of_flac_without_length() -> bytes:
    return declare_flac_samples(day_of_flac(), 0)


def day_of_mp3() -> bytes:
    second = encode(np.zeros(SAMPLE_RATE), kind="MP3")
    frame = second.index(second[:2], 2)
    return second[:frame] + 24 * 3600 * second[frame:]


def hour_of_wav() -> bytes:
    return claim_wav(seconds=3600)[:44] + bytes(3600 * 32_000)


def hour_of_dicom() -> bytes:
    return voice_object(bytes(3600 * 8_000), samples=3600 * 8_000)


def deflated_dicom() -> bytes:
    samples = 128 * 2**20
    return voice_object(bytes(samples), samples=samples, syntax=DeflatedExplicitVRLittleEndian)


def large_dicom() -> bytes:
    samples = 160 * 2**20
    return voice_object(bytes(samples), samples=samples)


def ten_minutes_of_wav_ending_in_nan() -> bytes:
    samples = np.zeros(600 * 16_000, dtype=np.float32)
    samples[-1] = np.nan
    return encode(samples, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (day_of_flac, "LimitError"),
        (day_of_flac_without_length, "LimitError"),
        (day_of_mp3, "LimitError"),
        (hour_of_wav, "LimitError"),
        (hour_of_dicom, "LimitError"),
        (deflated_dicom, "LimitError"),
        (large_dicom, "LimitError"),
        (ten_minutes_of_wav_ending_in_nan, "VoiceError"),
    ],
)
def test_a_bomb_is_refused_within_256_mib(
    make: Callable[[], bytes], error: str, tmp_path: Path
) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(make())
    outcome = measure(
        "from medfuse.config import Limits, VoiceSettings\n"
        "from medfuse.data.voice import prepare_voice",
        "prepare_voice(data, VoiceSettings(), Limits())",
        file,
    )
    assert outcome.error == error
    assert outcome.extra_bytes < MOST_BYTES


def test_a_flac_that_declares_too_much_is_refused_before_decoding() -> None:
    data = declare_flac_samples(encode(NOISE, kind="FLAC"), 2**36 - 1)
    with pytest.raises(LimitError, match=r"declares 4294967 s; at most 600 s"):
        decode_voice(data, LIMITS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (claim_wav(channels=1000), "1000 channels; 1 to 8"),
        (claim_wav(rate_hz=100), "100 samples per second"),
        (claim_wav(rate_hz=2_000_000), "2000000 samples per second"),
        (voice_object(b"", samples=0, channels=9), "9 channels"),
        (voice_object(b"", samples=0, rate_hz=1), "1 samples per second"),
        (voice_object(b"", samples=4_000_000_000), "declares 500000 s"),
    ],
)
def test_what_a_header_claims_is_bounded(data: bytes, message: str) -> None:
    with pytest.raises(LimitError, match=message):
        decode_voice(data, LIMITS)


def test_a_wav_that_claims_a_huge_size_gives_the_samples_it_has() -> None:
    recording = decode_voice(claim_wav(seconds=60_000), LIMITS)
    assert recording.duration_s == 1.0


@pytest.mark.parametrize(
    "limits",
    [
        Limits(audio_s=0.5),
        Limits(audio_channels=1),
        Limits(audio_lowest_hz=44_100),
        Limits(audio_highest_hz=8_000),
        Limits(file_bytes=1_000),
    ],
)
def test_each_limit_is_a_setting(limits: Limits) -> None:
    data = encode(np.stack([NOISE, NOISE], axis=1))
    assert decode_voice(data, LIMITS).channels == 2
    with pytest.raises(LimitError):
        decode_voice(data, limits)


# The page in docs


def test_the_page_on_voices_runs_and_lists_the_defaults() -> None:
    page = (Path(__file__).parent.parent / "docs" / "voice.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [listed] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    assert tomllib.loads(listed)["voice"] == SETTINGS.model_dump()
