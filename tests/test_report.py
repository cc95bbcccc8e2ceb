"""Reports: every number is on the page, none that is withheld is, and every change is found."""

import hashlib
import io
import json
import logging
import re
import shlex
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
import typer
import zxingcpp
from fpdf import FPDF
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DecodedStreamObject, NameObject
from typer.testing import CliRunner, Result

from medfuse.attribution.settings import AttributionSettings
from medfuse.bundle import NOTICE
from medfuse.config import TaskKind
from medfuse.errors import NoteError, ReportError, SettingsError
from medfuse.golden import read_golden
from medfuse.overlay import format_signed
from medfuse.trust.novelty import NoveltyModel, Usual
from medfuse.trust.record import TrustRecord, TrustSettings
from medfuse.types import Modality, Study
from medfuse_serving.answer import (
    Answer,
    SentenceAnswer,
    TaskAnswer,
    TextAnswer,
    format_probability,
    to_answer,
)
from medfuse_serving.evidence import AreaPlace, Piece
from medfuse_serving.explainer import Explainer
from medfuse_serving.explanation_view import View, make_view
from medfuse_serving.language import ENGLISH, LANGUAGES, find_language
from medfuse_serving.predictor import Predictor
from medfuse_serving.report import paper, verify, words
from medfuse_serving.report.command import UNSURE, report, verify_report
from medfuse_serving.report.gather import ReportOptions, make_record
from medfuse_serving.report.paper import MOST_PAGES, Paper
from medfuse_serving.report.record import (
    ATTACHMENT,
    MOST_BYTES,
    NOTE_CHARACTERS,
    Reading,
    ReportRecord,
    from_bytes,
    read_reading,
    to_bytes,
)
from medfuse_serving.report.render import draw_report, make_report
from medfuse_serving.report.seal import ATTACHMENT as SEAL
from medfuse_serving.report.seal import BLANK, read_key
from medfuse_serving.report.targets import choose_targets
from medfuse_serving.report.verify import (
    check_answer,
    check_inputs,
    check_model,
    check_report,
)
from medfuse_serving.report.withhold import concerned, find_referrals, withhold
from tests import canaries
from tests.hand_bundle import NOTE, SETTINGS, make_bundle, make_dicom, make_study
from tests.hand_network import MIXED, HandNetwork

QUICK = AttributionSettings(steps=2, most_steps=2)
BRIGHTNESS = "findings.brightness"
MADE = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
KEY = bytes(range(32))
CODE = re.compile(r"medfuse-report:1:[0-9a-f]{64}")

APP = typer.Typer()
for command in (report, verify_report):
    APP.command()(command)


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


def ask(predictor: Predictor, study: Study) -> Answer:
    (prediction,) = predictor.predict([study])
    return to_answer(prediction)


def explain(predictor: Predictor, study: Study, target: str, slope: float = 1.0) -> View:
    explainer = Explainer(predictor, None, HandNetwork(MIXED, slope))
    return make_view(explainer.explain(study, target, QUICK), SETTINGS, explainer.scales)


def gather(
    predictor: Predictor, study: Study, views: Sequence[View] = (), language: str = "en"
) -> ReportRecord:
    options = ReportOptions(language=language, study_id="S-1", made_at=MADE)
    return make_record(predictor, study, ask(predictor, study), views, options)


@pytest.fixture(scope="module")
def view(predictor: Predictor) -> View:
    return explain(predictor, make_study(), BRIGHTNESS)


@pytest.fixture(scope="module")
def record(predictor: Predictor, view: View) -> ReportRecord:
    return gather(predictor, make_study(), [view])


@pytest.fixture(scope="module")
def pdf(record: ReportRecord) -> bytes:
    return make_report(record)


def read(pdf: bytes) -> str:
    """A report's text as PDFium, which browsers show PDFs with, gives it to a reader."""
    document = pypdfium2.PdfDocument(pdf)
    pages = [page.get_textpage().get_text_range() for page in document]
    document.close()
    return " ".join(" ".join(pages).split())


def attached(pdf: bytes) -> bytes:
    (data,) = PdfReader(io.BytesIO(pdf)).attachments[ATTACHMENT]
    return data


def streams(pdf: bytes) -> Iterator[bytes]:
    """Everything in a PDF, as it is and with each stream unpacked."""
    yield pdf
    reader = PdfReader(io.BytesIO(pdf))
    for number in range(1, len(reader.xref[0]) + 1):
        found = reader.get_object(number)
        if found is not None and hasattr(found, "get_data"):
            yield found.get_data()


# What stands on the pages


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_probability_and_digest_stands_on_the_pages(
    predictor: Predictor, view: View, language: str
) -> None:
    study = make_study()
    pdf = make_report(gather(predictor, study, [view], language))
    by_pypdf = "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    answer = ask(predictor, study)
    for text in (read(pdf), by_pypdf.replace("\0", "")):
        for probability in answer.tasks[0].probabilities.values():
            assert format_probability(probability) in text
        assert answer.model_digest in "".join(text.split())
        for data in (*study.images, study.note, study.voice):
            assert hashlib.sha256(data or b"").hexdigest() in "".join(text.split())
        assert "S-1" in text
        assert "2026-05-04 03:02:01 UTC" in text
    said = "".join(read(pdf).split())
    chosen = find_language(language)
    for message in (NOTICE, "Findings" if language == "en" else "所见"):
        assert "".join(chosen.text(message).split()) in said
    # Answers of 0.547 and 0.668, worked out from 0.375 / 2 and 0.7.
    assert "54.7%" in said
    assert "66.8%" in said


def test_the_pages_are_in_the_reader_s_language(predictor: Predictor, view: View) -> None:
    text = read(make_report(gather(predictor, make_study(), [view], "zh")))
    for said in ("概率", "图像的贡献占", "支持与反对的依据", "仅供研究与评估"):
        assert said in text
    for said in ("Probability", "contributes", "Not a medical device"):
        assert said not in text


def test_the_record_says_what_the_pages_say(record: ReportRecord, pdf: bytes) -> None:
    data = attached(pdf)
    assert data == to_bytes(record)
    assert from_bytes(data) == record
    document = json.loads(data)
    assert document["schema"] == "medfuse.report/2"
    assert document["answer"]["schema"] == "medfuse.prediction/3"
    assert document["explanations"][0]["record"]["target"] == BRIGHTNESS


def test_the_qr_code_and_every_page_have_the_record_s_digest(pdf: bytes) -> None:
    expected = f"medfuse-report:1:{hashlib.sha256(attached(pdf)).hexdigest()}"
    document = pypdfium2.PdfDocument(pdf)
    pages = list(document)
    (code,) = zxingcpp.read_barcodes(np.asarray(pages[0].render(scale=2).to_numpy()))
    assert code.text == expected
    for number, page in enumerate(pages, start=1):
        text = page.get_textpage().get_text_range()
        assert CODE.findall(text) == [expected]
        assert f"Page {number} of {len(pages)}" in text
    document.close()


def test_a_report_is_for_archives_and_says_its_language(predictor: Predictor) -> None:
    reader: Any = PdfReader(io.BytesIO(make_report(gather(predictor, Study(note=NOTE), (), "zh"))))
    assert reader.trailer["/Root"]["/Lang"] == "zh-Hans"
    xmp = reader.trailer["/Root"]["/Metadata"].get_object().get_data().decode()
    assert "<pdfaid:part>3</pdfaid:part>" in xmp
    assert '<rdf:li xml:lang="x-default">medfuse 报告</rdf:li>' in xmp
    fonts = {
        str(font.get_object()["/BaseFont"])
        for page in reader.pages
        for font in page["/Resources"]["/Font"].values()
    }
    assert fonts
    assert all(re.match(r"/[A-Z]{6}\+", name) for name in fonts)  # each embedded, in part


def test_pictures_are_described_for_who_cannot_see_them(pdf: bytes) -> None:
    text = b"\n".join(streams(pdf)).decode("latin-1")
    described = "".join(text.replace("\0", "").split())
    assert "QRcode" in described
    assert "Spectrogramof1.0s" in described
    assert "withitsmap" in described


def test_every_share_and_the_strongest_parts_stand_in_tables(
    record: ReportRecord, pdf: bytes
) -> None:
    (explained,) = record.explanations
    text = read(pdf)
    for value in explained.record.shares.shares.values():
        assert format_signed(value) in text
    for piece in explained.pieces:
        full = explained.record.scale[piece.modality].full
        number = words.say_number(piece.value, piece.modality, full)
        assert f"{words.capital(words.say_piece(ENGLISH, piece))} {number}" in text
    for modality, total in explained.record.sums.items():
        number = words.say_number(total, modality, explained.record.scale[modality].full)
        assert f"{words.say_sum(ENGLISH, explained.record)} {number}" in text
    assert words.say_difference(ENGLISH, explained.record) in text
    for word in explained.record.words or ():
        assert word.text in text
    for sentence in words.say_shares(ENGLISH, explained.record, explained.pieces):
        assert sentence in text


def test_the_evidence_is_the_page_s_and_adds_up_to_each_map(
    record: ReportRecord, view: View
) -> None:
    (explained,) = record.explanations
    assert explained.pieces == view.pieces
    for modality, total in explained.record.sums.items():
        values = [piece.value for piece in explained.pieces if piece.modality is modality]
        assert sum(values) == pytest.approx(total)
    # The ramp is brightest at the right, and none of it is strong enough for an outline.
    first = next(piece.place for piece in explained.pieces if piece.modality is Modality.IMAGE)
    assert isinstance(first, AreaPlace)
    assert (first.column, first.outlined) == (2, False)


def test_no_heading_is_parted_from_its_table_and_no_small_table_is_parted() -> None:
    rows = [("first", "one\ntwo"), ("second", "a\nb\nc"), ("last", "x")]
    for above in range(40, 50):
        paper = Paper(title="t", tag="en", made_at=MADE, foot=("x",))
        with closing(paper):
            for _ in range(above):
                paper.paragraph("line")
            paper.heading("Heading")
            paper.rows((), rows, (1, 1))
            document = pypdfium2.PdfDocument(bytes(paper.output()))
        pages = [page.get_textpage().get_text_range() for page in document]
        document.close()
        assert sum("Heading" in page and "first" in page and "last" in page for page in pages) == 1


def test_no_heading_is_parted_from_the_words_below_it() -> None:
    for above in range(40, 56):
        with closing(Paper(title="t", tag="en", made_at=MADE, foot=("x",))) as paper:
            for _ in range(above):
                paper.paragraph("line")
            paper.heading("Heading")
            paper.paragraph("first")
            document = pypdfium2.PdfDocument(bytes(paper.output()))
        pages = [page.get_textpage().get_text_range() for page in document]
        document.close()
        assert sum("Heading" in page and "first" in page for page in pages) == 1


def test_a_reading_stands_on_the_first_page(predictor: Predictor) -> None:
    reading = Reading(
        impression="No nodule; a vessel seen end on.",
        decision="override",
        reason="The shadow moves with the vessel on the lateral view.",
        reader="Reader 7",
        opened_at=MADE,
        signed_at=MADE.replace(minute=9),
    )
    options = ReportOptions(study_id="S-1", made_at=MADE, reading=reading)
    study = Study(note=NOTE)
    record = make_record(predictor, study, ask(predictor, study), (), options)
    first = pypdfium2.PdfDocument(make_report(record))[0].get_textpage().get_text_range()
    text = " ".join(first.split())
    for said in (reading.impression, "overridden", reading.reason, "Reader 7", "03:09:01 UTC"):
        assert said in text


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": "override", "reason": " "},
        {"decision": "maybe"},
        {"signed_at": "2025-01-01T00:00:00Z"},
        {"impression_at": "2026-01-01T00:02:00Z"},
        {
            "impression_at": "2026-01-01T00:00:20Z",
            "answered_at": "2026-01-01T00:00:10Z",
        },
        {"impression": "x" * 4001},
    ],
)
def test_a_reading_that_is_not_whole_is_refused_without_its_text(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    whole = {
        "impression": "Secret words.",
        "decision": "accept",
        "reader": "R",
        "opened_at": "2026-01-01T00:00:00Z",
        "signed_at": "2026-01-01T00:01:00Z",
    }
    file = tmp_path / "reading.json"
    file.write_text(json.dumps(whole))
    assert read_reading(file).decision == "accept"
    file.write_text(json.dumps(whole | changes))
    with pytest.raises(SettingsError, match="not a reading") as caught:
        read_reading(file)
    assert "Secret" not in str(caught.value)


# Sentences


def piece(modality: Modality, value: float, place: object) -> Piece:
    return Piece.model_validate(
        {"id": "x", "modality": modality, "value": value, "share": 1.0, "place": place}
    )


def test_the_sentences_name_share_direction_and_place(record: ReportRecord) -> None:
    (explained,) = record.explanations
    shares = {Modality.IMAGE: 0.2, Modality.NOTE: 0.62, Modality.VOICE: -0.18}
    own = explained.record.model_copy(
        update={
            "shares": explained.record.shares.model_copy(update={"shares": shares}),
            "sums": {Modality.IMAGE: 0.1, Modality.NOTE: 0.6, Modality.VOICE: -0.2},
        }
    )
    pieces = [
        piece(Modality.IMAGE, 0.2, {"frame": 2, "row": 0, "column": 2}),
        piece(Modality.IMAGE, -0.3, {"frame": 1, "row": 1, "column": 1}),
        piece(Modality.IMAGE, 0.2, None),
        piece(Modality.NOTE, 0.6, {"start": 10, "end": 25, "text": "cough and fever"}),
        piece(Modality.VOICE, -0.2, None),
    ]
    assert words.say_shares(ENGLISH, own, pieces) == [
        'The note contributes 62 % and speaks for brightness, most of it from "cough and fever".',
        "The image contributes 20 % and speaks for brightness, the largest part of it from the "
        "area outlined in the upper right of frame 2 as it is shown.",
        "The voice contributes 18 % and speaks against brightness.",
    ]
    span = {"start_s": 1.2, "end_s": 1.75, "low_hz": 300.4, "high_hz": 900.0}
    heard = [*pieces, piece(Modality.VOICE, -0.3, span)]
    assert words.say_shares(ENGLISH, own, heard)[2] == (
        "The voice contributes 18 % and speaks against brightness, most of it from 1.20 to 1.75 s "
        "at 300 to 900 Hz."
    )
    against = own.model_copy(update={"sums": own.sums | {Modality.NOTE: -0.1}})
    assert words.say_shares(ENGLISH, against, pieces)[0] == (
        "The note contributes 62 % and speaks for brightness."
    )
    unsummed = [p.model_copy(update={"share": None}) for p in pieces]
    assert words.say_shares(ENGLISH, own, unsummed)[0] == (
        "The note contributes 62 % and speaks for brightness."
    )
    assert words.say_shares(find_language("zh"), own, pieces)[0] == (
        "病历的贡献占 62 %，支持brightness，大部分来自“cough and fever”。"
    )


# What is withheld


def find_scores(answer: Answer, names: Sequence[str]) -> set[str]:
    """Every way in which scores of some findings might be written."""
    task = answer.tasks[0]
    found = {format_probability(task.probabilities[name]) for name in names}
    found |= {repr(task.probabilities[name]) for name in names}
    return found | {repr(task.logits[f"{task.name}.{name}"]) for name in names}


def test_a_failed_badge_leaves_the_finding_to_a_human(predictor: Predictor) -> None:
    study = make_study()
    failed = explain(predictor, study, BRIGHTNESS, slope=2.0)
    assert not failed.record.badge.passed
    record = gather(predictor, study, [failed])
    pdf = make_report(record)
    text, answer = read(pdf), ask(predictor, study)
    assert "Refer to a human" in text
    assert "No score is given for: Brightness." in text
    assert "The explanation failed" in text
    assert "Next step: Have this finding read by a specialist" in text
    for check in failed.record.badge.checks:
        assert (check.message in text) == (not check.passed)
    everywhere = text.encode() + b"".join(streams(pdf))
    for score in find_scores(answer, ["brightness"]):
        assert score.encode() not in everywhere
    assert f"{failed.record.output:+.2f}" not in text
    assert format_probability(answer.tasks[0].probabilities["wordiness"]) in text
    assert record.explanations == ()


@pytest.fixture(scope="module")
def novel(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A bundle to which every recording is novel."""
    usual = Usual(
        mean=np.zeros(75, np.float32),
        whiten=np.eye(75, dtype=np.float32),
        distances=np.linspace(0, 1e-3, 199, dtype=np.float32),
    )
    trust = TrustRecord(settings=TrustSettings(false_alarms=0.02), subsets={})
    novelty = NoveltyModel({Modality.VOICE: usual})
    folder = tmp_path_factory.mktemp("novel") / "bundle"
    return Predictor(make_bundle(folder, trust=trust, novelty=novelty))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_novel_input_leaves_what_rests_on_it_to_a_human(novel: Predictor, language: str) -> None:
    study = make_study()
    answer = ask(novel, study)
    assert answer.novelty[Modality.VOICE].novel
    record = gather(novel, study, [explain(novel, study, BRIGHTNESS)], language)
    pdf = make_report(record)
    text = read(pdf)
    chosen = find_language(language)
    assert chosen.text("▲ Refer to a human") in text
    everywhere = text.encode() + b"".join(streams(pdf))
    scores = find_scores(answer, ["brightness", "wordiness"]) | {repr(answer.tasks[1].value)}
    scores |= {f"{answer.tasks[1].value:.4g}"}
    for score in scores:
        assert score.encode() not in everywhere
    assert record.explanations == ()
    assert record.answer.tasks[0].probabilities == {}
    assert record.answer.tasks[1].value is None
    # Without the recording there is nothing unusual, and every score stands.
    usual = gather(novel, replace(study, voice=None), (), language)
    assert not usual.referrals
    assert "66.8 %" in read(make_report(usual))
    assert check_answer(record, novel, study) == 0


def make_task(kind: TaskKind, names: Sequence[str], targets: Sequence[str]) -> TaskAnswer:
    return TaskAnswer(
        name=targets[0].partition(".")[0],
        kind=kind,
        probabilities={name: 1 / len(names) for name in names},
        logits=dict.fromkeys(targets, 0.0),
        value=None,
        unit=None,
        codes={},
        judgements=(),
        reads=tuple(Modality),
        used=tuple(Modality),
    )


def test_classes_and_levels_are_withheld_together(predictor: Predictor) -> None:
    levels = make_task(
        TaskKind.ORDINAL, ("low", "mid", "high"), ("grade.at_least_mid", "grade.at_least_high")
    )
    classes = make_task(TaskKind.MULTICLASS, ("viral", "other"), ("cause.viral", "cause.other"))
    findings = make_task(
        TaskKind.MULTILABEL, ("nodule", "mass"), ("findings.nodule", "findings.mass")
    )
    sentences = tuple(
        SentenceAnswer(
            target=target,
            probability=0.9,
            threshold=0.5,
            text="Words.",
            likelihood=0.5,
            shares={},
            image=None,
            note=None,
            voice=None,
        )
        for target in ("findings.nodule", "findings.mass")
    )
    answer = ask(predictor, make_study()).model_copy(
        update={
            "tasks": (levels, classes, findings),
            "findings_text": TextAnswer(sentences=sentences, left_out=("findings.nodule",)),
        }
    )
    assert concerned(answer, "grade.at_least_high") == ("grade",)
    assert concerned(answer, "cause.viral=1,findings.nodule=-0.5") == ("cause", "findings.nodule")
    assert concerned(answer, "findings.mass") == ("findings.mass",)
    badge = explain(predictor, make_study(), BRIGHTNESS, slope=2.0).record
    failed = [
        badge.model_copy(update={"target": target})
        for target in ("grade.at_least_high", "findings.nodule")
    ]
    kept = withhold(answer, find_referrals(answer, failed))
    assert [list(task.probabilities) for task in kept.tasks] == [[], ["viral", "other"], ["mass"]]
    assert [list(task.logits) for task in kept.tasks] == [
        [],
        ["cause.viral", "cause.other"],
        ["findings.mass"],
    ]
    assert kept.findings_text is not None
    assert [s.target for s in kept.findings_text.sentences] == ["findings.mass"]
    assert kept.findings_text.left_out == ()


def test_a_question_without_its_evidence_has_no_number(predictor: Predictor) -> None:
    answer = ask(predictor, make_study())
    unanswered = answer.tasks[0].model_copy(update={"used": ()})
    kept = withhold(answer.model_copy(update={"tasks": (unanswered, answer.tasks[1])}), ())
    assert kept.tasks[0].probabilities == kept.tasks[0].logits == {}
    assert kept.tasks[1] == answer.tasks[1]


def test_no_identity_of_a_file_is_in_the_report_or_in_the_log(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    study = make_study()
    ds = canaries.read_back(study.images[0])
    ds.PatientName = f"{canaries.LAST}^{canaries.FIRST}"
    ds.PatientID, ds.AccessionNumber = canaries.MRN, canaries.ACCESSION
    ds.PatientBirthDate, ds.StudyDate = canaries.BIRTH, canaries.DAY
    ds.InstitutionName = ds.ImageComments = canaries.HOSPITAL
    ds.ReferringPhysicianName = canaries.DOCTOR
    ds.StudyInstanceUID = ds.SeriesInstanceUID = f"{canaries.UID_ROOT}.1"
    ds.private_block(0x0011, canaries.LAST, create=True).add_new(1, "LO", canaries.FIRST)
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    study = Study(images=(file.getvalue(),), voice=canaries.tag_wav(study.voice or b""))
    options = ReportOptions(made_at=MADE)
    view = explain(predictor, study, BRIGHTNESS)
    pdf = make_report(make_record(predictor, study, ask(predictor, study), [view], options))
    check_report(pdf)
    everywhere = b"\n".join(streams(pdf)) + read(pdf).encode() + caplog.text.encode()
    forms = {c.encode(code) for c in canaries.CANARIES.values() for code in ("utf-8", "utf-16-be")}
    assert [form for form in forms if form in everywhere] == []


# Odd notes and large studies


ODD = st.text(
    st.sampled_from("ab \n\t\r.") | st.characters(exclude_categories=["Cs"]),
    min_size=1,
    max_size=400,
)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=ODD)
@example(text="fever \N{BRAIN}\N{FACE WITH THERMOMETER} \U0001f1e8\U0001f1f3")
@example(text="\u202eevil\u202c شعال وحمى \u2066x\u2069 חום")
@example(text="x" * 30_000)
@example(text="cough\n" * 10_000)
@example(text="咳嗽发热" * 2_000)
@example(text="{page} {0} %s <b>&amp; \\( \\)")
def test_any_note_makes_a_bounded_report(predictor: Predictor, text: str) -> None:
    study = Study(note=text.encode())
    try:
        answer = ask(predictor, study)
    except NoteError:
        return
    except ValueError as error:  # no modality is left
        pytest.fail(str(error))
    record = make_record(predictor, study, answer, (), ReportOptions(made_at=MADE))
    assert record.evidence.note is not None
    assert record.evidence.note.characters == len(text)
    pdf = make_report(record)
    assert len(PdfReader(io.BytesIO(pdf)).pages) <= 6
    assert check_report(pdf).exact
    shown = read(pdf)
    assert not set(shown) & set("\u202e\u202c\u2066\u2069")


def test_the_same_note_with_its_map_is_bounded_and_whole(predictor: Predictor) -> None:
    study = Study(note=("cough and fever " * 3000).encode())
    record = gather(predictor, study, [explain(predictor, study, "findings.wordiness")])
    pdf = make_report(record)
    assert len(PdfReader(io.BytesIO(pdf)).pages) <= 8
    assert f"The first {NOTE_CHARACTERS} of the note's 48000 characters are shown." in read(pdf)


def test_many_frames_are_all_shown_up_to_a_number(predictor: Predictor) -> None:
    ramp = np.tile(np.linspace(0, 4095, 60).astype(np.uint16), (40, 1))
    study = Study(images=tuple(make_dicom(ramp // (i + 1)) for i in range(7)))
    record = gather(predictor, study, [explain(predictor, study, BRIGHTNESS)])
    assert [frame.number for frame in record.evidence.frames] == list(range(1, 8))
    assert len(record.explanations[0].frames) == 7
    text = read(make_report(record))
    for number in range(1, 8):
        assert f"Frame {number} of 7 that were read" in text


def test_characters_of_no_font_and_unseen_ones_are_told_apart() -> None:
    with closing(Paper(title="t", tag="en", made_at=MADE, foot=())) as paper:
        shown = paper.printable("a\r\nb\tc\u202ed\u200be\N{BRAIN}é发")
    assert shown == "a\nb    cde\N{REPLACEMENT CHARACTER}é发"


def test_too_many_pages_are_refused() -> None:
    with closing(Paper(title="t", tag="en", made_at=MADE, foot=("x",))) as paper:
        for _ in range(MOST_PAGES):
            paper.add_page()
        with pytest.raises(ReportError, match=f"more than {MOST_PAGES} pages"):
            paper.add_page()


# Verification


def test_a_report_is_found_as_it_was_made(record: ReportRecord, pdf: bytes) -> None:
    opened = check_report(pdf)
    assert opened.exact
    assert opened.record == record
    assert opened.digest == hashlib.sha256(attached(pdf)).hexdigest()
    assert opened.seal == "none"


def test_a_report_does_not_depend_on_when_it_is_drawn(record: ReportRecord, pdf: bytes) -> None:
    time.sleep(1.1)
    assert make_report(record) == pdf


@settings(
    max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
@example(place=0.0, change=1)
@example(place=1 - 1e-9, change=255)
def test_any_changed_byte_is_found(pdf: bytes, place: float, change: int) -> None:
    altered = bytearray(pdf)
    altered[int(place * len(pdf))] ^= change
    with pytest.raises(ReportError):
        check_report(bytes(altered))


@pytest.mark.parametrize("cut", [0, 1, 100, 5000, -1, -30])
def test_a_cut_report_is_found(pdf: bytes, cut: int) -> None:
    with pytest.raises(ReportError):
        check_report(pdf[:cut] if cut else b"")
    with pytest.raises(ReportError):
        check_report(pdf + b"\n%%EOF\n")


def rewrite(pdf: bytes, change: Any) -> bytes:
    """Save a PDF again after a change, as a program that edits PDFs does."""
    writer = PdfWriter(clone_from=io.BytesIO(pdf))
    change(writer)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_an_edited_number_on_a_page_is_found(pdf: bytes) -> None:
    def cover(writer: PdfWriter) -> None:
        """Paint over the first page, all of its text still there."""
        page = writer.pages[0]
        stream = DecodedStreamObject()
        drawn: Any = page.get_contents()
        stream.set_data(drawn.get_data() + b"\n1 g 100 500 300 100 re f\n")
        page[NameObject("/Contents")] = writer._add_object(stream)

    def move(writer: PdfWriter) -> None:
        """Take a page away."""
        writer.remove_page(1)

    for change in (cover, move):
        with pytest.raises(ReportError, match=r"not what its record gives|digest"):
            check_report(rewrite(pdf, change))


def shout(own: Paper, text: str, size: float = 13.0) -> None:
    """Write a heading in capitals, which only other versions would."""
    own.use(size)
    own.paragraph(text.upper(), size)


def with_record(pdf: bytes, data: bytes) -> bytes:
    """Exchange the record for another of any content."""
    packed = zlib.compress(attached(pdf))
    assert packed in pdf
    return rewrite(
        pdf,
        lambda writer: (
            writer._root_object["/Names"]["/EmbeddedFiles"]["/Names"][1]
            .get_object()["/EF"]["/F"]
            .get_object()
            .set_data(data)
        ),
    )


def test_an_exchanged_record_is_found(record: ReportRecord, pdf: bytes) -> None:
    other = to_bytes(record.model_copy(update={"study_id": "S-2"}))
    exchanged = with_record(pdf, other)
    assert attached(exchanged) == other
    with pytest.raises(ReportError, match="does not have the digest that its pages state"):
        check_report(exchanged)
    with pytest.raises(ReportError, match=r"medfuse\.report/2"):
        check_report(with_record(pdf, b"{}"))


def test_whoever_has_no_key_can_make_another_report_but_no_sealed_one(
    record: ReportRecord,
) -> None:
    other = record.model_copy(update={"study_id": "S-2"})
    assert check_report(make_report(other)).exact  # a digest is no signature
    sealed = make_report(record, KEY)
    opened = check_report(sealed, KEY)
    assert opened.exact
    assert opened.seal == "checked"
    assert check_report(sealed).seal == "unchecked"  # its pages can be checked without the key
    with pytest.raises(ReportError, match="not sealed with this key"):
        check_report(sealed, KEY[::-1])
    with pytest.raises(ReportError, match="no seal"):
        check_report(make_report(record), KEY)
    (tag,) = PdfReader(io.BytesIO(sealed)).attachments[SEAL]
    forged = draw_report(to_bytes(other), sealed=True).replace(BLANK, tag)
    assert check_report(forged).exact
    with pytest.raises(ReportError, match="not sealed with this key"):
        check_report(forged, KEY)


def test_a_seal_is_over_every_byte_whatever_drew_it(
    record: ReportRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = record.model_copy(update={"versions": {"medfuse": "0.0"}})
    with monkeypatch.context() as patch:
        patch.setattr(Paper, "heading", shout)
        pdf = make_report(other, KEY)
    opened = check_report(pdf, KEY)
    assert (opened.exact, opened.whole, opened.others) == (False, True, "medfuse 0.0")
    picture = pdf.index(b"/Subtype /Image")
    at = pdf.index(b"stream", picture) + 40
    altered = pdf[:at] + bytes([pdf[at] ^ 1]) + pdf[at + 1 :]
    with pytest.raises(ReportError, match="not sealed with this key, or changed since"):
        check_report(altered, KEY)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY[:-1])
    with pytest.raises(SettingsError, match="31 bytes; expected at least 32"):
        read_key(tmp_path / "key")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_key(tmp_path / "no")


def test_what_is_no_report_is_refused(pdf: bytes, tmp_path: Path) -> None:
    def encrypt(writer: PdfWriter) -> None:
        writer.encrypt("secret", algorithm="RC4-128")

    def strip(writer: PdfWriter) -> None:
        del writer._root_object["/Names"]

    def add(writer: PdfWriter) -> None:
        for _ in range(MOST_PAGES):
            writer.add_blank_page(10, 10)

    for data, why in (
        (b"", "no PDF"),
        (b"%PDF-1.7\n" + b"x" * 1000, "no PDF"),
        (rewrite(pdf, encrypt), "encrypted"),
        (rewrite(pdf, strip), "no record of a report"),
        (rewrite(pdf, add), f"more than {MOST_PAGES} pages"),
        (b"%PDF-1.7\n" + bytes(MOST_BYTES), f"more than {MOST_BYTES} bytes"),
    ):
        with pytest.raises(ReportError, match=why):
            check_report(data)
    with pytest.raises(ReportError, match="cannot be read"):
        verify.open_report(tmp_path / "no.pdf")


def misfit_frames(record: ReportRecord) -> ReportRecord:
    """A record whose explanation has no layer for its frame."""
    (explained,) = record.explanations
    broken = explained.model_copy(update={"frames": explained.frames * 2})
    return record.model_copy(update={"explanations": (broken,)})


def misfit_voice(record: ReportRecord) -> ReportRecord:
    evidence = record.evidence.model_copy(update={"voice": None})
    return record.model_copy(update={"evidence": evidence})


def braces(record: ReportRecord) -> ReportRecord:
    (explained,) = record.explanations
    own = explained.record.model_copy(update={"method": "{x}", "baseline": "{0.__class__}"})
    changed = explained.model_copy(update={"record": own})
    return record.model_copy(update={"notice": "{y}", "explanations": (changed,)})


@pytest.mark.parametrize("change", [misfit_frames, misfit_voice])
def test_a_record_that_no_report_has_is_refused(
    record: ReportRecord, pdf: bytes, change: Callable[[ReportRecord], ReportRecord]
) -> None:
    data = to_bytes(change(record))
    made = with_record(pdf, data)
    stated = f"medfuse-report:1:{hashlib.sha256(data).hexdigest()}"

    def state(writer: PdfWriter) -> None:
        page: Any = PdfWriter(clone_from=io.BytesIO(say(stated))).pages[0]
        writer.add_page(page)

    with pytest.raises(ReportError, match="no report has"):
        check_report(rewrite(made, state))


def say(text: str) -> bytes:
    """A PDF that says one thing."""
    paper = FPDF()
    paper.add_page()
    paper.set_font("helvetica", size=8)
    paper.cell(text=text)
    return bytes(paper.output())


def test_braces_in_a_record_are_no_values(record: ReportRecord) -> None:
    text = read(make_report(braces(record)))
    assert "{y}" in text
    assert "{x}" in text
    assert "{0.__class__}" in text


def test_a_small_file_that_unpacks_to_a_large_record_is_refused(pdf: bytes) -> None:
    bomb = with_record(pdf, zlib.compress(bytes(200 * 2**20)))
    packed: Any = PdfReader(io.BytesIO(bomb))
    names = packed.trailer["/Root"]["/Names"]["/EmbeddedFiles"]["/Names"]
    assert len(bomb) < 2**20
    assert names[1].get_object()["/EF"]["/F"].get_object() is not None
    with pytest.raises(ReportError):
        check_report(bomb)


def test_a_report_of_other_versions_has_its_text_compared(
    record: ReportRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = record.model_copy(update={"versions": record.versions | {"fpdf2": "9.9"}})
    pdf = make_report(other)
    assert check_report(pdf).exact  # they happen to draw alike
    with monkeypatch.context() as patch:
        patch.setattr(paper, "ACCENT", (0, 0, 0))  # all stands where it stood
        drawn = make_report(other)
    opened = check_report(drawn)
    assert not opened.exact
    assert opened.others == "fpdf2 9.9"
    with monkeypatch.context() as patch:
        patch.setattr(Paper, "heading", shout)
        drawn = make_report(other)
    with pytest.raises(ReportError, match="the text of the report's pages"):
        check_report(drawn)


def test_the_model_and_the_inputs_are_held_to_the_record(record: ReportRecord) -> None:
    check_model(record, record.model.digest)
    with pytest.raises(ReportError, match="this bundle is 0000"):
        check_model(record, "0" * 64)
    study = make_study()
    check_inputs(record, study)
    for other in (
        replace(study, note=NOTE + b" "),
        replace(study, voice=None),
        replace(study, images=study.images * 2),
        Study(note=NOTE),
    ):
        with pytest.raises(ReportError, match="have a SHA-256 that it states"):
            check_inputs(record, other)


def test_images_may_be_given_in_any_order(predictor: Predictor) -> None:
    images = tuple(make_dicom(np.full((40, 60), 300 * i, np.uint16)) for i in range(3))
    record = gather(predictor, Study(images=images))
    turned = Study(images=images[::-1])
    check_inputs(record, turned)
    assert check_answer(record, predictor, turned) == 0


def test_the_bundle_must_answer_as_the_report_says(
    predictor: Predictor, record: ReportRecord
) -> None:
    study = make_study()
    assert check_answer(record, predictor, study) == 0

    def alter(**changes: object) -> ReportRecord:
        task = record.answer.tasks[0].model_copy(update=changes)
        answer = record.answer.model_copy(update={"tasks": (task, *record.answer.tasks[1:])})
        return record.model_copy(update={"answer": answer})

    logits, chances = record.answer.tasks[0].logits, record.answer.tasks[0].probabilities
    near = alter(logits=logits | {"findings.wordiness": logits["findings.wordiness"] + 5e-5})
    with pytest.raises(ReportError, match="do not follow"):  # its probability is another's
        check_answer(near, predictor, study)
    far = alter(logits=logits | {BRIGHTNESS: logits[BRIGHTNESS] + 1e-3})
    with pytest.raises(ReportError, match=r"1\.0e-03 of the logits' scale off"):
        check_answer(far, predictor, study)
    with pytest.raises(ReportError, match="tasks do not follow"):
        check_answer(alter(probabilities=chances | {"brightness": 0.6}), predictor, study)
    gone = {k: v for k, v in chances.items() if k != "brightness"}
    with pytest.raises(ReportError, match="tasks do not follow"):
        check_answer(alter(probabilities=gone), predictor, study)
    with pytest.raises(ReportError, match="is not asked"):
        check_answer(alter(logits=logits | {"findings.other": 0.0}), predictor, study)
    remarks = record.answer.model_copy(update={"remarks": ()})
    with pytest.raises(ReportError, match="modalities do not follow"):
        check_answer(record.model_copy(update={"answer": remarks}), predictor, study)


def test_what_is_shown_of_the_study_must_be_of_its_files(
    predictor: Predictor, record: ReportRecord
) -> None:
    dark = make_dicom(np.zeros((48, 64), np.uint16))
    other = gather(predictor, replace(make_study(), images=(dark,))).evidence
    cough = record.evidence.note
    assert cough is not None
    for changes in (
        {"frames": other.frames},
        {"frames": ()},
        {"note": cough.model_copy(update={"text": "FINDINGS: nothing"})},
        {"voice": None},
    ):
        evidence = record.evidence.model_copy(update=changes)
        with pytest.raises(ReportError, match="of these files"):
            check_answer(record.model_copy(update={"evidence": evidence}), predictor, make_study())


def test_a_novel_input_cannot_be_passed_off_as_a_usual_one(novel: Predictor) -> None:
    record = gather(novel, make_study())
    with pytest.raises(ReportError, match="leaves other answers to a human"):
        check_answer(record.model_copy(update={"referrals": ()}), novel, make_study())


# Targets


def test_the_most_probable_finding_is_explained_unless_others_are_asked_for(
    predictor: Predictor, novel: Predictor
) -> None:
    answer = ask(predictor, make_study())
    targets = Explainer(predictor).targets
    assert answer.tasks[0].probabilities["wordiness"] > answer.tasks[0].probabilities["brightness"]
    assert choose_targets(answer, targets, None, ready=True) == ("findings.wordiness",)
    assert choose_targets(answer, targets, ["all"], ready=True) == targets
    assert choose_targets(answer, targets, ["none"], ready=True) == ()
    asked = [BRIGHTNESS, BRIGHTNESS]
    assert choose_targets(answer, targets, asked, ready=True) == (BRIGHTNESS,)
    assert choose_targets(answer, targets, None, ready=False) == ()
    with pytest.raises(SettingsError, match="carries no explanations"):
        choose_targets(answer, targets, asked, ready=False)
    # What is left to a human anyway is not computed.
    assert choose_targets(ask(novel, make_study()), targets, ["all"], ready=True) == ()


# Commands


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    study = make_study()
    (tmp_path / "a.dcm").write_bytes(study.images[0])
    (tmp_path / "n.txt").write_bytes(NOTE)
    (tmp_path / "v.wav").write_bytes(study.voice or b"")
    (tmp_path / "key").write_bytes(KEY)
    return [
        "--dicom",
        tmp_path / "a.dcm",
        "--note",
        tmp_path / "n.txt",
        "--voice",
        tmp_path / "v.wav",
    ]


def test_the_commands_make_a_report_and_check_it(
    hand_bundle: Path, tmp_path: Path, files: list[object]
) -> None:
    out, key = tmp_path / "r.pdf", ("--key-file", tmp_path / "key")
    made = run("report", hand_bundle, *files, "--out", out, "--language", "zh", *key)
    assert made.exit_code == 0
    assert "报告" in read(out.read_bytes())
    checked = run("verify-report", out, "--bundle", hand_bundle, *files, *key)
    assert checked.exit_code == 0
    marks = [line[:12].split() for line in checked.stdout.splitlines()]
    assert marks == [[n, "ok"] for n in ("record", "pages", "seal", "model", "inputs", "answer")]
    assert "ok" not in run("verify-report", out).stdout.splitlines()[2]
    (tmp_path / "n.txt").write_bytes(b"FINDINGS: cough")
    with pytest.raises(ReportError, match="2 have a SHA-256"):
        run("verify-report", out, *files)


DOCS = (Path(__file__).parent.parent / "docs" / "report.md").read_text(encoding="utf-8")


def test_what_the_docs_say_runs(
    hand_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bundle").symlink_to(hand_bundle)
    for name in ("pa.dcm", "lateral.dcm"):
        (tmp_path / name).write_bytes(study.images[0])
    (tmp_path / "note.txt").write_bytes(NOTE)
    (tmp_path / "voice.wav").write_bytes(study.voice or b"")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^medfuse (.*)$", DOCS, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["report", "verify-report"]
    for line in lines:
        result = run(*shlex.split(line))
        assert result.exit_code == 0
    shown = re.findall(r"^(\w+) +ok ", DOCS, re.MULTILINE)
    assert [line.split()[0] for line in result.stdout.splitlines()] == shown
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    exec(compile(code, "report.md", "exec"), {})
    assert check_report(Path("report.pdf").read_bytes()).record.language == "zh"
    (reading,) = re.findall(r"^```json\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    assert Reading.model_validate_json(reading).decision == "override"
    for name in LANGUAGES:
        assert f"`{name}`" in DOCS


def test_pages_of_other_versions_exit_with_a_status_of_their_own(
    record: ReportRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = record.model_copy(update={"versions": {"medfuse": "0.0"}})
    with monkeypatch.context() as patch:
        patch.setattr(paper, "ACCENT", (0, 0, 0))  # all stands where it stood
        (tmp_path / "r.pdf").write_bytes(make_report(other))
    checked = run("verify-report", tmp_path / "r.pdf")
    assert checked.exit_code == UNSURE
    assert "medfuse 0.0" in checked.stdout


@pytest.mark.parametrize(
    "arguments", [(), ("--dicom", "gone.dcm"), ("stray.dcm",)], ids=["nothing", "gone", "stray"]
)
def test_a_wrong_command_line_is_a_usage_error(
    hand_bundle: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = run("report", hand_bundle, *arguments, "--out", tmp_path / "r.pdf")
    assert result.exit_code == 2
    assert not (tmp_path / "r.pdf").exists()


def test_a_report_that_cannot_be_written_is_an_error(
    hand_bundle: Path, tmp_path: Path, files: list[object]
) -> None:
    with pytest.raises(ReportError, match="cannot be written"):
        run("report", hand_bundle, *files, "--out", tmp_path / "no" / "r.pdf")
    with pytest.raises(SettingsError, match="language 'fr'"):
        run("report", hand_bundle, *files, "--out", tmp_path / "r.pdf", "--language", "fr")
    with pytest.raises(SettingsError, match="at most 128"):
        run("report", hand_bundle, *files, "--out", tmp_path / "r.pdf", "--study-id", "x" * 129)


def test_a_bundle_s_own_explanation_is_reported(least_bundle: Path, tmp_path: Path) -> None:
    golden = read_golden(Predictor(least_bundle).bundle).answer
    given: list[object] = ["--dicom", *(least_bundle / name for name in golden.images)]
    given += ["--note", least_bundle / golden.note, "--voice", least_bundle / golden.voice]
    made = run("report", least_bundle, *given, "--out", tmp_path / "r.pdf")
    assert made.exit_code == 0
    assert "explaining " in made.stderr
    checked = run("verify-report", tmp_path / "r.pdf", "--bundle", least_bundle, *given)
    assert checked.exit_code == 0
    record = check_report((tmp_path / "r.pdf").read_bytes()).record
    # The badge of an untrained network may fail; either way it is told.
    assert bool(record.explanations) != bool(record.referrals)
