import getpass
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from medfuse.bundle import (
    ANSWER_GRAPH,
    EXPLAIN_GRAPH,
    GRAPH,
    MANIFEST,
    NOTICE,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    open_bundle,
)
from medfuse.config import NoteSettings
from medfuse.data.prepare import prepare
from medfuse.errors import BundleError, ExportError
from medfuse.golden import read_golden
from medfuse.headings import PREAMBLE, SECTION_HEADINGS
from medfuse.models.settings import ModelSettings
from medfuse.runtime import load_graph, load_weights
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.training.checkpoint import Checkpoint, load_checkpoint
from medfuse.training.report import Report
from medfuse.trust.bootstrap import Figure
from medfuse.trust.figures import SubsetReport
from medfuse.types import MODALITIES, SUBSETS, Modality, Prepared, subset_name
from medfuse_export import export
from medfuse_export.export import ExportOptions, _portable, export_bundle
from medfuse_export.graph import MEMORY, Graphs
from medfuse_export.model_card import write_model_card
from medfuse_export.parity import check_parity, measure_parity
from medfuse_export.unseen import UNSEEN, make_unseen
from tests.tiny import CALIBRATION, PREPARE, TASKS

OUTPUTS = ["logits", "image_embedding", "note_embedding", "voice_embedding", "fused"]
Feed = dict[str, np.ndarray]
QUICK = ExportOptions(certify=7)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> onnxruntime.InferenceSession:
    return load_graph(GRAPH, bundle.read(GRAPH), load_weights(bundle), "cpu")


@pytest.fixture(scope="module")
def pool(checkpoint: Checkpoint) -> list[Prepared]:
    return make_unseen(2, PREPARE, checkpoint.tokenizer)[1]


def draw_feed(batch: int, frames: int, pieces: int, mel: int, seed: int = 0) -> Feed:
    """Noise of the wanted lengths, all of it real."""
    rng = np.random.default_rng(seed)
    side, bands = PREPARE.image.size, PREPARE.voice.mel_bands
    return {
        "image": rng.random((batch, frames, side, side), dtype=np.float32),
        "image_mask": np.ones((batch, frames), dtype=bool),
        "note": rng.integers(0, 30_522, (batch, pieces)),
        "note_mask": np.ones((batch, pieces), dtype=bool),
        "voice": rng.standard_normal((batch, mel, bands), dtype=np.float32),
        "voice_mask": np.ones((batch, mel), dtype=bool),
    }


def leave_out(feed: Feed, row: int, subset: frozenset[Modality]) -> None:
    """Make one study of a batch have only some modalities."""
    for modality in MODALITIES:
        if modality not in subset:
            feed[f"{modality}_mask"][row] = False


def ask_torch(checkpoint: Checkpoint, feed: Feed) -> list[np.ndarray]:
    with torch.inference_mode():
        outputs = checkpoint.model(*(torch.from_numpy(value) for value in feed.values()))
    return [output.numpy() for output in outputs]


@pytest.mark.parametrize(
    ("batch", "frames", "pieces", "mel"),
    [(1, 1, 1, 1), (1, 5, 2, 8), (2, 1, 48, 401), (7, 3, 19, 77)],
)
def test_the_graph_answers_as_the_model_does_at_any_length(
    session: onnxruntime.InferenceSession,
    checkpoint: Checkpoint,
    batch: int,
    frames: int,
    pieces: int,
    mel: int,
) -> None:
    feed = draw_feed(batch, frames, pieces, mel)
    for row in range(1, batch):
        leave_out(feed, row, SUBSETS[row % len(SUBSETS)])
    answers = zip(session.run(OUTPUTS, feed), ask_torch(checkpoint, feed), strict=True)
    for name, (by_onnx, by_torch) in zip(OUTPUTS, answers, strict=True):
        # Noise drives the small network harder than studies do: parity's own bound is 1e-5.
        assert np.abs(by_onnx - by_torch).max() <= 2e-5 * np.abs(by_torch).max(), name


@pytest.mark.parametrize("subset", SUBSETS[:-1], ids=subset_name)
@pytest.mark.parametrize("kind", ["nan", "infinite", "huge", "noise"])
def test_the_bytes_of_an_absent_modality_change_no_bit_of_the_answer(
    session: onnxruntime.InferenceSession, subset: frozenset[Modality], kind: str
) -> None:
    feed = draw_feed(2, 2, 12, 50)
    leave_out(feed, 0, subset)
    expected = session.run(OUTPUTS, feed)
    other = draw_feed(2, 2, 12, 50, seed=1)
    fill = {"nan": np.nan, "infinite": -np.inf, "huge": 3e38}.get(kind)
    for modality in set(MODALITIES) - subset:
        if fill is None:
            feed[modality][0] = other[modality][0]
        elif modality is Modality.NOTE:
            feed[modality][0] = {"nan": -1, "infinite": -(2**63), "huge": 2**63 - 1}[kind]
        else:
            feed[modality][0] = fill
    for name, before, after in zip(OUTPUTS, expected, session.run(OUTPUTS, feed), strict=True):
        assert np.isfinite(before).all(), name
        assert before.tobytes() == after.tobytes(), name


def test_the_bytes_of_padding_change_no_bit_of_the_answer(
    session: onnxruntime.InferenceSession,
) -> None:
    feed = draw_feed(2, 3, 12, 50)
    feed["image_mask"][0, 1:] = feed["note_mask"][0, 7:] = feed["voice_mask"][0, 21:] = False
    expected = session.run(OUTPUTS, feed)
    feed["image"][0, 1:] = feed["voice"][0, 21:] = np.nan
    feed["note"][0, 7:] = 2**40
    for before, after in zip(expected, session.run(OUTPUTS, feed), strict=True):
        assert np.isfinite(before).all()
        assert before.tobytes() == after.tobytes()


def test_the_bytes_of_a_present_modality_do_change_the_answer(
    session: onnxruntime.InferenceSession,
) -> None:
    feed, other = draw_feed(1, 1, 12, 50), draw_feed(1, 1, 12, 50, seed=1)
    (expected,) = session.run(["logits"], feed)
    for modality in MODALITIES:
        (changed,) = session.run(["logits"], feed | {modality.value: other[modality]})
        assert np.abs(changed - expected).max() > 1e-2, modality


def test_the_manifest_says_of_the_graph_what_onnx_says(bundle: Bundle) -> None:
    graph = onnx.load_from_string(bundle.read(GRAPH)).graph
    for values, specs in (
        (graph.input, bundle.manifest.inputs),
        (graph.output, bundle.manifest.outputs),
    ):
        found = [
            (
                value.name,
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
                tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
            )
            for value in values
        ]
        assert found == [(spec.name, spec.dtype, spec.axes) for spec in specs]
    assert bundle.manifest.inputs[0].axes == ("batch", "frames", 64, 64)
    assert [spec.name for spec in bundle.manifest.outputs] == [*OUTPUTS, *MEMORY]
    assert sum(task.logits for task in TASKS) == bundle.manifest.outputs[0].axes[1]


def test_the_graph_carries_nothing_of_where_it_was_made(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.read(GRAPH))
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not model.metadata_props
    for node in model.graph.node:
        assert not node.doc_string, node.name
        assert not node.metadata_props, node.name


def test_any_reader_of_onnx_finds_the_weights_beside_the_graph(
    bundle: Bundle, session: onnxruntime.InferenceSession
) -> None:
    onnx.checker.check_model(str(bundle.path / GRAPH), full_check=True)
    plain = onnxruntime.InferenceSession(bundle.path / GRAPH, providers=["CPUExecutionProvider"])
    feed = draw_feed(1, 1, 12, 50)
    assert plain.run(["logits"], feed)[0].tobytes() == session.run(["logits"], feed)[0].tobytes()


def test_no_text_in_a_bundle_names_this_machine_or_its_user(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.read(GRAPH))
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    header = bundle.read(WEIGHTS)[: 2**16]
    texts = {
        name: bundle.read(name)
        for name in ("model_card.md", "golden/answer.json", "golden/note.txt")
    } | {
        MANIFEST: (bundle.path / MANIFEST).read_bytes(),
        GRAPH: model.SerializeToString(),
        WEIGHTS: header,
    }
    places = (Path(__file__).parent.parent, Path.home(), bundle.path.parent, sys.prefix)
    names = (name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 4)
    for trace in (*map(str, places), *names, "site-packages", ".py"):
        for name, text in texts.items():
            assert trace.encode() not in text, (name, trace)


def test_the_manifest_holds_what_the_checkpoint_said(
    bundle: Bundle, checkpoint: Checkpoint, tiny_checkpoint: Path
) -> None:
    manifest = bundle.manifest
    assert manifest.tasks == TASKS
    assert manifest.prepare == PREPARE
    assert manifest.calibration == CALIBRATION
    assert manifest.checkpoint == checkpoint.digest
    assert manifest.training_data == "0" * 64
    assert manifest.notice == NOTICE
    assert manifest.exported_with["torch"] == torch.__version__
    assert manifest.exported_with["onnxruntime"] == onnxruntime.__version__
    assert bundle.read(TOKENIZER) == (tiny_checkpoint / TOKENIZER).read_bytes()


def test_every_subset_and_size_is_in_the_parity_report_and_within_its_bound(
    bundle: Bundle,
) -> None:
    parity = bundle.manifest.parity
    assert parity.tolerance == 1e-5
    assert set(parity.subsets) == {subset_name(subset) for subset in SUBSETS}
    for name, subset in parity.subsets.items():
        assert 0 < subset.logits <= 1e-5, name
        assert 0 < subset.embeddings <= 1e-5, name
        # Rounding differs, and neither side is the more exact one by an order of magnitude.
        assert subset.onnx_to_float64 <= 10 * max(subset.torch_to_float64, 1e-7), name
    assert {size.batch for size in parity.sizes} == {1, 3, 8}
    assert {size.mel_frames % 2 for size in parity.sizes} == {0, 1}
    assert min(size.word_pieces for size in parity.sizes) == 3
    assert max(size.word_pieces for size in parity.sizes) == PREPARE.note.word_pieces


def test_the_golden_answers_are_those_of_the_model(
    bundle: Bundle, session: onnxruntime.InferenceSession, checkpoint: Checkpoint
) -> None:
    golden = read_golden(bundle)
    for study, subset in zip(golden.studies, SUBSETS, strict=True):
        one = prepare(study, PREPARE, checkpoint.tokenizer)
        assert one.present == subset
    assert one.image is not None
    assert one.note is not None
    assert one.voice is not None
    parts = (one.image.values, one.note.values, one.voice.values)
    feed: dict[str, Any] = {m.value: x[None] for m, x in zip(MODALITIES, parts, strict=True)}
    feed |= {f"{m}_mask": np.ones(feed[m].shape[:2], dtype=bool) for m in MODALITIES}
    (logits,) = session.run(["logits"], feed)
    expected = golden.answer.logits[subset_name(SUBSETS[-1])]
    np.testing.assert_allclose(logits[0], expected, atol=1e-5 * golden.answer.scale)
    assert golden.answer.targets == tuple(target for task in TASKS for target in task.targets)


def test_serving_gives_the_golden_answers(tiny_bundle: Path) -> None:
    from medfuse_serving.predictor import Predictor

    predictor = Predictor(tiny_bundle, "cpu")
    assert predictor.check_golden() <= 1e-5
    golden = read_golden(predictor.bundle)
    for subset, prediction in zip(SUBSETS, predictor.predict(golden.studies), strict=True):
        said = np.concatenate([task.probabilities for task in prediction.tasks])
        # Each subset has its own calibration.
        expected = golden.answer.probabilities[subset_name(subset)]
        np.testing.assert_allclose(said, expected, atol=1e-5)


def test_the_model_card_says_what_a_reader_must_know(bundle: Bundle) -> None:
    card = bundle.read("model_card.md").decode()
    assert card == write_model_card(bundle.manifest)
    assert NOTICE in card
    for wanted in (
        *(name for task in TASKS for name in task.classes),
        *(f"| {subset_name(subset)} |" for subset in SUBSETS),
        bundle.manifest.training_data,
        bundle.manifest.checkpoint,
        "IMPRESSION",
        "nothing is known of how well it answers",
    ):
        assert wanted in card, wanted


def test_the_model_card_shows_the_figures_of_training(bundle: Bundle) -> None:
    auroc = Figure(value=0.912, low=0.871, high=0.944)
    targets = {target: {"auroc": auroc} for task in TASKS for target in (task.name, *task.targets)}
    report = Report(
        studies={"train": 700, "test": 200},
        patients=613,
        excluded={},
        folds=0,
        epochs=(12,),
        seconds={},
        subsets={"note": SubsetReport(studies=171, patients=150, targets=targets)},
        gains=(),
    )
    metrics = report.model_dump(mode="json")
    card = write_model_card(bundle.manifest.model_copy(update={"metrics": metrics}))
    assert "613 patients" in card
    assert "| note | 171 | 0.912 [0.871, 0.944] |" in card
    headings = [line for line in card.splitlines() if line.startswith("# ")]
    assert headings == ["# Model card"]


def test_metrics_of_another_version_are_refused(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"metrics": {"accuracy": 0.9}})
    with pytest.raises(ExportError, match="another version"):
        write_model_card(manifest)


def test_no_cohort_can_hold_the_studies_that_export_uses() -> None:
    assert CohortOptions(studies=UNSEEN).studies == UNSEEN  # numbers 0 to UNSEEN - 1
    with pytest.raises(ValidationError, match="studies"):
        CohortOptions(studies=UNSEEN + 1)


@pytest.mark.parametrize(
    "note",
    [
        NoteSettings(),
        NoteSettings(include_sections=("FINDINGS",)),
        NoteSettings(include_sections=("PREAMBLE",)),
        NoteSettings(include_sections=("OUR PART",), headings={"OUR HEADING": "OUR PART"}),
        NoteSettings(exclude_sections=("INDICATION", "HISTORY", "PHYSICAL EXAM", "PLAN")),
    ],
)
def test_unseen_studies_have_a_note_whichever_sections_the_settings_read(
    checkpoint: Checkpoint, note: NoteSettings
) -> None:
    settings = PREPARE.model_copy(update={"note": note})
    studies, prepared = make_unseen(1, settings, checkpoint.tokenizer)
    expected = make_study(CohortOptions(), UNSEEN).study
    assert studies[0].images == expected.images
    assert studies[0].voice == expected.voice
    assert (studies[0].note == expected.note) == (note == NoteSettings())
    assert prepared[0].note is not None
    read = checkpoint.tokenizer.decode(prepared[0].note.values.tolist())
    assert "breathless for three days" in read.lower()


def test_settings_that_leave_nothing_of_any_note_are_refused(checkpoint: Checkpoint) -> None:
    note = NoteSettings(exclude_sections=(*SECTION_HEADINGS, PREAMBLE))
    settings = PREPARE.model_copy(update={"note": note})
    with pytest.raises(ExportError, match="Nothing of the note is left"):
        make_unseen(1, settings, checkpoint.tokenizer)


@pytest.mark.parametrize(
    ("part", "alone"),
    [("image.adapter", "image"), ("note.adapter", "note"), ("voice.adapter", "voice")],
)
def test_a_graph_with_one_weight_altered_fails_parity(
    bundle: Bundle, checkpoint: Checkpoint, pool: list[Prepared], part: str, alone: str
) -> None:
    model = onnx.load_from_string(bundle.read(GRAPH))
    tensor = next(t for t in model.graph.initializer if t.name.startswith(part) and len(t.dims) < 2)
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[0] += 0.01
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    changed = load_graph(GRAPH, model.SerializeToString(), load_weights(bundle), "cpu")
    report = measure_parity(changed, checkpoint.model, PREPARE, pool, 1e-5, lambda done: None)
    with pytest.raises(ExportError, match=r"differs from the model by .* no bundle was written"):
        check_parity(report)
    for subset in SUBSETS:
        parity = report.subsets[subset_name(subset)]
        assert (parity.logits > 1e-5) == (alone in subset), subset


def test_a_model_that_answers_not_a_number_fails_parity(
    session: onnxruntime.InferenceSession, tiny_checkpoint: Path, pool: list[Prepared]
) -> None:
    model = load_checkpoint(tiny_checkpoint).model.requires_grad_(False)
    next(model.heads.parameters())[0] = torch.nan
    with pytest.raises(ExportError, match="not a number"):
        measure_parity(session, model, PREPARE, pool, 1e-5, lambda done: None)


def test_export_does_not_touch_a_folder_that_is_not_a_bundle(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="left alone"):
        export_bundle(tiny_checkpoint, tmp_path, lambda step, done: None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_an_export_that_fails_parity_leaves_the_old_bundle_as_it_was(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No two float32 implementations agree to 1e-12."""
    old = open_bundle(tiny_bundle)
    # What tracing it once more would give.
    traced = Graphs(
        predict=old.read(GRAPH),
        answer=old.read(ANSWER_GRAPH),
        explain=old.read(EXPLAIN_GRAPH),
        embedding="",
        weights=old.read(WEIGHTS),
    )
    monkeypatch.setattr(export, "export_graphs", lambda *given, **options: traced)
    (tmp_path / "bundles").mkdir()
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundles" / "bundle"))
    with pytest.raises(ExportError, match="1e-12 is allowed"):
        export_bundle(
            tiny_checkpoint, folder, lambda step, done: None, tolerance=1e-12, options=QUICK
        )
    assert open_bundle(folder).digest == old.digest
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["bundle"]


@pytest.mark.slow
def test_the_command_exports_the_same_graph_again_and_prints_its_parity(
    least_checkpoint: Path, least_bundle: Path, tmp_path: Path
) -> None:
    """In a process of its own, as users do: also what the libraries would print is seen."""
    place = tmp_path / "bundle"
    command = [sys.executable, "-m", "medfuse", "export", str(least_checkpoint), str(place)]
    command += ["--certify", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    old, new = open_bundle(least_bundle), open_bundle(place)
    assert new.manifest.text is not None
    for name in (GRAPH, ANSWER_GRAPH, EXPLAIN_GRAPH, WEIGHTS):
        assert new.read(name) == old.read(name), name
    assert new.read("golden/answer.json") == old.read("golden/answer.json")
    for subset in SUBSETS:
        assert subset_name(subset) in done.stdout
    assert str(place) in done.stdout
    for noise in ("Warning", "warn", "torchvision", "Traceback", "torch.onnx"):
        assert noise not in done.stdout + done.stderr


def test_a_manifest_names_folders_of_this_machine_by_their_last_part_alone() -> None:
    settings = ModelSettings(image=Path("/home/ada/vit"), note=Path("/home/ada/roberta"))
    named = _portable(settings)
    assert (named["image"], named["note"], named["voice"]) == ("vit", "roberta", "cnn")
