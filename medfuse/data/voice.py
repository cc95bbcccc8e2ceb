"""A recording's bytes in; its waveform, its log-mel spectrogram and what is wrong with it out."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import scipy.fft
import soundfile
import soxr
from jaxtyping import Float32, Float64, Shaped
from pydicom import Dataset

from medfuse.config import SAMPLE_RATE, Limits, VoiceSettings
from medfuse.data.dicom import read_dataset
from medfuse.data.dicom_bounds import refuse_faults
from medfuse.errors import DicomError, LimitError, VoiceError
from medfuse.types import Modality, PreparedVoice, Remark

FLOOR = 1e-10
"""Mel power below which nothing is told apart: -100 dB under a full-scale sine."""

SILENCE = -1.0
"""The log-mel of silence."""

VOICE_OBJECTS = {
    "1.2.840.10008.5.1.4.1.1.9.4.1": "Basic Voice Audio Waveform Storage",
    "1.2.840.10008.5.1.4.1.1.9.4.2": "General Audio Waveform Storage",
}
"""The DICOM waveform objects that hold sound (PS3.4 B.5)."""

_SCALE = 2 / math.log(FLOOR)

# Kilobits per second by the four bits of an MP3 frame's header, for MPEG 2 and 2.5, and for MPEG 1.
_MP3_KBPS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_MP3_SLACK = 4 * 1152  # samples: the header's own frame, the encoder's delay, and padding
_MP3_MISSES = 10_000  # bytes 0xFF that start no frame; tags and damage bring some

_BLOCK = 2**16  # sample frames decoded at once
_LOUDEST = 16.0  # times full scale; float samples beyond it are no sound level

# libsndfile reads two dozen formats; only these reach it.
_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3")
_FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"}

# The largest value a sample can have below 1, by which clipping shows (ITU-T G.711 for the laws).
_FULL_SCALE = {"PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 0.984375}
_FULL_SCALE_ELSE = 32766 / 32768


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded recording.

    Attributes:
        waveform: All channels averaged, at `SAMPLE_RATE`.
        duration_s: Length of the recording.
        rate_hz: Sample rate it came with.
        channels: Channels it came with.
        clipped: Share of its samples that stand at full scale beside another one that does.
        complete: Whether all of the file that its header declares is there.
    """

    waveform: Float32[np.ndarray, " n"]
    duration_s: float
    rate_hz: int
    channels: int
    clipped: float
    complete: bool = True


def decode_voice(data: bytes, limits: Limits) -> Recording:
    """Decode WAV, FLAC, OGG, MP3 or a DICOM audio waveform object to mono at `SAMPLE_RATE`.

    Length, rate and channels are checked in the header before any sample is decoded, and the
    length again while decoding, block by block, since headers may not tell the truth.

    Raises:
        LimitError: It is longer, or has more channels or another rate, than `Limits` allows.
        VoiceError: It is not one of these formats, or is damaged.
    """
    if len(data) > limits.file_bytes:
        raise LimitError(
            f"the recording has {len(data)} bytes; at most {limits.file_bytes} are read"
        )
    if is_voice_object(data):
        return _decode_object(data, limits)
    # An MP3 without a tag starts with a frame: eleven bits set.
    frame = len(data) > 1 and data[0] == 0xFF and data[1] >= 0xE0
    if not frame and not data.startswith(_MAGIC):
        raise VoiceError(
            "the recording's format is not known; expected WAV, FLAC, OGG, MP3 or a DICOM audio "
            "waveform object"
        )
    return _decode_file(data, limits)


def is_voice_object(data: bytes) -> bool:
    """Tell a DICOM object by its prefix, or without one by its first group number."""
    return data[128:132] == b"DICM" or data[:2] in {b"\x02\x00", b"\x08\x00", b"\x00\x08"}


def read_voice_object(data: bytes, limits: Limits) -> Dataset:
    """Parse a DICOM audio waveform object.

    Parsing copies the samples, so its size has a limit of its own, before and after inflation.

    Raises:
        LimitError: It is larger than ``limits.audio_object_bytes``, or nests too deep.
        VoiceError: It is not a DICOM object, or is damaged.
    """
    most = limits.audio_object_bytes
    if len(data) > most:
        raise LimitError(
            f"the recording's DICOM object has {len(data)} bytes; at most {most} are read"
        )
    inflated = min(most, limits.inflated_bytes)
    try:
        return read_dataset(data, limits.model_copy(update={"inflated_bytes": inflated}))
    except DicomError as error:
        raise VoiceError(f"the recording's DICOM object cannot be read: {error}") from error


def log_mel(
    waveform: Float32[np.ndarray, " n"], settings: VoiceSettings
) -> Float32[np.ndarray, "t f"]:
    """Compute a waveform's log-mel spectrogram, from -1 (silence) to about 1 (full scale).

    Frames of ``window_s`` every ``step_s``, none beyond the ends (a shorter waveform is padded
    with silence to one frame); periodic Hann window; power spectrum, scaled so that a full-scale
    sine in the middle of a bin has power 1; triangles of height 1, evenly spaced from ``low_hz`` to
    ``high_hz`` on the HTK mel scale, ``2595 log10(1 + f / 700)``, or on Slaney's; then
    ``1 - 2 ln(max(power, FLOOR)) / ln(FLOOR)``. The scale is the same for every recording, so
    loudness and silence stay what they are. Bands that reach above ``lowpass_hz`` are silent to the
    last bit, which no filter of the waveform would make them.
    """
    window = _window(settings)
    bank = _mel_bank(settings)
    step = _step(settings)
    if len(waveform) < len(window):
        waveform = np.pad(waveform, (0, len(window) - len(waveform)))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, len(window))[::step]  # (T, N)
    size = 2 * (bank.shape[0] - 1)
    spectrum = scipy.fft.rfft(frames * window, size)  # (T, size / 2 + 1)
    power = (spectrum.real**2 + spectrum.imag**2) @ bank
    scaled: Float32[np.ndarray, "t f"] = 1 - _SCALE * np.log(np.maximum(power, FLOOR))
    if settings.lowpass_hz < settings.high_hz:
        scaled[:, mel_corners_hz(settings)[2:] > settings.lowpass_hz] = SILENCE
    return scaled


def prepare_voice(
    data: bytes, settings: VoiceSettings, limits: Limits
) -> tuple[PreparedVoice, tuple[Remark, ...]]:
    """Turn a recording into log-mel frames, and say what is wrong with it.

    Raises:
        LimitError: It is longer, or has more channels or another rate, than `Limits` allows.
        VoiceError: It is not a recording that can be read, or is shorter than ``shortest_s``.
    """
    recording = decode_voice(data, limits)
    if recording.duration_s < settings.shortest_s:
        raise VoiceError(
            f"the recording lasts {recording.duration_s:.2f} s; at least {settings.shortest_s:g} s "
            "are needed"
        )
    waveform = recording.waveform[: round(settings.duration_s * SAMPLE_RATE)]
    remarks = []
    if recording.duration_s > settings.duration_s:
        message = (
            f"The recording lasts {recording.duration_s:.1f} s; the first "
            f"{settings.duration_s:g} s were used."
        )
        remarks.append(Remark(Modality.VOICE, "voice-cut", message))
    if _loudest_db(waveform, len(_window(settings))) < settings.silent_db:
        message = f"The recording is silent: never louder than {settings.silent_db:g} dBFS."
        remarks.append(Remark(Modality.VOICE, "voice-silent", message))
    if recording.clipped > settings.clipped_share:
        message = f"The recording is clipped: {recording.clipped:.1%} of its samples."
        remarks.append(Remark(Modality.VOICE, "voice-clipped", message))
    if not recording.complete:
        message = "The recording's file breaks off before the end that its header declares."
        remarks.append(Remark(Modality.VOICE, "voice-incomplete", message))
    if recording.rate_hz < 2 * settings.high_hz:
        message = (
            f"The recording was made at {recording.rate_hz} Hz; it holds nothing above "
            f"{recording.rate_hz / 2:g} Hz, and up to {settings.high_hz:g} Hz is read."
        )
        remarks.append(Remark(Modality.VOICE, "voice-narrow-band", message))
    prepared = PreparedVoice(
        values=log_mel(waveform, settings),
        start_s=len(_window(settings)) / 2 / SAMPLE_RATE,
        step_s=_step(settings) / SAMPLE_RATE,
        duration_s=recording.duration_s,
    )
    return prepared, tuple(remarks)


def mel_corners_hz(settings: VoiceSettings) -> Float64[np.ndarray, " corners"]:
    """Give the corners of the mel triangles: band ``i`` peaks at corner ``i + 1``.

    They are evenly spaced on the mel scale of the settings; there are two more than bands.
    """
    to_mel, to_hz = _MEL_SCALES[settings.mel_scale]
    low, high = to_mel(np.array([settings.low_hz, settings.high_hz]))
    return to_hz(np.linspace(low, high, settings.mel_bands + 2))


Numbers = Float64[np.ndarray, " n"]

# Slaney's (Auditory Toolbox, 1998): linear to 1 kHz, then 27 steps for each factor of 6.4.
_LINEAR_HZ, _LINEAR_MEL, _LOG_STEP = 1000.0, 15.0, math.log(6.4) / 27


def _to_htk(hz: Numbers) -> Numbers:
    return np.asarray(2595 * np.log10(1 + hz / 700))


def _from_htk(mel: Numbers) -> Numbers:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


def _to_slaney(hz: Numbers) -> Numbers:
    above = _LINEAR_MEL + np.log(np.maximum(hz, _LINEAR_HZ) / _LINEAR_HZ) / _LOG_STEP
    return np.where(hz < _LINEAR_HZ, hz * _LINEAR_MEL / _LINEAR_HZ, above)


def _from_slaney(mel: Numbers) -> Numbers:
    above = _LINEAR_HZ * np.exp(_LOG_STEP * (mel - _LINEAR_MEL))
    return np.where(mel < _LINEAR_MEL, mel * _LINEAR_HZ / _LINEAR_MEL, above)


_MEL_SCALES = {"htk": (_to_htk, _from_htk), "slaney": (_to_slaney, _from_slaney)}


def _decode_file(data: bytes, limits: Limits) -> Recording:
    try:
        with _Stream(io.BytesIO(data)) as file:
            if file.format not in _FORMATS:
                raise VoiceError(
                    f"the recording's format {file.format} is not read; expected WAV, FLAC, OGG "
                    "or MP3"
                )
            mp3 = file.format == "MP3"
            declared = _count_mp3(data, limits) if mp3 else file.frames
            _check_declared(declared, file.samplerate, file.channels, limits)
            full_scale = _FULL_SCALE.get(file.subtype, _FULL_SCALE_ELSE)
            recording = _gather(
                _read_blocks(file), file.samplerate, file.channels, full_scale, limits
            )
    except soundfile.SoundFileError as error:
        raise VoiceError("the recording cannot be decoded: its file is damaged") from error
    if mp3 and recording.duration_s * recording.rate_hz < declared - _MP3_SLACK:
        raise VoiceError(
            "the MP3 holds more sound than its header tells, or is damaged; send it as WAV or FLAC"
        )
    return replace(recording, complete=mp3 or _is_complete(data))


def _is_complete(data: bytes) -> bool:
    """Tell whether a WAV file is as long as its first chunk says; others are taken as complete.

    A writer that can't go back, such as one into a pipe, leaves 0 or a number near 2**31 or 2**32.
    """
    size = int.from_bytes(data[4:8], "little")
    return not data.startswith(b"RIFF") or size >= 0x7FFF_0000 or 8 + size <= len(data) + 1


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is only read onward.

    soundfile seeks after every read of a seekable file, which changes the samples of an MP3 and
    fails where a FLAC does not say its length.
    """

    def seekable(self) -> bool:
        return False


def _read_blocks(file: _Stream) -> Iterator[Float32[np.ndarray, "n c"]]:
    # Reading into a buffer goes on to the true end, whatever length the header declares.
    buffer = np.empty((_BLOCK, file.channels), dtype=np.float32)
    while len(block := file.read(out=buffer)):
        yield block


def _gather(
    blocks: Iterator[Float32[np.ndarray, "n c"]],
    rate_hz: int,
    channels: int,
    full_scale: float,
    limits: Limits,
) -> Recording:
    """Mix, resample and count block by block, and stop where the recording gets too long."""
    resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE, 1, dtype="float32")
    parts, frames, clipped = [], 0, 0
    before = np.zeros((1, channels), dtype=bool)  # whether the last sample stood at full scale
    for block in blocks:
        frames += len(block)
        if frames > limits.audio_s * rate_hz:
            raise LimitError(f"the recording is longer than {limits.audio_s:g} s")
        # The comparison fails for NaN too.
        if not (np.abs(block).max() <= _LOUDEST):
            raise VoiceError(
                "the recording's samples are not finite or far beyond full scale; expected "
                "samples from -1 to 1"
            )
        at_edge = np.concatenate([before, np.abs(block) >= full_scale])
        clipped += int(np.count_nonzero(at_edge[1:] & at_edge[:-1]))
        before = at_edge[-1:]
        parts.append(resampler.resample_chunk(block.mean(axis=1)))
    if not frames:
        raise VoiceError("the recording has no samples")
    parts.append(resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    return Recording(
        waveform=np.concatenate(parts),
        duration_s=frames / rate_hz,
        rate_hz=rate_hz,
        channels=channels,
        clipped=clipped / (frames * channels),
    )


def _count_mp3(data: bytes, limits: Limits) -> int:
    """Count the samples in an MP3's frames, up to the limit (ISO/IEC 11172-3 and 13818-3, 2.4.1).

    libsndfile has only an estimate where the header does not give the length, and stops there.
    """
    samples, misses = 0, 0
    at = 10 + _read_tag_size(data) if data.startswith(b"ID3") else 0
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        version, layer = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3
        bit_rate, rate = data[at + 2] >> 4, data[at + 2] >> 2 & 3
        sync = data[at + 1] >= 0xE0 and version != 1 and layer == 1  # 1 stands for layer III
        if not sync or bit_rate in {0, 15} or rate == 3:
            at += 1
            misses += 1
            if misses > _MP3_MISSES:
                raise VoiceError("the recording cannot be decoded: its MP3 frames are damaged")
            continue
        kbps, halvings = _MP3_KBPS[version == 3][bit_rate], {3: 0, 2: 1, 0: 2}[version]
        rate_hz = (44_100, 48_000, 32_000)[rate] >> halvings
        length = 1152 if version == 3 else 576
        samples += length
        if samples > limits.audio_s * rate_hz:
            break
        at += length // 8 * 1000 * kbps // rate_hz + (data[at + 2] >> 1 & 1)
    return samples


def _read_tag_size(data: bytes) -> int:
    """Read the size of an ID3v2 tag: four times seven bits."""
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return size


def _check_declared(frames: int, rate_hz: int, channels: int, limits: Limits) -> None:
    if not limits.audio_lowest_hz <= rate_hz <= limits.audio_highest_hz:
        raise LimitError(
            f"the recording has {rate_hz} samples per second; {limits.audio_lowest_hz} to "
            f"{limits.audio_highest_hz} are read"
        )
    if not 1 <= channels <= limits.audio_channels:
        raise LimitError(
            f"the recording has {channels} channels; 1 to {limits.audio_channels} are read"
        )
    # libsndfile gives the largest 64-bit number where a stream does not say its length.
    if limits.audio_s * rate_hz < frames < 2**63 - 1:
        raise LimitError(
            f"the recording declares {frames / rate_hz:.0f} s; at most {limits.audio_s:g} s are "
            "read"
        )


def _decode_object(data: bytes, limits: Limits) -> Recording:
    """Decode a DICOM audio waveform object (PS3.3 A.34.2, A.34.10 and C.10.9)."""
    ds = read_voice_object(data, limits)
    try:
        with refuse_faults("its waveform is damaged"):
            samples = _read_samples(ds, limits)
    except DicomError as error:
        raise VoiceError(f"the recording's DICOM object cannot be read: {error}") from error
    return _gather(
        samples.to_blocks(), samples.rate_hz, samples.stored.shape[1], samples.full_scale, limits
    )


@dataclass(frozen=True, slots=True)
class _Samples:
    """The samples of a DICOM waveform as they are stored.

    Attributes:
        stored: Integers, in their own byte order.
        bits: How many bits of each hold the sample.
        table: The value of each byte where a law encodes them, else None.
        rate_hz: Samples per second.
    """

    stored: Shaped[np.ndarray, "n c"]
    bits: int
    table: Float32[np.ndarray, "256"] | None
    rate_hz: int

    @property
    def full_scale(self) -> float:
        """The largest value below 1."""
        return 1 - 2.0 ** (1 - self.bits) if self.table is None else float(self.table.max())

    def to_blocks(self) -> Iterator[Float32[np.ndarray, "n c"]]:
        """Give the values, from -1 to 1, block by block."""
        scale = 2.0 ** (self.bits - 1)
        middle = scale if self.stored.dtype.kind == "u" else 0.0
        for start in range(0, len(self.stored), _BLOCK):
            block = self.stored[start : start + _BLOCK]
            if self.table is not None:
                yield self.table[block]
            else:
                yield ((block.astype(np.float64) - middle) / scale).astype(np.float32)


def _read_samples(ds: Dataset, limits: Limits) -> _Samples:
    """Read the samples of a waveform object whose header fits them."""
    if ds.get("SOPClassUID") not in VOICE_OBJECTS:
        raise VoiceError(
            "the recording's DICOM object holds no sound; expected "
            + " or ".join(VOICE_OBJECTS.values())
        )
    groups = ds.get("WaveformSequence") or []
    if len(groups) != 1:
        raise VoiceError(f"WaveformSequence has {len(groups)} items; expected 1")
    group = groups[0]
    channels = int(group.get("NumberOfWaveformChannels") or 0)
    frames = int(group.get("NumberOfWaveformSamples") or 0)
    rate_hz = round(float(group.get("SamplingFrequency") or 0))
    _check_declared(frames, rate_hz, channels, limits)
    interpretation = str(group.get("WaveformSampleInterpretation"))
    if interpretation not in _INTERPRETATIONS:
        raise VoiceError(
            "WaveformSampleInterpretation is not supported; expected one of "
            + ", ".join(_INTERPRETATIONS)
        )
    kind = _INTERPRETATIONS[interpretation]
    allocated = 8 * np.dtype(kind).itemsize
    if group.get("WaveformBitsAllocated") != allocated:
        raise VoiceError(
            f"WaveformBitsAllocated is not {allocated}, which WaveformSampleInterpretation "
            f"{interpretation} needs"
        )
    data = group.get("WaveformData") or b""
    size = frames * channels * allocated // 8
    if not size <= len(data) <= size + 1:  # one byte may pad it to an even length
        raise VoiceError(f"WaveformData has {len(data)} bytes; its header declares {size}")
    # WaveformData is a plain array of bytes to pydicom, so a big-endian object's stays big-endian.
    _, little_endian = ds.original_encoding
    dtype = np.dtype(kind).newbyteorder("<" if little_endian is not False else ">")
    stored = np.frombuffer(data, dtype, count=frames * channels).reshape(frames, channels)
    return _Samples(stored, _bits_stored(group, allocated), _LAWS.get(interpretation), rate_hz)


def _bits_stored(group: Dataset, allocated: int) -> int:
    """Read how many of the allocated bits hold the sample, which must be one for all channels."""
    definitions = group.get("ChannelDefinitionSequence") or []
    stored = {int(item.get("WaveformBitsStored") or allocated) for item in definitions}
    if len(stored) > 1 or not stored <= set(range(2, allocated + 1)):
        raise VoiceError(f"WaveformBitsStored {sorted(stored)} is not supported; expected one")
    return stored.pop() if stored else allocated


def _expand_mu_law() -> Float32[np.ndarray, "256"]:
    """Tabulate the mu-law of ITU-T G.711: the value of each byte, from -1 to 1."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    magnitude = ((mantissa * 8 + 132) << exponent) - 132
    signed = np.where(code & 128, -magnitude, magnitude)
    return np.asarray(signed / 32768, dtype=np.float32)


def _expand_a_law() -> Float32[np.ndarray, "256"]:
    """Tabulate the A-law of ITU-T G.711: the value of each byte, from -1 to 1."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    magnitude = np.where(
        exponent == 0, mantissa * 16 + 8, (mantissa * 16 + 264) << np.maximum(exponent - 1, 0)
    )
    signed = np.where(code & 128, magnitude, -magnitude)
    return np.asarray(signed / 32768, dtype=np.float32)


_LAWS = {"MB": _expand_mu_law(), "AB": _expand_a_law()}

# PS3.3 C.10.9.1.5: what a sample is; unsigned ones have their zero in the middle.
_INTERPRETATIONS = {
    "SB": "i1",
    "UB": "u1",
    "MB": "u1",
    "AB": "u1",
    "SS": "i2",
    "US": "u2",
    "SL": "i4",
    "UL": "u4",
}


def _loudest_db(waveform: Float32[np.ndarray, " n"], window: int) -> float:
    """Measure the loudest window's level in dB under a full-scale square wave; 0 power is -200."""
    energy = np.cumsum(np.concatenate([[0.0], waveform.astype(np.float64) ** 2]))
    window = min(window, len(waveform))
    power = float((energy[window:] - energy[:-window]).max()) / window
    return 10 * float(np.log10(max(power, 1e-20)))


def _step(settings: VoiceSettings) -> int:
    return max(1, round(settings.step_s * SAMPLE_RATE))


@cache
def _window(settings: VoiceSettings) -> Float32[np.ndarray, " n"]:
    """Build a periodic Hann window, scaled so that a full-scale sine has power 1."""
    n = max(2, round(settings.window_s * SAMPLE_RATE))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    return np.asarray(2 * window / window.sum(), dtype=np.float32)


@cache
def _mel_bank(settings: VoiceSettings) -> Float32[np.ndarray, "n f"]:
    """Build the mel triangles over the bins of an FFT that is fine enough for the narrowest."""
    corners = mel_corners_hz(settings)
    # Bins no further apart than the first corners, so that every triangle holds at least one.
    finest = SAMPLE_RATE / (corners[1] - corners[0])
    window = len(_window(settings))
    size = 2 ** int(np.ceil(np.log2(max(finest, window))))
    if settings.mel_scale == "slaney" and window % 2 == 0 and finest <= window:
        size = window  # librosa's own, whose triangles fall on these bins
    bins = np.arange(size // 2 + 1)[:, None] * SAMPLE_RATE / size
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.asarray(np.maximum(0, np.minimum(rising, falling)), dtype=np.float32)
