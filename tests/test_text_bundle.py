"""Findings text in a bundle: as torch writes it, in JSON and on screen, and scored by hand."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from medfuse.audit.findings_text import ALL, Written, lies_on, measure
from medfuse.bundle import GOLDEN_ANSWER, TEXT_GRAPH, Bundle, open_bundle, write_bundle
from medfuse.cli import build_app
from medfuse.data.prepare import collate
from medfuse.errors import BundleError, ExportError
from medfuse.golden import read_golden
from medfuse.models.decoder import TorchWriter
from medfuse.runtime import load_weights, open_writer
from medfuse.synthetic.evidence import ImageEvidence, NoteEvidence, VoiceEvidence
from medfuse.synthetic.findings import name_sides, write_findings
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import SyntheticStudy, Truth, make_study
from medfuse.synthetic.world import TARGETS
from medfuse.text.writing import write_drafts
from medfuse.training.checkpoint import load_checkpoint
from medfuse.types import (
    MODALITIES,
    SUBSETS,
    FindingsText,
    ImagePlace,
    Modality,
    NotePlace,
    Sentence,
    SentenceEvidence,
    VoicePlace,
)
from medfuse_export.text_parity import check_text_parity, remember
from medfuse_serving.answer import to_answer, to_json
from medfuse_serving.commands import print_answer
from medfuse_serving.findings_text import findings_text
from medfuse_serving.language import ENGLISH
from medfuse_serving.predictor import Predictor
from medfuse_serving.rendering import answer_html
from tests.test_findings_text import make_prepared
from tests.tiny import SENTENCES, TEXT

IMAGE, NOTE, VOICE = MODALITIES


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor(tiny_bundle)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def test_the_bundle_writes_what_torch_writes_and_reads_where_it_reads(
    predictor: Predictor, tiny_checkpoint: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    assert checkpoint.record.text == TEXT
    assert checkpoint.model.decoder is not None
    assert predictor.writer is not None
    writer = TorchWriter(checkpoint.model.decoder)
    studies = read_golden(predictor.bundle).studies
    for one in predictor.prepare(studies):
        batch = collate([one], checkpoint.prepare)
        tokens, mask = remember(checkpoint.model, batch)
        known = write_drafts(writer, tokens[0], mask[0], range(6))
        given = predictor._run(["memory", "memory_mask"], batch)
        said = write_drafts(predictor.writer, given[0][0], given[1][0], range(6))
        for ours, theirs in zip(said, known, strict=True):
            assert ours is not None
            assert theirs is not None
            assert ours.words.tolist() == theirs.words.tolist()
            np.testing.assert_allclose(ours.reading, theirs.reading, atol=1e-5)
            assert ours.likelihood == pytest.approx(theirs.likelihood, abs=1e-5)


def test_parity_is_in_the_manifest_for_every_subset_and_is_held_to_its_bound(
    bundle: Bundle,
) -> None:
    text = bundle.manifest.text
    assert text is not None
    assert len(text.parity.subsets) == len(SUBSETS)
    for subset in text.parity.subsets.values():
        assert max(subset.memory, subset.logits, subset.energy) < 1e-5
        assert subset.alike == subset.sentences == 18
    check_text_parity(text.parity)
    card = bundle.read("model_card.md").decode()
    assert "| findings.embolism | never stated |" in card
    assert "126 of 126 sentences" in card
    off = text.parity.subsets["note"].model_copy(update={"energy": 2e-5})
    subsets = text.parity.subsets | {"note": off}
    with pytest.raises(ExportError, match=r"2\.0e-05 on studies with note"):
        check_text_parity(text.parity.model_copy(update={"subsets": subsets}))


def test_an_absent_modality_changes_no_bit_of_what_is_said(predictor: Predictor) -> None:
    (one,) = predictor.prepare(read_golden(predictor.bundle).studies[:1])
    batch = collate([one], predictor.bundle.manifest.prepare)
    assert not batch.masks[VOICE].any()
    noise = np.random.default_rng(0).normal(size=batch.values[VOICE].shape).astype(np.float32)
    wild = replace(batch, values={**batch.values, VOICE: noise, NOTE: batch.values[NOTE] + 9})
    for ours, other in zip(
        predictor._run(["memory", "memory_mask"], batch),
        predictor._run(["memory", "memory_mask"], wild),
        strict=True,
    ):
        assert np.array_equal(ours, other)


def test_the_answer_carries_each_stated_finding_with_its_evidence(predictor: Predictor) -> None:
    for subset, study in zip(SUBSETS, read_golden(predictor.bundle).studies, strict=True):
        (prediction,) = predictor.predict([study])
        assert prediction.text is not None
        first, third = prediction.text.sentences
        assert (first.text, third.text) == (SENTENCES[0], SENTENCES[2])
        assert first.probability == prediction.tasks[0].probabilities[0]
        assert set(first.evidence.shares) == subset
        # This decoder was taught to say the same of any study, so it may owe nothing to one.
        shares = first.evidence.shares
        assert sum(shares.values()) in (0.0, pytest.approx(1.0))
        assert first.evidence.pointed == {m for m, share in shares.items() if share >= 0.2}
    answer = to_answer(prediction)
    said = json.loads(to_json(answer))["findings_text"]
    assert [s["target"] for s in said["sentences"]] == [TEXT.findings[0], TEXT.findings[2]]
    assert said["left_out"] == [TEXT.findings[i] for i in (1, 3, 4, 5)]
    assert "not proof" in said["notice"]
    console = Console(record=True, width=200)
    print_answer(answer, console)
    printed = console.export_text()
    assert SENTENCES[2] in printed
    assert "stated from < 0.1 %" in printed
    page = answer_html(ENGLISH, answer)
    assert "Findings in words" in page
    assert SENTENCES[2] in page
    assert said["notice"] in page


def test_the_page_escapes_a_sentence_and_says_what_it_owes_to_each_modality(
    predictor: Predictor,
) -> None:
    (prediction,) = predictor.predict(read_golden(predictor.bundle).studies[-1:])
    assert prediction.text is not None
    sentence = replace(
        prediction.text.sentences[0],
        text="<b>A nodule</b>",
        evidence=SentenceEvidence({IMAGE: 0.0, NOTE: 0.25, VOICE: 0.75}, note=NotePlace(2, 9)),
    )
    text = FindingsText((sentence,), ())
    page = answer_html(ENGLISH, to_answer(replace(prediction, text=text)))
    assert "&lt;b&gt;A nodule&lt;/b&gt;" in page
    assert "Read from: voice 75%, note 25%." in page
    assert "<b>A nodule" not in page
    assert "Nothing is stated" in answer_html(
        ENGLISH, to_answer(replace(prediction, text=FindingsText((), TEXT.findings)))
    )


def test_a_model_that_writes_nothing_is_refused_and_answers_as_before(hand_bundle: Path) -> None:
    predictor = Predictor(hand_bundle)
    (prediction,) = predictor.predict(read_golden(predictor.bundle).studies[-1:])
    assert prediction.text is None
    assert json.loads(to_json(to_answer(prediction)))["findings_text"] is None
    assert "Findings in words" not in answer_html(ENGLISH, to_answer(prediction))
    with pytest.raises(BundleError, match="writes no findings text"):
        predictor.require_text()
    with pytest.raises(BundleError, match="writes no findings text"):
        open_writer(predictor.bundle, "cpu", predictor.weights)


def test_a_bundle_of_the_version_before_is_read(hand_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(hand_bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schema_version"] = 2
    del manifest["text"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert open_bundle(folder).manifest.text is None


def alter(bundle: Bundle, folder: Path, **changes: bytes) -> Bundle:
    """Write the bundle anew with other files."""
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    return write_bundle(folder, contents | changes, bundle.manifest)


def test_a_graph_of_another_model_or_another_sentence_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    import onnx

    graph = onnx.load_from_string(bundle.read(TEXT_GRAPH))
    onnx.helper.set_model_props(graph, {"medfuse.predict": "0" * 64})
    other = alter(bundle, tmp_path / "a", **{TEXT_GRAPH: graph.SerializeToString()})
    with pytest.raises(BundleError, match=r"text\.onnx was made from another model"):
        open_writer(other, "cpu", load_weights(other))
    golden = read_golden(bundle).answer
    assert all(len(own) == 6 for own in golden.sentences.values())
    changed = golden.model_dump_json().replace("A nodule is seen.", "A nodule is felt.")
    other = alter(bundle, tmp_path / "b", **{GOLDEN_ANSWER: changed.encode()})
    with pytest.raises(BundleError, match=r"sentence of findings.nodule with image is not"):
        Predictor(other.path).check_golden()


def make_written(signs: tuple[str, ...], labels: tuple[str, ...], text: FindingsText) -> Written:
    """Make a study with an image of 100 by 50 pixels, a note and a recording."""
    made = make_study(CohortOptions(size=192), 1_000_000)
    mask = np.zeros((100, 50), bool)
    mask[30:40, 5:15] = True
    truth = Truth(
        labels=np.array([t in labels for t in TARGETS]),
        signs=frozenset(signs),
        shortcuts=frozenset(),
        present=frozenset(MODALITIES),
        posterior=made.truth.posterior,
        delivered=made.truth.delivered,
        image=(ImageEvidence("nodule_opacity", 0, mask),),
        note=(NoteEvidence("productive_cough", 9, 14),),
        voice=(VoiceEvidence("cough", 0.1, 0.2, 50.0, 6000.0),),
    )
    study = SyntheticStudy("S1000000", made.study, truth, made.patient, 40, date(2026, 1, 1))
    return Written(study, make_prepared(), text)


def say(target: str, text: str, **places: ImagePlace | NotePlace | VoicePlace) -> Sentence:
    shares = dict.fromkeys(map(Modality, places), 1 / max(len(places), 1))
    evidence = SentenceEvidence(shares, **places)  # type: ignore[arg-type]
    return Sentence(f"findings.{target}", 0.9, 0.5, text, 0.9, evidence)


def test_a_place_lies_on_a_sign_or_not() -> None:
    truth = make_written((), (), FindingsText((), ())).made.truth
    on = frozenset({"nodule_opacity", "productive_cough", "cough"})
    for place, right in (
        (ImagePlace(0, 0, 39, 14, 60, 30), True),  # one pixel
        (ImagePlace(0, 0, 40, 14, 60, 30), False),
        (ImagePlace(1, 0, 39, 14, 60, 30), False),
        (NotePlace(13, 20), True),
        (NotePlace(14, 20), False),
        (VoicePlace(0.0, 0.3), True),  # by its middle
        (VoicePlace(0.1, 0.6), False),
    ):
        assert lies_on(place, on, truth) is right, place
        assert not lies_on(place, frozenset({"wheeze"}), truth)


def test_precision_and_recall_are_what_can_be_counted_by_hand() -> None:
    text = FindingsText(
        (
            say(
                "nodule",
                "Round opacity in the right lung is seen, suggesting a nodule.",
                image=ImagePlace(0, 0, 25, 0, 50, 25),
            ),
            say(
                "pneumonia",
                "Pleural effusion on the left is seen and repeated cough is heard.",
                image=ImagePlace(0, 0, 60, 30, 80, 50),
                voice=VoicePlace(0.1, 0.2),
            ),
            say("embolism", "Swollen leg is reported.", note=NotePlace(9, 14)),
        ),
        (),
    )
    signs = ("nodule_opacity", "productive_cough", "cough")
    study = make_written(signs, ("nodule", "pneumonia"), text)
    nothing = make_written((), (), FindingsText((), ()))
    nothing = replace(nothing, made=replace(nothing.made, study_id="S1000001"))
    figures = measure(
        [study, nothing], CohortOptions(size=192), ("nodule", "pneumonia", "embolism"), 0
    )
    found = {
        f.figure: (f.precision.value, f.recall.value, f.said, f.wanted)
        for f in figures
        if f.finding == ALL and f.source == "model"
    }
    # Pneumonia shows in the note and the voice; its image and the embolism's note are wrong.
    assert found == {
        "finding stated": (pytest.approx(2 / 3), 1.0, 3, 2),
        "evidence modality": (2 / 4, pytest.approx(2 / 3), 4, 3),
        "evidence place": (2 / 4, pytest.approx(2 / 3), 4, 3),
        "sign named": (2 / 4, pytest.approx(2 / 3), 4, 3),
        "side named": (1 / 2, 1.0, 2, 1),
        "sentence right": (pytest.approx(1 / 3), 1 / 2, 3, 2),
    }
    controls = {f.figure: f.recall.value for f in figures if f.source == "another study's text"}
    assert "evidence place" not in controls
    assert set(controls.values()) <= {0.0, None}  # the other study has no text to say anything


def test_every_sentence_of_the_cohort_is_read_as_it_was_meant() -> None:
    assert name_sides("Pleural fluid on both sides and rounded density in the left lung.") == {
        ("effusion", "both"),
        ("nodule_opacity", "left"),
    }
    options = CohortOptions(size=192)
    truth = make_study(options, 1).truth
    sided = [name_sides(each.text) for each in write_findings(options, 1, truth)]
    assert any(sided)


def test_the_command_prints_every_figure_and_writes_them(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "text.json"
    app = build_app()
    if "findings-text" not in {command.name for command in app.registered_commands}:
        app.command(name="findings-text")(findings_text)
    done = CliRunner().invoke(
        app,
        ["findings-text", str(tiny_bundle), "--studies", "2", "--show", "1", "--json", str(out)],
    )
    assert done.exit_code == 0, done.output
    assert "never stated: findings.embolism" in done.output
    assert SENTENCES[0] in done.output
    report = json.loads(out.read_text())
    stated = [
        f
        for f in report["figures"]
        if (f["figure"], f["finding"], f["source"]) == ("finding stated", ALL, "model")
    ]
    assert stated[0]["said"] == 4
