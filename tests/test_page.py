"""The page: what it shows by itself, and in a real browser."""

import base64
import html
import io
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import httpx
import numpy as np
import pydicom
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import APIResponse, Browser, FilePayload, Locator, Page, Route, expect

from medfuse.bundle import NOTICE
from medfuse.config import Limits, NoteSettings
from medfuse.data.dicom import decode_frames
from medfuse.data.studies import find_studies
from medfuse.data.voice import decode_voice
from medfuse.errors import BundleError, DicomError, LimitError
from medfuse.headings import SECTION_HEADINGS
from medfuse.types import Study
from medfuse_serving.answer import format_probability, to_answer
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import ENGLISH, LANGUAGES, find_language
from medfuse_serving.page.desk import Desk, edit_note, lay_images, lay_out, take_up
from medfuse_serving.page.desk_view import show_answer, show_image
from medfuse_serving.page.mount import build_page, mount_page
from medfuse_serving.predictor import Predictor
from medfuse_serving.rendering import note_html, voice_html
from medfuse_serving.report.record import ReportRecord
from medfuse_serving.report.render import make_report
from medfuse_serving.report.verify import check_inputs, check_model, open_report
from medfuse_serving.shelves import Shelves
from tests.browser import open_browser, open_page, read_greys, release, wait_until
from tests.hand_bundle import NOTE, SETTINGS, make_dicom, make_study, make_wav, write_study
from tests.hand_network import MIXED, HandNetwork
from tests.live import running

# Gradio's queue tells pandas 3 what pandas 3 no longer needs to be told, every so many events.
pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


def data_of(text: str, media_type: str) -> bytes:
    found = re.search(rf'src="data:{media_type};base64,([^"]+)"', text)
    assert found
    return base64.b64decode(found[1])


def test_the_recording_is_played_as_the_model_hears_it() -> None:
    data = make_wav()
    played, rate = soundfile.read(
        io.BytesIO(data_of(voice_html(ENGLISH, data, Limits()), "audio/wav")), dtype="float32"
    )
    assert rate == 16_000
    np.testing.assert_allclose(played, decode_voice(data, Limits()).waveform, atol=1e-4)


def test_a_note_shows_its_sections_and_which_are_not_read() -> None:
    shown = note_html(ENGLISH, NOTE, NoteSettings(), Limits())
    findings, impression = re.findall(r"<section.*?</section>", shown)
    assert "cough and fever" in findings
    assert "not read" not in findings
    assert "fever" in impression
    assert "not read by the model" in impression
    chinese = note_html(find_language("zh"), NOTE, NoteSettings(), Limits())
    assert re.findall(r"<h4>([^<]*)", chinese) == ["所见", "诊断印象"]


def test_every_section_has_a_name_in_each_language() -> None:
    for code in LANGUAGES:
        if code != "en":
            names = [find_language(code).name(section.lower()) for section in SECTION_HEADINGS]
            assert not set(names) & {section.lower() for section in SECTION_HEADINGS}
            note = "\n".join(f"{section}: x" for section in SECTION_HEADINGS).encode()
            shown = note_html(find_language(code), note, NoteSettings(), Limits())
            assert set(names) <= set(re.findall(r"<h4>([^<]+)<", shown))


@given(st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable()))
def test_no_note_can_write_html_or_templates(text: str) -> None:
    shown = note_html(ENGLISH, f"FINDINGS: {text}".encode(), NoteSettings(), Limits())
    shown = shown.replace(' role="region" aria-label="The note by sections" tabindex="0"', "")
    inside = re.sub(r"</?(div|section|h4|span|p)( class=\"[a-z -]+\")?>", "", shown)
    assert not set(inside) & set("<>\"'${}`")
    assert "".join(text.split()) in "".join(html.unescape(inside).split())


def test_probabilities_are_read_without_colour(predictor: Predictor) -> None:
    study = make_study()
    answer = to_answer(predictor.predict([study])[0])
    shown = show_answer(Desk(answer=answer))
    for name, probability in answer.tasks[0].probabilities.items():
        row = shown[shown.index(f">{name}<") :]
        assert html.escape(format_probability(probability)) in row[:300]
        assert f"width:{100 * probability:.2f}%" in row[:300]
    for text in ("Image: used", "Voice: used", answer.model_digest, answer.remarks[0].message):
        assert text in shown
    (alone,) = predictor.predict([Study(note=b"cough")])
    assert "Voice: not given" in show_answer(Desk(answer=to_answer(alone)))


def test_what_to_press_depends_on_whether_a_study_is_open() -> None:
    assert "Open a study or give its parts" in show_answer(Desk())
    assert "This study has no answer yet; press Predict." in show_answer(Desk(study=make_study()))


def test_an_unchanged_note_is_sent_as_the_bytes_it_came_in(predictor: Predictor) -> None:
    data = "INDICATION: fièvre\r\nHISTORY: toux".encode("cp1252")
    desk = lay_out(ENGLISH, Study(note=data), SETTINGS, Shelves())
    typed = desk.note_text.replace("\r\n", "\n")  # what a text box makes of it
    assert edit_note(desk, typed, desk.laid).study.note == data
    assert edit_note(desk, typed + "!", desk.laid).study.note == (typed + "!").encode()
    assert edit_note(desk, " ", desk.laid).study.note is None


def test_an_image_that_cannot_be_read_is_said_where_it_would_be_shown() -> None:
    desk = lay_out(ENGLISH, Study(images=(b"no image",), note=NOTE), SETTINGS, Shelves())
    with pytest.raises(DicomError) as caught:
        decode_frames([b"no image"], SETTINGS.image, SETTINGS.limits)
    assert str(caught.value) in html.unescape(show_image(desk))
    assert desk.note_text == NOTE.decode()


def test_more_images_than_can_be_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medfuse_serving.page.desk.UPLOAD_BYTES", 5)
    with pytest.raises(LimitError, match="6 bytes together"):
        lay_images(Desk(), (b"123", b"456"), SETTINGS, Shelves())


def test_an_upload_is_gone_once_it_is_taken_up_even_when_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"1234")
    assert take_up(str(path), 4) == b"1234"
    assert not path.exists()
    path.write_bytes(b"12345")
    with pytest.raises(LimitError):
        take_up(str(path), 4)
    assert not path.exists()


# In a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def network() -> HandNetwork:
    return HandNetwork(MIXED)


@pytest.fixture(scope="module")
def url(
    predictor: Predictor,
    network: HandNetwork,
    uploads: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("examples") / "first"
    write_study(folder, make_study())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        explainer = Explainer(predictor, None, network)
        app = mount_page(build_api(explainer, 2**20), explainer, find_studies(folder.parent))
        with running(app) as url:
            yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as page:
        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        expect(page.locator("html[data-language]")).to_be_attached()  # the page has started
        yield page


def predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()


def test_an_example_is_shown_and_answered(page: Page, predictor: Predictor) -> None:
    expect(page.locator(".mf-header")).to_contain_text(NOTICE)
    page.get_by_label("Example study").click()
    page.get_by_role("option", name="first").click()
    expect(page.locator("#image .mf-what")).to_contain_text("64 \N{MULTIPLICATION SIGN} 48")
    # Stored values 0 to 4095 in a window from 0 to 4095: the nearest of 256 greys, on every pixel.
    ((ds,),) = ([pydicom.dcmread(io.BytesIO(image)) for image in make_study().images],)
    shown = read_greys(page)
    assert np.abs(shown - ds.pixel_array * (255 / 4095)).max() <= 0.5 + 1e-6
    expect(page.locator("#note")).to_contain_text("not read by the model")
    page.wait_for_function("document.querySelector('#voice audio').duration > 0.99")
    predict(page)
    answer = to_answer(predictor.predict([make_study()])[0])
    for probability in answer.tasks[0].probabilities.values():
        expect(page.locator("#answer")).to_contain_text(format_probability(probability))
    expect(page.locator("#answer")).to_contain_text(predictor.bundle.digest)
    # An answer never stays beside a study it is not of.
    page.get_by_label("Note", exact=True).press_sequentially(" and more")
    expect(page.locator("#answer")).not_to_contain_text("%")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#answer")).not_to_contain_text("%")
    expect(page.locator("#image")).to_contain_text("No image")


def test_a_look_at_the_examples_leaves_the_study_that_lies_there(
    page: Page, steady: HandNetwork
) -> None:
    note = page.get_by_label("Note", exact=True)
    note.press_sequentially("FINDINGS: cough and fever")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    reason = page.get_by_label("Reason (needed to edit or override)")
    reason.press_sequentially("rotated")
    steady.delay_s = 0.5
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Explaining")
    examples = page.get_by_label("Example study")
    for leave in ("Tab", "Shift+Tab", "click"):
        examples.click()
        if leave == "click":
            page.locator("h1").click()
        else:
            examples.press(leave)
        page.wait_for_timeout(700)
        expect(note).to_have_value("FINDINGS: cough and fever")
        expect(page.locator("#answer")).to_contain_text("%")
        expect(reason).to_have_value("rotated")
        expect(page.locator("#explanation")).to_contain_text("Explaining")


def test_leaving_the_note_takes_no_place_in_the_queue(page: Page) -> None:
    # A click on Predict leaves the note too; were both queued, the first to end would close the
    # stream that the other's answer comes by, and now and then the answer was lost.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlparse(request.url).path))
    note = page.get_by_label("Note", exact=True)
    note.press_sequentially("Cough.")
    note.blur()
    expect(page.locator("#note")).to_contain_text("Cough.")
    assert any("/run/" in path for path in asked)
    assert not any("/queue/" in path for path in asked)


def test_uploads_are_answered_and_leave_nothing_behind(
    page: Page, url: str, uploads: Path, predictor: Predictor
) -> None:
    study = make_study()
    sent: list[str] = []
    page.on(
        "response",
        lambda r: (
            sent.extend(r.json()) if r.request.method == "POST" and "/upload" in r.url else None
        ),
    )
    files = (page.locator("input[type=file]").nth(i) for i in range(5))
    image, prior, note, dictation, voice = files
    image.set_input_files({"name": "Doe.dcm", "mimeType": "", "buffer": study.images[0]})
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    note.set_input_files({"name": "Doe.txt", "mimeType": "text/plain", "buffer": NOTE})
    expect(page.locator("#note")).to_contain_text("cough and fever")
    dictation.set_input_files({"name": "Doe.wav", "mimeType": "", "buffer": study.voice or b""})
    expect(page.locator("#given-told")).to_contain_text("no speech to write down")
    voice.set_input_files({"name": "Doe.wav", "mimeType": "", "buffer": study.voice or b""})
    expect(page.locator("#voice audio")).to_be_visible()
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    prior.set_input_files({"name": "Doe.dcm", "mimeType": "", "buffer": study.images[0]})
    expect(page.locator("#prior .mf-what")).to_contain_text("pixels")
    predict(page)
    answer = to_answer(predictor.predict([study])[0])
    for probability in answer.tasks[0].probabilities.values():
        expect(page.locator("#answer")).to_contain_text(format_probability(probability))
    assert len(sent) == 5
    assert [path for path in uploads.rglob("*") if path.is_file() and path.stat().st_size] == []
    for path in sent:
        assert httpx.get(f"{url}/gradio_api/file={path}").status_code in {403, 404}


def find_shelf(page: Page, place: str = "#image") -> str:
    """Give the address of what the viewer shows."""
    expect(page.locator(f"{place} .mf-what")).to_contain_text("pixels")
    return str(page.locator(f"{place} mf-viewer").get_attribute("data-shelf"))


def choose_example(page: Page) -> None:
    page.get_by_label("Example study").click()
    page.get_by_role("option", name="first").click()
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def test_two_users_side_by_side_have_nothing_of_each_other_s(browser: Browser, url: str) -> None:
    with open_page(browser, url) as one, open_page(browser, url) as other:
        choose_example(one)
        image = make_dicom(np.full((9, 18), 7, np.uint16))
        upload = FilePayload(name="x", mimeType="", buffer=image)
        other.locator("input[type=file]").nth(0).set_input_files(upload)
        addresses = find_shelf(one), find_shelf(other)
        assert addresses[0] != addresses[1]
        for page, there, elsewhere in ((one, 0, 1), (other, 1, 0)):
            text = page.content()
            assert addresses[there] in text, "the study was opened more than once"
            assert addresses[elsewhere] not in text
        one.get_by_role("button", name="Clear all").click()
        expect(one.locator("#image")).to_contain_text("No image")
        assert httpx.get(f"{url}/shelves/{addresses[0]}/0").status_code == 404
        assert other.request.get(f"{url}/shelves/{addresses[1]}/0").status == 200


def test_a_study_is_forgotten_soon_after_its_page_is_closed(
    browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medfuse_serving.page.mount.CLOSED_S", 0.5)
    with open_page(browser, url) as page:
        choose_example(page)
        address = find_shelf(page)
        assert page.request.get(f"{url}/shelves/{address}/0").status == 200
    for _ in range(60):
        if httpx.get(f"{url}/shelves/{address}/0").status_code == 404:
            return
        time.sleep(0.5)
    raise AssertionError("the study is still there")


def test_bad_input_is_told_in_words(page: Page) -> None:
    predict(page)
    expect(page.locator("#answer")).to_contain_text("no image, no note and no voice")
    image = page.locator("input[type=file]").nth(0)
    image.set_input_files({"name": "Doe.dcm", "mimeType": "", "buffer": b"not an image"})
    expect(page.locator("#image .mf-problem")).to_contain_text("not a DICOM file")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("no image, no note and no voice")
    expect(page.locator("body")).not_to_contain_text("Doe")


def test_one_image_that_cannot_be_used_takes_no_other_along(page: Page) -> None:
    good = make_dicom(np.full((9, 18), 7, np.uint16))
    another = make_dicom(np.full((9, 9), 7, np.uint16), patient_id="Other")
    png = io.BytesIO()
    Image.new("L", (4, 4)).save(png, format="PNG")
    given = [good, b"not an image", png.getvalue(), b"nor this", another, good]
    page.locator("input[type=file]").nth(0).set_input_files(
        [FilePayload(name=f"Doe{i}.dcm", mimeType="", buffer=d) for i, d in enumerate(given)]
    )
    image = page.locator("#image")
    expect(image).to_contain_text("Frame 1 of 2")
    for said in (
        "Image 2, 4 of 6 given cannot be used. the file is not a DICOM file",
        "Image 3 of 6 given cannot be used. a PNG or JPEG came where DICOM is expected",
        "Image 5 of 6 given cannot be used. PatientID differs",
        "The other images were taken.",
    ):
        expect(image).to_contain_text(said)
    expect(page.locator("body")).not_to_contain_text("Doe")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    # What is given afterwards and cannot be used changes nothing of the study or its answer.
    bad = FilePayload(name="Doe.dcm", mimeType="", buffer=b"nor this")
    page.locator("input[type=file]").nth(0).set_input_files(bad)
    expect(image).to_contain_text("Image 1 of 1 given cannot be used.")
    expect(image).to_contain_text("Frame 1 of 2")
    expect(page.locator("#answer")).to_contain_text("%")
    turn_to_chinese(page)
    expect(image).to_contain_text("第 1 幅无法使用")


def give_images(page: Page, place: int, *images: bytes) -> None:
    files = [FilePayload(name="Doe.dcm", mimeType="", buffer=image) for image in images]
    page.locator("input[type=file]").nth(place).set_input_files(files)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_image_is_removed_and_all_else_stays(
    page: Page, predictor: Predictor, number: int
) -> None:
    images = [make_dicom(np.full((9, 9 + v), v, np.uint16)) for v in (1, 2, 3)]
    image, answer = page.locator("#image"), page.locator("#answer")
    give_images(page, 0, *images)
    expect(image).to_contain_text("Frame 1 of 3")
    note = page.get_by_label("Note", exact=True)
    note.fill("FINDINGS: cough")
    predict(page)
    expect(answer).to_contain_text("%")
    for _ in range(number - 1):
        page.get_by_role("slider", name="Frame").press("ArrowRight")
    expect(image).to_contain_text(f"{9 + number} \N{MULTIPLICATION SIGN} 9 pixels")
    note.press_sequentially(" and fever")
    image.get_by_role("button", name="Remove image").click()
    expect(image).to_contain_text(f"Image {number} of 3 was removed.")
    expect(image).to_contain_text("Frame 1 of 2")
    expect(image.get_by_role("button", name="Remove image")).to_be_focused()
    expect(page.locator("#mf-told")).to_contain_text(f"Image {number} of 3 was removed.")
    expect(answer).not_to_contain_text("%")
    expect(note).to_have_value("FINDINGS: cough and fever")
    del images[number - 1]
    predict(page)
    study = Study(images=tuple(images), note=b"FINDINGS: cough and fever")
    answered = to_answer(predictor.predict([study])[0])
    for probability in answered.tasks[0].probabilities.values():
        expect(answer).to_contain_text(format_probability(probability))
    for _ in images:
        image.get_by_role("button", name="Remove image").click()
        expect(answer).not_to_contain_text("%")
        page.wait_for_timeout(200)
    expect(image).to_contain_text("No image given.")
    expect(image).to_contain_text("Image 1 of 1 was removed.")
    expect(image.locator("h2")).to_be_focused()
    turn_to_chinese(page)
    expect(image).to_contain_text("已移除第 1 幅图像")


def test_what_is_typed_while_a_part_is_taken_up_stays(page: Page, predictor: Predictor) -> None:
    held: list[tuple[Route, APIResponse]] = []
    note, image = page.get_by_label("Note", exact=True), make_dicom(np.full((9, 9), 1, np.uint16))
    note.fill("FINDINGS: cough")
    page.route("**/gradio_api/queue/data*", lambda route: held.append((route, route.fetch())))
    give_images(page, 0, image)
    wait_until(page, lambda: len(held) == 1)
    note.press("End")
    note.press_sequentially(" and fever")
    release(held)
    page.unroute("**/gradio_api/queue/data*")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    expect(note).to_have_value("FINDINGS: cough and fever")
    predict(page)
    study = Study(images=(image,), note=b"FINDINGS: cough and fever")
    answered = to_answer(predictor.predict([study])[0])
    for probability in answered.tasks[0].probabilities.values():
        expect(page.locator("#answer")).to_contain_text(format_probability(probability))


def test_a_prior_image_is_removed_and_the_answer_stays(page: Page) -> None:
    prior = page.locator("#prior")
    give_images(page, 0, make_dicom(np.full((9, 9), 1, np.uint16)))
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    give_images(page, 1, *(make_dicom(np.full((9, 9 + v), v, np.uint16)) for v in (1, 2)))
    expect(prior).to_contain_text("frame 1 of 2")
    prior.get_by_role("button", name="Remove image").click()
    expect(prior).to_contain_text("Image 1 of 2 was removed.")
    expect(prior).to_contain_text("frame 1 of 1 \N{MIDDLE DOT} 11 \N{MULTIPLICATION SIGN} 9")
    prior.get_by_role("button", name="Remove image").click()
    expect(prior).to_be_hidden()
    expect(page.locator("#image h2")).to_be_focused()
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    expect(page.locator("#answer")).to_contain_text("%")


def test_the_recording_is_removed_and_all_else_stays(page: Page) -> None:
    remove = page.get_by_role("button", name="Remove the recording")
    expect(remove).to_be_hidden()
    choose_example(page)
    note = page.get_by_label("Note", exact=True).input_value()
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    remove.click()
    expect(page.locator("#voice")).to_contain_text("No recording given.")
    expect(page.locator("#voice h2")).to_be_focused()
    expect(remove).to_be_hidden()
    expect(page.locator("#answer")).not_to_contain_text("%")
    expect(page.get_by_label("Note", exact=True)).to_have_value(note)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def test_each_view_of_a_study_is_turned_to_by_the_slider(page: Page) -> None:
    views = [
        FilePayload(name="x", mimeType="", buffer=make_dicom(np.full((9, 9), v, np.uint16)))
        for v in (0, 4095)
    ]
    page.locator("input[type=file]").nth(0).set_input_files(views)
    expect(page.locator("#image")).to_contain_text("Frame 1 of 2")
    page.get_by_role("slider", name="Frame").press("ArrowRight")
    expect(page.locator("#image")).to_contain_text("Frame 2 of 2")


# Explanations -------------------------------------------------------------------------------

MINUS = "\N{MINUS SIGN}"


@pytest.fixture
def steady(network: HandNetwork) -> Iterator[HandNetwork]:
    """The page's network, which a test may slow down or make wrong."""
    yield network
    network.slope, network.delay_s = 1.0, 0.0


def open_example(page: Page) -> None:
    choose_example(page)
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")


def expect_blank(place: Locator) -> None:
    """Wait until a place shows nothing; while an event is under way Gradio may show its clock."""
    expect(place).to_have_text(re.compile(r"^\s*$"), use_inner_text=True)


def choose_brightness(page: Page) -> None:
    """Choose the finding whose explanation holds."""
    page.get_by_label("Finding to explain").click()
    page.get_by_role("option", name="findings: brightness").click()


def ask_why(page: Page) -> None:
    page.get_by_role("button", name="Explain this answer").click()


def test_nothing_is_explained_until_it_is_asked(page: Page, steady: HandNetwork) -> None:
    why = page.get_by_role("button", name="Explain this answer")
    expect(why).to_be_hidden()  # there is no answer to explain
    open_example(page)
    asked = steady.asked
    expect(why).to_be_visible()
    expect(page.get_by_label("Finding to explain")).to_have_value(
        "findings: wordiness"
    )  # most probable
    for place in ("#explanation", "#image-map", "#note-map", "#voice-map"):
        expect_blank(page.locator(place))
    expect(page.locator(".mf-heat")).to_be_hidden()
    expect(page.get_by_label("Show what spoke for and against")).to_be_hidden()
    assert steady.asked == asked
    page.get_by_role("button", name="Clear all").click()
    expect(why).to_be_hidden()


def test_an_answer_is_explained_over_its_evidence(page: Page) -> None:
    open_example(page)
    choose_brightness(page)
    page.get_by_role("button", name="Explain this answer").press("Enter")
    summary = page.locator("#explanation")
    expect(summary).to_contain_text("Reliable: all 4 checks passed")
    expect(summary).to_contain_text("Why brightness?")
    # As worked out by hand: the ramp's mean, and seven pieces' tenths.
    for text in ("+0.38", "+0.70", "A black image", "Integrated gradients", "Completeness gap"):
        expect(summary).to_contain_text(text)
    assert "+0.38" in page.get_by_role("table", name="Shares").inner_text()

    # Sentences say it; the maps are off until they are asked for.
    expect(summary).to_contain_text("The note contributes 58 % and speaks for brightness")
    overlay = page.locator("#image .mf-heat")
    switch = page.get_by_label("Show what spoke for and against")
    expect(switch).not_to_be_checked()
    for place in (".mf-heat", "#note-map", "#voice-map", "#strength"):
        expect(page.locator(place)).to_be_hidden()
    expect(page.locator("#note")).to_contain_text("not read by the model")
    expect(page.locator("#voice audio")).to_be_visible()
    switch.press("Space")
    expect(overlay).to_be_visible()
    assert overlay.evaluate("canvas => [canvas.width, canvas.height]") == [64, 48]
    word = page.locator("#note-map .mf-word", has_text="cough")
    assert word.locator("small").inner_text() == "+0.10"
    expect(page.locator("#note-map")).to_contain_text("IMPRESSION: fever")
    expect(page.locator("#voice-map svg")).to_contain_text("Hz")
    expect(page.locator("#voice-map audio")).to_be_visible()
    for place in ("#image-map", "#note-map", "#voice-map"):
        expect(page.locator(place)).to_contain_text("the same for every study")
    expect(page.locator(".mf-header")).to_contain_text(NOTICE)

    switch.press("Space")
    expect(overlay).to_be_hidden()
    expect(word.locator("small")).to_be_hidden()
    expect(page.locator("#image .mf-pixels")).to_be_visible()
    switch.press("Space")
    expect(overlay).to_be_visible()

    # An explanation never stays beside a study it is not of.
    page.get_by_label("Note", exact=True).press_sequentially(" and more")
    expect(page.locator(".mf-map")).to_have_count(0)
    expect_blank(summary)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def test_the_table_of_the_evidence_leads_to_it(page: Page) -> None:
    open_example(page)
    choose_brightness(page)
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    page.get_by_text("The evidence as a table").click()
    table = page.get_by_role("table", name="Evidence for and against brightness")
    row = table.get_by_role("row", name="fever")
    row.get_by_role("button", name="Show").press("Enter")
    # The maps are on, the words are marked, and the table stays open.
    expect(page.get_by_label("Show what spoke for and against")).to_be_checked()
    words = page.locator("#note-map a.mf-group", has_text="fever")
    expect(words).to_have_class("mf-group mf-marked")
    expect(words).to_be_in_viewport()
    expect(table).to_be_visible()
    # Numbers, table and words are of one explanation, and go with it.
    # Five words' tenths; special pieces get nothing.
    assert row.get_by_role("cell").all_inner_texts()[:2] == ["+0.50", "100 %"]
    page.get_by_label("Note", exact=True).press_sequentially(" and more")
    expect(page.locator(".mf-pieces")).to_have_count(0)
    expect(page.locator("mf-strength")).to_have_count(0)


CHANGES = ("Delete", "Control+z", "Backspace", "Control+z", "Control+x", "Control+v", "menu", "x")
"""Ways in which what stands in a text box becomes another text."""


def test_no_way_to_change_the_note_leaves_what_was_said_of_it(page: Page) -> None:
    open_example(page)
    choose_brightness(page)
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    note, answer = page.get_by_label("Note", exact=True), page.locator("#answer")
    for change in CHANGES:
        if "%" not in answer.inner_text():
            predict(page)
            expect(answer).to_contain_text("%")
        before = note.input_value()
        note.press("Control+a")
        if change == "menu":
            note.evaluate("() => document.execCommand('insertText', false, 'fever')")
        else:
            note.press(change)
        assert note.input_value() != before, change
        expect(answer).not_to_contain_text("%")  # before the note is left
        expect(page.locator(".mf-map")).to_have_count(0)
        expect_blank(page.locator("#explanation"))


def test_the_band_over_baselines_is_shown_when_asked(page: Page) -> None:
    open_example(page)
    choose_brightness(page)
    page.get_by_text("Advanced").click()
    page.get_by_label("Show how far the shares move").check()
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("highest over 4 baselines")
    expect(page.get_by_role("table", name="Shares")).to_contain_text("[")


def test_maps_that_could_mislead_are_withheld_and_the_reason_is_shown(
    page: Page, steady: HandNetwork
) -> None:
    steady.slope = 2.0
    open_example(page)
    ask_why(page)
    summary = page.locator("#explanation")
    expect(summary).to_contain_text("Maps withheld")
    expect(summary).to_contain_text("FAILED: completeness. The map accounts for the output but for")
    expect(summary).to_contain_text("Refer to a human.")
    # Neither the score nor what adds up to it is shown any more; the other finding's score is.
    expect(page.get_by_role("table", name="Shares")).to_have_count(0)
    rows = page.locator("#answer .mf-bar")
    expect(rows.filter(has_text="wordiness")).to_contain_text("Refer to a human.")
    expect(rows.filter(has_text="wordiness")).not_to_contain_text("%")
    expect(rows.filter(has_text="brightness")).to_contain_text("%")
    expect(page.locator(".mf-map")).to_have_count(0)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    expect(page.get_by_label("Show what spoke for and against")).to_be_hidden()


def test_what_cannot_be_explained_is_told_in_its_place(page: Page) -> None:
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    page.get_by_text("Advanced").click()
    page.get_by_label("Method").click()
    page.get_by_role("option", name="Grad-CAM").click()
    ask_why(page)
    expect(page.locator("#explanation .mf-problem")).to_contain_text("the study has none")
    expect(page.locator("#answer")).to_contain_text("%")


def test_an_explanation_under_way_ends_when_the_study_changes(
    page: Page, steady: HandNetwork
) -> None:
    open_example(page)
    choose_brightness(page)
    begun = steady.asked
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    whole = steady.asked - begun

    steady.delay_s = 0.05
    begun = steady.asked
    ask_why(page)
    expect(page.locator("#explanation .mf-progress")).to_contain_text(re.compile("[1-9] %"))
    page.get_by_label("Note", exact=True).press_sequentially(" more")
    expect(page.locator("#explanation .mf-progress")).to_have_count(0)
    asked = -1
    while asked != steady.asked:  # until none was asked for a second
        asked = steady.asked
        page.wait_for_timeout(1000)
    assert asked - begun < whole
    for place in ("#explanation", "#image-map", "#note-map", "#voice-map"):
        expect_blank(page.locator(place))


def test_each_view_has_its_own_map(page: Page) -> None:
    views = [
        FilePayload(name="x", mimeType="", buffer=make_dicom(np.full(size, 4095, np.uint16)))
        for size in ((9, 9), (9, 18))
    ]
    page.locator("input[type=file]").nth(0).set_input_files(views)
    expect(page.locator("#image")).to_contain_text("Frame 1 of 2")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    choose_brightness(page)
    ask_why(page)
    page.get_by_label("Show what spoke for and against").check()
    overlay = page.locator("#image .mf-heat")
    expect(overlay).to_be_visible()
    assert overlay.evaluate("canvas => canvas.width") == 9
    page.get_by_role("slider", name="Frame").press("ArrowRight")
    expect(page.locator("#image")).to_contain_text("Frame 2 of 2")
    expect(overlay).to_have_js_property("width", 18)


def give_prior(page: Page, pixels: np.ndarray, study_uid: str = "1.9") -> str:
    """Give an image of an earlier study, and find the address of what is shown of it."""
    image = make_dicom(pixels.astype(np.uint16), study_uid=study_uid)
    upload = FilePayload(name="x", mimeType="", buffer=image)
    page.locator("input[type=file]").nth(1).set_input_files(upload)
    return find_shelf(page, "#prior")


def test_an_earlier_study_is_shown_beside_the_present_one_and_has_no_part_in_the_answer(
    page: Page, url: str, steady: HandNetwork
) -> None:
    open_example(page)
    choose_brightness(page)
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    places = [page.locator(place) for place in ("#answer .mf-answer", "#explanation .mf-answer")]
    said = [place.inner_text() for place in places]
    expect(page.get_by_role("button", name="Remove the prior images")).to_be_hidden()
    older = np.tile(np.linspace(0, 4095, 64)[::-1], (48, 1)).round()
    address = give_prior(page, older)
    # Nothing was asked anew, and nothing taken away.
    asked = steady.asked
    assert [place.inner_text() for place in places] == said
    present = "Present study: what the answer is about \N{MIDDLE DOT} Study date not given"
    expect(page.locator("#image .mf-which")).to_have_text(present)
    expect(page.locator("#prior")).to_contain_text("Prior study: for comparison, not read")
    expect(page.locator("#prior .mf-doubt")).to_have_count(0)
    for place, values in (("#image", older[:, ::-1]), ("#prior", older)):
        shown = read_greys(page.locator(f"{place} mf-viewer"))
        assert np.abs(shown - values * (255 / 4095)).max() <= 0.5 + 1e-6
    # The two stand side by side, as tall and as wide.
    boxes = [page.locator(f"{place} .mf-stage").bounding_box() for place in ("#image", "#prior")]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
    for side, tolerance in (("y", 2), ("width", 2), ("height", 0)):
        assert boxes[0][side] == pytest.approx(boxes[1][side], abs=tolerance)  # type: ignore[literal-required]
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    assert places[0].inner_text() == said[0]
    assert steady.asked == asked
    page.get_by_role("button", name="Remove the prior images").click()
    expect_blank(page.locator("#prior"))
    assert httpx.get(f"{url}/shelves/{address}/0").status_code == 404
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def test_an_earlier_study_given_while_an_explanation_is_under_way_stays(
    page: Page, url: str, steady: HandNetwork
) -> None:
    open_example(page)
    choose_brightness(page)
    steady.delay_s = 0.05
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Explaining")
    address = give_prior(page, np.full((9, 9), 7))
    steady.delay_s = 0.0
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    assert page.request.get(f"{url}/shelves/{address}/0").status == 200


@pytest.mark.parametrize("how", ["Clear all", "another example"])
def test_an_earlier_study_goes_with_the_one_it_was_given_to(page: Page, url: str, how: str) -> None:
    if how == "Clear all":
        choose_example(page)
    address = give_prior(page, np.full((9, 9), 7), study_uid="1.2.3")
    if how == "Clear all":
        expect(page.locator("#prior .mf-doubt")).to_contain_text("the same study")
        # It lies over both images, and pushes neither of them down.
        present, prior = (
            page.locator(f"{place} .mf-stage").bounding_box() for place in ("#image", "#prior")
        )
        assert present
        assert prior
        assert prior["y"] == pytest.approx(present["y"])
        page.get_by_role("button", name="Clear all").click()
    else:
        choose_example(page)
    expect_blank(page.locator("#prior"))
    assert httpx.get(f"{url}/shelves/{address}/0").status_code == 404


def test_an_earlier_study_turns_to_another_language_too(page: Page) -> None:
    choose_example(page)
    give_prior(page, np.full((9, 9), 7))
    turn_to_chinese(page)
    expect(page.locator("#prior h2")).to_have_text("既往图像")
    expect(page.locator("#prior .mf-what")).to_contain_text("既往检查")
    expect(page.get_by_role("button", name="联动", exact=True)).to_be_visible()


def test_an_earlier_study_that_cannot_be_shown_is_told_in_its_place(page: Page) -> None:
    choose_example(page)
    upload = FilePayload(name="x", mimeType="", buffer=b"no image")
    page.locator("input[type=file]").nth(1).set_input_files(upload)
    expect(page.locator("#prior .mf-problem")).to_contain_text("DICOM")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def test_an_explanation_that_is_under_way_is_stopped_by_hand(
    page: Page, steady: HandNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_example(page)
    choose_brightness(page)
    stop = page.get_by_role("button", name="Stop explaining")
    expect(stop).to_be_hidden()
    monkeypatch.setattr(steady, "delay_s", 0.05)
    begun = steady.asked
    ask_why(page)
    progress = page.locator("#explanation .mf-progress")
    expect(progress).to_contain_text(re.compile("[1-9] %"))
    # The browser's own bar has a track that looks full.
    bar = progress.locator("progress")
    assert bar.evaluate("e => getComputedStyle(e).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert bar.evaluate("e => getComputedStyle(e).appearance") == "none"
    stop.press("Enter")
    expect_blank(page.locator("#explanation"))
    expect(stop).to_be_hidden()
    expect(page.locator("#mf-told")).to_contain_text("The explanation was stopped.")
    expect(page.get_by_role("button", name="Explain this answer")).to_be_focused()
    page.wait_for_timeout(2000)
    stopped = steady.asked
    expect(page.locator("#answer")).to_contain_text("%")
    monkeypatch.setattr(steady, "delay_s", 0.0)
    page.wait_for_timeout(500)
    assert steady.asked == stopped  # the work has ended too
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    assert stopped - begun < steady.asked - stopped  # and before it was all done


def test_what_comes_is_told_once_and_the_focus_goes_to_it(page: Page, steady: HandNetwork) -> None:
    page.evaluate(
        """() => {
            window.told = [];
            window.heard = [];
            new MutationObserver((changes) => {
                for (const { addedNodes } of changes) {
                    for (const node of addedNodes) told.push(node.textContent);
                }
            }).observe(document.querySelector("#mf-told"), { childList: true });
            const live = "[role=status], [role=alert], [aria-live]";
            new MutationObserver(() => {
                for (const place of document.querySelectorAll(live)) {
                    if (place.textContent) heard.push(place.textContent);
                }
            }).observe(document, { childList: true, subtree: true, characterData: true });
        }"""
    )

    def expect_told(count: int) -> list[str]:
        page.wait_for_function(f"told.length >= {count}")
        said: list[str] = page.evaluate("told")
        assert len(said) == count, said
        return said

    open_example(page)
    ready = "^Answer ready. Findings: brightness 54.7 %, wordiness 66.8 %; Loudness: .* dB$"
    assert re.match(ready, expect_told(1)[0])
    expect(page.get_by_role("heading", name="Answer", exact=True)).to_be_focused()
    choose_brightness(page)
    page.get_by_role("button", name="Explain this answer").press("Enter")
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    expect(page.get_by_role("heading", name="Explanation", exact=True)).to_be_focused()
    steps = ["The answer is being explained.", "Explanation ready: brightness."]
    assert expect_told(3)[1:] == steps
    # Nobody who has gone on is brought back.
    steady.delay_s = 0.01
    ask_why(page)
    reason = page.get_by_label("Reason (needed")
    reason.press_sequentially("I disagree")
    assert expect_told(5)[1:] == steps * 2
    expect(reason).to_be_focused()
    heard = " ".join(page.evaluate("[...new Set(heard)]")).lower()
    assert "answer ready" in heard
    for state in ("complete", "processing", "queue", "loading"):  # Gradio's
        assert state not in heard


def test_an_upload_is_named_by_what_it_takes(page: Page) -> None:
    for name in ("Images", "Prior images", "Recording"):
        named = re.compile(rf"^{name} \(.*Click to upload")
        expect(page.get_by_role("button", name=named)).to_have_count(1)
    turn_to_chinese(page)
    names = page.locator("button.upload-container").evaluate_all(
        "all => all.map(e => document.getElementById(e.ariaLabelledByElements[0].id).textContent)"
    )
    assert len(set(names)) == 3
    for name in names:
        assert "DICOM" in name
        assert "mages" not in name
        assert "Recording" not in name


def test_an_explanation_ends_soon_after_its_page_is_closed(
    browser: Browser, url: str, steady: HandNetwork
) -> None:
    steady.delay_s = 0.3
    with open_page(browser, url) as page:
        open_example(page)
        choose_brightness(page)
        ask_why(page)
        expect(page.locator("#explanation .mf-progress")).to_contain_text(re.compile("[5-9]. %"))
    asked = -1
    for _ in range(5):
        if asked == steady.asked:
            return
        asked = steady.asked
        time.sleep(1)
    raise AssertionError("the explanation goes on")


def test_an_explanation_begins_at_once_after_one_that_was_stopped(
    page: Page, steady: HandNetwork
) -> None:
    open_example(page)
    choose_brightness(page)
    # Half-way, in the midst of checks that take the graph's time again and again.
    steady.delay_s = 0.3
    ask_why(page)
    expect(page.locator("#explanation .mf-progress")).to_contain_text(re.compile("[5-9]. %"))
    page.get_by_role("button", name="Stop explaining").click()
    expect_blank(page.locator("#explanation"))
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Explaining")
    steady.delay_s = 0.0
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    # Pressed again, it explains what is chosen by now, and that alone.
    steady.delay_s = 0.3
    ask_why(page)
    expect(page.locator("#explanation .mf-progress")).to_contain_text(re.compile("[5-9]. %"))
    page.get_by_label("Finding to explain").click()
    page.get_by_role("option", name="findings: wordiness").click()
    ask_why(page)
    expect(page.locator("#explanation .mf-progress")).to_contain_text(re.compile("[5-9]. %"))
    steady.delay_s = 0.0
    expect(page.locator("#explanation")).to_contain_text("Why wordiness?")


def test_a_coarse_map_does_not_outlast_an_explanation_that_fails(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threading.Event()

    def fail(*_: object, **__: object) -> None:
        seen.wait(20)
        raise BundleError("the graph failed")

    monkeypatch.setattr("medfuse_serving.explainer.explain_study", fail)
    open_example(page)
    choose_brightness(page)
    ask_why(page)
    expect(page.locator("#image-map mf-map")).to_have_count(1)
    expect(page.locator("#image-map")).to_contain_text("not yet checked")
    seen.set()
    expect(page.locator("#explanation")).to_contain_text("the graph failed")
    expect(page.locator("#image-map mf-map")).to_have_count(0)


def turn_to_chinese(page: Page) -> None:
    page.get_by_label("Language").click()
    page.get_by_role("option", name="简体中文").click()
    expect(page.get_by_role("button", name="预测")).to_be_visible()


def test_the_page_turns_to_another_language_with_all_that_lies_on_it(page: Page) -> None:
    open_example(page)
    choose_brightness(page)
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    drop = page.locator("button", has_text="Drop File Here").first
    expect(drop).to_have_accessible_name("Images (DICOM) Click to upload or drop files")
    turn_to_chinese(page)
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    # Gradio's own words, which it says once.
    expect(page.get_by_role("button", name="点击上传或拖放文件").first).to_contain_text(
        "将文件拖放到此处"
    )
    expect(page.get_by_text("Drop File Here")).to_have_count(0)
    expect(page.locator("#which")).to_contain_text("示例 first")
    expect(page.locator("#answer")).to_contain_text("各项所见的校准概率")
    expect(page.locator("#explanation")).to_contain_text("完备性差距")
    expect(page.locator("#note-map")).to_contain_text("支持与反对的依据")
    expect(page.locator(".mf-pieces")).to_contain_text("依据表格")
    page.locator("#overlays input").check()
    expect(page.get_by_role("slider", name="归因图的不透明度")).to_be_visible()
    expect(page.locator("#image mf-viewer .mf-tools")).to_have_attribute(
        "aria-label", "图像查看器工具"
    )
    expect(page.locator("#image mf-viewer .mf-what")).to_contain_text("像素")
    # The same language is there after the page is loaded anew, on what has been laid since.
    page.reload()
    expect(page.get_by_role("button", name="预测")).to_be_visible()
    expect(page.locator("#answer")).to_contain_text("打开检查或提供检查资料")
    page.get_by_label("示例检查").click()
    page.get_by_role("option", name="first").click()
    expect(page.locator("#image .mf-what")).to_contain_text("像素")
    page.get_by_role("button", name="预测").click()
    expect(page.locator("#answer")).to_contain_text("各项所见的校准概率")


def test_a_report_is_made_downloaded_and_accepted(
    page: Page, url: str, predictor: Predictor
) -> None:
    make = page.get_by_role("button", name="Make a PDF report")
    expect(make).to_be_hidden()  # there is no answer to report
    open_example(page)
    choose_brightness(page)
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    turn_to_chinese(page)
    page.get_by_role("button", name="生成 PDF 报告").click()
    link = page.get_by_role("link", name="下载报告")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "report.pdf"
    opened = open_report(Path(download.value.path()))
    check_model(opened.record, predictor.bundle.digest)
    check_inputs(opened.record, make_study())
    assert opened.record.language == "zh"
    assert [e.record.target for e in opened.record.explanations] == ["findings.brightness"]
    # It is gone with the answer that it is of.
    address = str(link.get_attribute("href"))
    assert page.request.get(f"{url}/{address}").status == 200
    page.get_by_label("病历", exact=True).press_sequentially(" and more")
    expect(link).to_have_count(0)
    page.get_by_role("button", name="预测").click()
    expect(page.locator("#answer")).to_contain_text("%")
    assert httpx.get(f"{url}/{address}").status_code == 404


def test_a_key_makes_the_report_or_says_that_there_is_no_answer(page: Page) -> None:
    make, link = page.locator("#report-ask"), page.locator("#report-place a")
    refused = page.locator("#report-place [role=alert]")
    expect(make).to_have_attribute("aria-keyshortcuts", "Alt+R")
    page.keyboard.press("Alt+r")
    expect(refused).to_be_visible()
    expect(refused).to_contain_text("there is no answer to report; press Predict first")
    expect(make).to_be_hidden()
    open_example(page)
    expect(refused).to_have_count(0)
    # Another key, or one that is meant for a dialog, is not it.
    page.evaluate(
        """() => {
            window.presses = 0;
            document.querySelector("#report-ask").addEventListener("click", () => presses++);
            document.body.append(document.createElement("dialog"));
            document.querySelector("dialog").showModal();
        }"""
    )
    page.keyboard.press("Alt+r")
    page.evaluate("document.querySelector('dialog').remove()")
    for other in ("Control+Alt+r", "Alt+Shift+r", "Meta+Alt+r", "r", "Alt+e"):
        page.keyboard.press(other)
    assert page.evaluate("presses") == 0
    page.get_by_label("Note", exact=True).focus()
    page.keyboard.press("Alt+r")
    expect(link).to_be_visible()
    expect(link).to_be_in_viewport()
    expect(link).to_be_focused()
    expect(page.locator("#mf-told")).to_contain_text("Report ready.")
    assert page.evaluate("presses") == 1
    turn_to_chinese(page)
    expect(link).to_have_count(0)
    expect(make).to_contain_text("Alt+R")
    expect(make).to_have_attribute("aria-keyshortcuts", "Alt+R")
    page.keyboard.press("Alt+r")
    with page.expect_download() as download:
        link.click()
    opened = open_report(Path(download.value.path()))
    check_inputs(opened.record, make_study())
    assert opened.record.language == "zh"


def test_an_explanation_outlasts_a_report_that_was_under_way(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = threading.Event()

    def make_late(record: ReportRecord) -> bytes:
        assert explained.wait(20)
        return make_report(record)

    monkeypatch.setattr("medfuse_serving.page.reporting.make_report", make_late)
    open_example(page)
    choose_brightness(page)
    make = page.get_by_role("button", name="Make a PDF report")
    make.click()
    ask_why(page)
    expect(page.locator("#explanation")).to_contain_text("Completeness gap")
    explained.set()
    link = page.get_by_role("link", name="Download the report")
    first = str(link.get_attribute("href"))
    make.click()
    expect(link).not_to_have_attribute("href", first)
    with page.expect_download() as download:
        link.click()
    record = open_report(Path(download.value.path())).record
    assert [e.record.target for e in record.explanations] == ["findings.brightness"]


def test_a_report_that_was_under_way_does_not_bring_another_study_back(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, made = threading.Event(), threading.Event()

    def make_late(record: ReportRecord) -> bytes:
        assert changed.wait(20)
        pdf = make_report(record)
        made.set()
        return pdf

    monkeypatch.setattr("medfuse_serving.page.reporting.make_report", make_late)
    open_example(page)
    page.get_by_role("button", name="Make a PDF report").click()
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#image")).to_contain_text("No image")
    changed.set()
    assert made.wait(20)
    page.wait_for_timeout(1000)  # until it could be shown
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("Image: not given")
    expect(page.get_by_role("link", name="Download the report")).to_have_count(0)


def test_a_bundle_that_cannot_explain_offers_no_explanation(predictor: Predictor) -> None:
    page = build_page(Explainer(predictor), (), Shelves())
    places = {c.elem_id: c for c in page.blocks.values() if getattr(c, "elem_id", None)}
    assert places["explain"].visible is False


def test_the_documentation_opens_from_this_machine_alone(page: Page, url: str) -> None:
    page.goto(f"{url}/docs")
    expect(page.locator("#swagger-ui")).to_contain_text("/v1/predict")
    page.get_by_text("/v1/predict").click()
    expect(page.get_by_text("DICOM files of one study")).to_be_visible()


def test_nothing_of_the_page_is_on_another_host(url: str) -> None:
    text = httpx.get(url).text + httpx.get(f"{url}/theme.css").text
    loaded = re.findall(r"(?:\bsrc|<link[^>]*\bhref)\s*=\s*[\"'](?:https?:)?//[^\"']+", text)
    assert loaded == []
    assert "fonts.g" not in text
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
