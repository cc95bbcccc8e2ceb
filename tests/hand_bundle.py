"""A bundle whose graph is written by hand, so that its answers can be worked out on paper."""

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import soundfile
from jaxtyping import UInt16
from onnx import TensorProto, helper
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from medfuse.bundle import (
    GOLDEN_ANSWER,
    GRAPH,
    MODEL_CARD,
    NOVELTY,
    TOKENIZER,
    ArraySpec,
    Manifest,
    ParityReport,
    SubsetParity,
    write_bundle,
)
from medfuse.config import (
    Code,
    ImageSettings,
    Limits,
    PrepareSettings,
    Task,
    TaskKind,
)
from medfuse.data.note import read_tokenizer
from medfuse.data.prepare import collate, prepare
from medfuse.golden import GoldenAnswer, keep
from medfuse.trust.calibration import Calibration, TargetCalibration, answer
from medfuse.trust.novelty import NoveltyModel, to_bytes
from medfuse.trust.record import TrustRecord
from medfuse.types import SUBSETS, Batch, Modality, Study, subset_name

SIDE = 32
TEMPERATURE = 2.0
TASKS = (
    Task(
        name="findings",
        kind=TaskKind.MULTILABEL,
        classes=("brightness", "wordiness"),
        codes={"brightness": Code(value="1", scheme="99MED", meaning="Brightness")},
    ),
    Task(name="loudness", kind=TaskKind.REGRESSION, classes=("loudness",), unit="dB"),
)
"""Logits: the mean of the image, a tenth of the word pieces, the mean of the log-mel frames."""

SETTINGS = PrepareSettings(image=ImageSettings(size=SIDE), limits=Limits(file_bytes=2**20))
WORDS = ("[UNK]", "[CLS]", "[SEP]", "cough", "and", "fever", "[MASK]", "[PAD]")
NOTE = b"FINDINGS: cough and fever\nIMPRESSION: fever"
"""Four word pieces of which the model reads five with heading, colon and the special ones."""

INPUTS = (
    ArraySpec(name="image", dtype="float32", axes=("batch", "frames", SIDE, SIDE)),
    ArraySpec(name="image_mask", dtype="bool", axes=("batch", "frames")),
    ArraySpec(name="note", dtype="int64", axes=("batch", "pieces")),
    ArraySpec(name="note_mask", dtype="bool", axes=("batch", "pieces")),
    ArraySpec(
        name="voice", dtype="float32", axes=("batch", "mel_frames", SETTINGS.voice.mel_bands)
    ),
    ArraySpec(name="voice_mask", dtype="bool", axes=("batch", "mel_frames")),
)
OUTPUTS = (ArraySpec(name="logits", dtype="float32", axes=("batch", 3)),)


def make_dicom(
    pixels: UInt16[np.ndarray, "rows columns"],
    patient_id: str = "P1",
    study_uid: str = "1.2.3",
    study_date: str = "",
) -> bytes:
    """Write a radiograph whose window is exactly 0 to 4095."""
    ds = Dataset()
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = "1.2.3.4"
    ds.PatientID, ds.PatientName, ds.StudyInstanceUID = patient_id, "Doe^Jane", study_uid
    ds.StudyDate = study_date
    ds.Modality = "DX"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 2047.5, 4095, "LINEAR_EXACT"
    ds.PixelSpacing = [0.2, 0.2]
    ds.PixelData = pixels.tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def make_wav(seconds: float = 1.0, hz: float = 440.0) -> bytes:
    """Write a tone at half scale."""
    t = np.arange(round(16_000 * seconds)) / 16_000
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * hz * t), 16_000, format="WAV")
    return file.getvalue()


def make_study() -> Study:
    """Make a study with a grey ramp, two sections of a note, and a tone."""
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))
    return Study(images=(make_dicom(ramp),), note=NOTE, voice=make_wav())


def write_study(folder: Path, study: Study) -> None:
    """Write a study of one image into a folder of its own, as `find_studies` reads it."""
    folder.mkdir()
    (folder / "i.dcm").write_bytes(study.images[0])
    for name, data in (("n.txt", study.note), ("v.wav", study.voice)):
        if data is not None:
            (folder / name).write_bytes(data)


def make_tokenizer() -> Tokenizer:
    """Make a tokenizer of whole words."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def compute_logits(batch: Batch) -> np.ndarray:
    """Work out in NumPy what the graph must answer."""
    image = batch.values[Modality.IMAGE].mean(axis=(2, 3))
    voice = batch.values[Modality.VOICE].mean(axis=2)
    masks = [batch.masks[m] for m in Modality]
    columns = [
        np.where(masks[0], image, 0).sum(axis=1) / np.maximum(masks[0].sum(axis=1), 1),
        masks[1].sum(axis=1) / 10,
        np.where(masks[2], voice, 0).sum(axis=1) / np.maximum(masks[2].sum(axis=1), 1),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def make_graph() -> bytes:
    """Write the same as an ONNX graph."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    ten = helper.make_tensor("ten", TensorProto.FLOAT, [1], [10.0])
    nodes = []
    for name, axes in (("image", [2, 3]), ("voice", [2])):
        nodes += [
            helper.make_node("ReduceMean", [name], [f"{name}_mean"], axes=axes, keepdims=0),
            helper.make_node("Where", [f"{name}_mask", f"{name}_mean", "zero"], [f"{name}_kept"]),
            helper.make_node("ReduceSum", [f"{name}_kept", "axis"], [f"{name}_sum"], keepdims=1),
            helper.make_node("Cast", [f"{name}_mask"], [f"{name}_ones"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", [f"{name}_ones", "axis"], [f"{name}_n"], keepdims=1),
            helper.make_node("Max", [f"{name}_n", "one"], [f"{name}_least"]),
            helper.make_node("Div", [f"{name}_sum", f"{name}_least"], [f"{name}_logit"]),
        ]
    nodes += [
        helper.make_node("Cast", ["note_mask"], ["note_ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["note_ones", "axis"], ["note_n"], keepdims=1),
        helper.make_node("Div", ["note_n", "ten"], ["note_logit"]),
        # The note's values are an input of every bundle, and a graph must read its inputs.
        helper.make_node("Cast", ["note"], ["note_values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["note_values", "axis"], ["note_total"], keepdims=1),
        helper.make_node("Mul", ["note_total", "zero"], ["note_nothing"]),
        helper.make_node("Add", ["note_logit", "note_nothing"], ["note_logit_read"]),
        helper.make_node(
            "Concat", ["image_logit", "note_logit_read", "voice_logit"], ["logits"], axis=1
        ),
    ]
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
    inputs, outputs = (
        [helper.make_tensor_value_info(s.name, types[s.dtype], s.axes) for s in specs]
        for specs in (INPUTS, OUTPUTS)
    )
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "hand", inputs, outputs, [one, zero, ten, axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def make_bundle(
    folder: Path,
    graph: bytes | None = None,
    shift: float = 0.0,
    trust: TrustRecord | None = None,
    novelty: NoveltyModel | None = None,
) -> Path:
    """Write the bundle, with the golden answers moved by ``shift``, and what it promises."""
    study = make_study()
    tokenizer_json = make_tokenizer().to_str().encode()
    tokenizer = read_tokenizer(tokenizer_json)
    calibration = Calibration(
        targets={"findings.brightness": TargetCalibration(temperature=TEMPERATURE)}
    )
    logits = {
        subset_name(subset): compute_logits(
            collate([prepare(keep(study, subset), SETTINGS, tokenizer)], SETTINGS)
        )[0]
        for subset in SUBSETS
    }
    golden = GoldenAnswer(
        images=("golden/image_0.dcm",),
        note="golden/note.txt",
        voice="golden/voice.wav",
        targets=tuple(target for task in TASKS for target in task.targets),
        logits={name: tuple((row + shift).tolist()) for name, row in logits.items()},
        probabilities={
            name: tuple(
                p for task in answer(TASKS, row, calibration) for p in task.probabilities.tolist()
            )
            for name, row in logits.items()
        },
        scale=1.0,
        tolerance=1e-4,
    )
    zero = SubsetParity(studies=1, logits=0, embeddings=0, onnx_to_float64=0, torch_to_float64=0)
    manifest = Manifest(
        created=datetime(2026, 1, 1, tzinfo=UTC),
        opset=17,
        inputs=INPUTS,
        outputs=OUTPUTS,
        prepare=SETTINGS,
        tasks=TASKS,
        calibration=calibration,
        trust=trust,
        parity=ParityReport(
            tolerance=1e-5,
            provider="CPUExecutionProvider",
            scale={"logits": 1.0},
            subsets={subset_name(subset): zero for subset in SUBSETS},
            sizes=(),
        ),
        model={},
        checkpoint="0" * 64,
        training_data="0" * 64,
        metrics={},
        trained_with={},
        exported_with={},
    )
    contents = {
        GRAPH: graph or make_graph(),
        TOKENIZER: tokenizer_json,
        MODEL_CARD: b"# A model made by hand\n",
        GOLDEN_ANSWER: golden.model_dump_json().encode(),
        "golden/image_0.dcm": study.images[0],
        "golden/note.txt": study.note or b"",
        "golden/voice.wav": study.voice or b"",
    }
    if trust is not None:
        contents[NOVELTY] = to_bytes(novelty or NoveltyModel({}))
    write_bundle(folder, contents, manifest)
    return folder
