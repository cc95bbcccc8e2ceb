"""Recordings as files and as DICOM objects, written by libsndfile and pydicom."""

import io

import numpy as np
import soundfile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

VOICE_AUDIO = UID("1.2.840.10008.5.1.4.1.1.9.4.1")
GENERAL_AUDIO = UID("1.2.840.10008.5.1.4.1.1.9.4.2")


def sine(hz: float, duration_s: float, rate_hz: int = 16_000, amplitude: float = 0.5) -> np.ndarray:
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def encode(
    samples: np.ndarray, rate_hz: int = 16_000, kind: str = "WAV", subtype: str | None = None
) -> bytes:
    """Write samples (N,) or (N, C) as an audio file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


def voice_object(
    data: bytes,
    *,
    samples: int,
    interpretation: str = "UB",
    bits: int = 8,
    channels: int = 1,
    rate_hz: float = 8_000,
    bits_stored: int | None = None,
    patient_id: str = "",
    study_uid: str = "",
    sop_class: UID = VOICE_AUDIO,
    syntax: UID = ExplicitVRLittleEndian,
) -> bytes:
    """Write a DICOM audio waveform object (PS3.3 A.34.2) around encoded samples."""
    definition = Dataset()
    definition.WaveformBitsStored = bits_stored or bits
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels = channels
    group.NumberOfWaveformSamples = samples
    group.SamplingFrequency = str(rate_hz)
    group.ChannelDefinitionSequence = [definition] * channels
    group.WaveformBitsAllocated = bits
    group.WaveformSampleInterpretation = interpretation
    group.add_new("WaveformData", "OB" if bits == 8 else "OW", data)
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid()
    ds.Modality = "AU"
    ds.PatientID = patient_id
    ds.StudyInstanceUID = study_uid
    ds.WaveformSequence = [group]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()
