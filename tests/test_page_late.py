"""What the server sends late, or in another order than it was asked: it stays beside its study."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from medfuse.config import PrepareSettings
from medfuse.data.studies import find_studies
from medfuse.types import Prediction, Study
from medfuse_serving.answer import format_probability, to_answer
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.page.desk import Desk, take_images
from medfuse_serving.page.mount import mount_page
from medfuse_serving.page.practice import Practice
from medfuse_serving.predictor import Predictor
from medfuse_serving.shelves import Shelves
from medfuse_serving.worklist.routes import mount_worklist
from medfuse_serving.worklist.store import Store
from tests.browser import hold, open_browser, open_page, release, wait_until
from tests.hand_bundle import make_dicom, make_study, make_wav, write_study
from tests.hand_network import MIXED, HandNetwork
from tests.live import running

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

QUEUED, UNQUEUED = "**/gradio_api/queue/data*", "**/gradio_api/run/**"
IMAGES, PRIOR = "Images (DICOM)", "Prior images (DICOM)"
VOICE, DICTATION = "Recording (WAV, FLAC, OGG, MP3, DICOM)", "Write down a dictation"
IMAGE = make_dicom(np.full((9, 9), 1, np.uint16))


class LatePredictor(Predictor):
    """May be slow."""

    delay_s = 0.0

    def predict(self, studies: Sequence[Study]) -> list[Prediction]:
        time.sleep(self.delay_s)
        return super().predict(studies)


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> LatePredictor:
    return LatePredictor(hand_bundle)


@pytest.fixture(scope="module")
def network() -> HandNetwork:
    return HandNetwork(MIXED)


@pytest.fixture
def slow(
    predictor: LatePredictor, network: HandNetwork, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float, float], None]:
    """Makes answers take so long, and steps of explanations."""

    def make(answer_s: float, step_s: float) -> None:
        monkeypatch.setattr(predictor, "delay_s", answer_s)
        monkeypatch.setattr(network, "delay_s", step_s)

    return make


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(str(tmp_path_factory.mktemp("list") / "w.sqlite")) as store:
        store.add("Alder", make_study())
        store.add("Birch", Study(note=b"FINDINGS: hoarse"))
        store.add("Cedar", Study(images=(b"no image", IMAGE), note=b"\0"))
        yield store


@pytest.fixture(scope="module")
def urls(
    predictor: Predictor,
    network: HandNetwork,
    store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, str]]:
    """A page, and one where the reader's impression comes first."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("first", *"23456"):
        write_study(folder / name, make_study())

    @contextmanager
    def serving(practice: Practice) -> Iterator[str]:
        explainer = Explainer(predictor, folder, network)
        app = build_api(explainer)
        mount_worklist(app, store, predictor.bundle.manifest.prepare.limits)
        with running(mount_page(app, explainer, find_studies(folder), practice)) as url:
            yield url

    practice = Practice(store)
    with serving(practice) as url, serving(replace(practice, read_first=True)) as first:
        yield url, first


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@contextmanager
def opening(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as page:
        expect(page.locator("mf-worklist .mf-count")).to_have_text("3 studies")
        yield page


@pytest.fixture
def page(browser: Browser, urls: tuple[str, str]) -> Iterator[Page]:
    with opening(browser, urls[0]) as page:
        yield page


@pytest.fixture
def first_page(browser: Browser, urls: tuple[str, str]) -> Iterator[Page]:
    with opening(browser, urls[1]) as page:
        yield page


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def predict(page: Page) -> None:
    press(page, "Predict")


def choose_example(page: Page) -> None:
    page.get_by_label("Example study").click()
    page.get_by_role("option", name="first").click()
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def explain(page: Page) -> None:
    page.get_by_label("Finding to explain").click()
    page.get_by_role("option", name="findings: brightness").click()
    press(page, "Explain this answer")


def open_row(page: Page, name: str) -> None:
    page.locator("mf-worklist .mf-row", has_text=name).click()


def turn_to(page: Page, language: str) -> None:
    page.get_by_label("Language").click()
    page.get_by_role("option", name=language).click()


def give(page: Page, where: str, *files: bytes) -> None:
    """Give files to the box or the button that is labelled so."""
    payloads = [FilePayload(name="x", mimeType="", buffer=file) for file in files]
    box = page.locator(".mf-give .block", has=page.get_by_text(where, exact=True))
    if box.count():
        box.locator("input[type=file]").set_input_files(payloads)
    else:
        page.get_by_test_id(f"{where}-upload-button").set_input_files(payloads)


def watch(page: Page, place: str, shown: str) -> None:
    """Count how often something is seen in a place, be it for a moment."""
    page.evaluate(
        """([place, shown]) => {
            window.seen = 0;
            const at = document.querySelector(place);
            const look = () => { if (at.innerHTML.includes(shown)) window.seen += 1; };
            new MutationObserver(look).observe(at, { childList: true, subtree: true });
        }""",
        [place, shown],
    )


# Said of another note ------------------------------------------------------------------------


def test_what_the_server_sends_late_takes_no_answer_away(page: Page) -> None:
    held = hold(page, UNQUEUED)
    note, answer = page.get_by_label("Note", exact=True), page.locator("#answer")
    note.fill("FINDINGS: cough")
    predict(page)
    expect(answer).to_contain_text("%")
    wait_until(page, lambda: len(held) == 2)  # that the note was changed, and that it was left
    with page.expect_response(UNQUEUED):
        release(held)
    page.unroute(UNQUEUED)
    expect(page.locator("#note")).to_contain_text("cough")
    page.wait_for_timeout(300)
    expect(answer).to_contain_text("%")


def test_an_answer_that_comes_late_does_not_stay_beside_another_note(page: Page) -> None:
    note, answer = page.get_by_label("Note", exact=True), page.locator("#answer")
    note.fill("FINDINGS: cough")
    held = hold(page, QUEUED)
    with page.expect_request(QUEUED):
        predict(page)
    wait_until(page, lambda: len(held) == 1)
    assert "%" in held[0][1].text()
    with page.expect_response(UNQUEUED):
        note.press("s")
    watch(page, "#answer", "%")
    release(held)
    page.wait_for_function("window.seen > 0")  # or nothing was tested
    expect(answer).not_to_contain_text("%")


def test_a_note_that_comes_late_is_not_shown_beside_another_study(page: Page) -> None:
    page.get_by_label("Note", exact=True).fill("FINDINGS: of somebody else")
    held = hold(page, UNQUEUED)
    choose_example(page)  # which leaves the note
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    read = page.locator("#note")
    expect(read).to_contain_text("not read by the model")
    wait_until(page, lambda: any("of somebody else" in came.text() for _, came in held))
    with page.expect_response(UNQUEUED):
        release(held)
    page.wait_for_timeout(300)
    expect(read).not_to_contain_text("somebody else")
    assert "somebody else" not in page.content()


def test_a_change_that_is_heard_of_late_takes_no_answer_away(page: Page) -> None:
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:  # that the note was left
            route.continue_()
        else:  # that it was changed
            held.append(route)

    page.route(UNQUEUED, hold_first)
    note, answer = page.get_by_label("Note", exact=True), page.locator("#answer")
    note.fill("FINDINGS: cough")
    predict(page)
    expect(answer).to_contain_text("%")
    with page.expect_response(UNQUEUED):
        held[0].continue_()
    page.unroute(UNQUEUED)
    expect(answer).to_contain_text("%")
    page.wait_for_timeout(300)
    expect(answer).to_contain_text("%")
    note.press("End")
    note.press("s")
    expect(answer).not_to_contain_text("%")


ASKED: dict[str, tuple[str, str, str, Callable[[Page], None]]] = {
    "report": ("#report-place", "report.pdf", QUEUED, lambda p: press(p, REPORT)),
    "reach": ("#reach", "mf-reach", UNQUEUED, lambda p: press(p, REACH)),
    "explanation": ("#explanation", "Why brightness", QUEUED, explain),
    "language": ("#answer", "mf-answer", UNQUEUED, lambda p: turn_to(p, "简体中文")),
}
"""What is asked for under an answer: its place, what comes there, by which way, and the asking."""

REPORT = "Make a PDF report (Alt+R)"
REACH = "Show what a missing part might change"


def change_meanwhile(
    page: Page, place: str, shown: str, address: str, ask: Callable[[Page], None]
) -> None:
    """Change the note once something was answered and before it comes; it may not stay."""
    held = hold(page, address)
    ask(page)
    wait_until(page, lambda: any(shown in came.text() for _, came in held))
    page.locator("#note-text textarea").press("s")
    expect(page.locator("#answer .mf-answer")).to_have_count(0)
    watch(page, place, shown)
    release(held)
    page.unroute(address)
    page.wait_for_function("window.seen > 0")  # or nothing was tested
    page.wait_for_function(
        "([place, shown]) => !document.querySelector(place).innerHTML.includes(shown)",
        arg=[place, shown],
    )


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_said_of_an_answer_does_not_come_beside_another_note(
    page: Page, asked: str
) -> None:
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    change_meanwhile(page, *ASKED[asked])


def test_an_answer_to_an_impression_does_not_come_beside_another_note(first_page: Page) -> None:
    page = first_page
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    predict(page)
    page.get_by_label("Your impression in words").fill("A cough.")
    keep = "Keep my impression and show the answer"
    change_meanwhile(page, "#answer", "mf-answer", QUEUED, lambda p: press(p, keep))


# Said of another study -----------------------------------------------------------------------


def test_a_decision_that_comes_late_is_not_shown_beside_another_answer(page: Page) -> None:
    reason = page.get_by_label("Reason (needed to edit or override)")
    open_row(page, "Alder")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    held = hold(page, UNQUEUED, most=1)
    press(page, "Accept")
    wait_until(page, lambda: len(held) == 1)
    open_row(page, "Birch")
    expect(page.locator("#note")).to_contain_text("hoarse")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    reason.fill("Motion.")
    with page.expect_response(UNQUEUED):
        release(held)
    page.wait_for_timeout(300)
    expect(page.locator("#decision-place")).not_to_contain_text("Kept")
    expect(reason).to_have_value("Motion.")
    # It was kept of the study that it was made on.
    expect(page.locator("mf-worklist .mf-row", has_text="Alder")).to_contain_text("read")


def test_what_is_written_stays_when_the_connection_is_lost_and_the_page_says_so(page: Page) -> None:
    note, reason = page.get_by_label("Note", exact=True), page.get_by_label("Reason")
    note.fill("FINDINGS: cough")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    reason.fill("Motion.")
    page.route("**/gradio_api/**", lambda route: route.abort())
    predict(page)
    errors = page.locator("#mf-errors")
    expect(errors).to_contain_text("The connection to the server was lost")
    page.unroute("**/gradio_api/**")
    page.wait_for_timeout(2500)  # by when Gradio would have loaded the page anew, and all be lost
    expect(note).to_have_value("FINDINGS: cough")
    expect(reason).to_have_value("Motion.")
    expect(errors).to_contain_text("keep a copy")


# At once -------------------------------------------------------------------------------------


def test_parts_that_are_given_at_once_are_all_there(
    page: Page, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_slowly(
        desk: Desk, paths: Sequence[str], settings: PrepareSettings, shelves: Shelves
    ) -> Desk:
        time.sleep(1)
        return take_images(desk, paths, settings, shelves)

    monkeypatch.setattr("medfuse_serving.page.giving.take_images", take_slowly)
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    other = make_dicom(np.full((9, 11), 2, np.uint16))
    give(page, IMAGES, IMAGE)
    page.wait_for_timeout(300)
    give(page, VOICE, make_wav())
    give(page, IMAGES, other)
    give(page, PRIOR, IMAGE)
    turn_to(page, "简体中文")
    expect(page.locator("#voice audio")).to_be_visible()
    expect(page.locator("#image")).to_contain_text("共 2 帧")
    expect(page.locator("#image .mf-problem")).to_have_count(0)
    expect(page.locator("#prior mf-viewer")).to_be_visible()
    page.get_by_role("button", name="预测").click()
    study = Study(images=(IMAGE, other), note=b"FINDINGS: cough", voice=make_wav())
    answered = to_answer(predictor.predict([study])[0])
    for probability in answered.tasks[0].probabilities.values():
        expect(page.locator("#answer")).to_contain_text(format_probability(probability))
    expect(page.locator("#answer h2")).to_have_text("模型回答")


def test_an_answer_and_an_explanation_come_in_the_language_turned_to_meanwhile(
    page: Page, slow: Callable[[float, float], None]
) -> None:
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    slow(1.5, 0.0)
    predict(page)
    page.wait_for_timeout(500)
    turn_to(page, "简体中文")
    expect(page.locator("#explain")).to_be_visible()
    expect(page.locator("#answer h2")).to_have_text("模型回答")
    expect(page.locator("#answer")).to_contain_text("%")
    slow(0.0, 0.5)
    page.locator("#explain button.primary").click()
    expect(page.locator("#explanation progress")).to_be_visible()
    turn_to(page, "English")
    expect(page.locator("#explanation progress")).to_have_attribute(
        "aria-label", "The answer is being explained."
    )
    slow(0.0, 0.0)
    expect(page.locator("#explanation")).to_contain_text("Why ")


def test_a_part_that_is_refused_takes_nothing_away(
    page: Page, slow: Callable[[float, float], None]
) -> None:
    told = page.locator("#given-told")
    expect(told).to_be_hidden()
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    slow(0.0, 0.5)
    explain(page)
    expect(page.locator("#explanation progress")).to_be_visible()
    give(page, DICTATION, make_wav())
    expect(told).to_contain_text("no speech to write down")
    expect(page.locator("#answer")).to_contain_text("%")
    expect(page.locator("#explanation progress")).to_be_visible()
    slow(0.0, 0.0)
    expect(page.locator("#explanation")).to_contain_text("Why ")
    expect(told).to_contain_text("no speech to write down")
    give(page, IMAGES, IMAGE)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    turn_to(page, "简体中文")
    expect(told).to_contain_text("未执行")
    turn_to(page, "English")
    expect(told).to_contain_text("no speech to write down")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    expect(told).to_be_hidden()


def test_what_cannot_be_read_of_a_study_is_left_out_by_hand(
    page: Page, predictor: Predictor
) -> None:
    leave_out = page.get_by_role("button", name="Leave out what cannot be read")
    open_row(page, "Birch")
    expect(page.locator("#note")).to_contain_text("hoarse")
    expect(leave_out).to_be_hidden()
    open_row(page, "Cedar")
    expect(page.locator("#image")).to_contain_text("Image 1 of 2 given cannot be used.")
    expect(page.locator("#note .mf-problem")).to_be_visible()
    predict(page)
    expect(page.locator("#answer .mf-problem")).to_be_visible()
    leave_out.click()
    expect(page.locator("#image .mf-what")).to_contain_text("9 \N{MULTIPLICATION SIGN} 9")
    expect(page.locator("#note")).to_contain_text("No note given.")
    expect(page.locator("#which")).to_contain_text("Cedar (changed on the page)")
    expect(leave_out).to_be_hidden()
    predict(page)
    answered = to_answer(predictor.predict([Study(images=(IMAGE,))])[0])
    for probability in answered.tasks[0].probabilities.values():
        expect(page.locator("#answer")).to_contain_text(format_probability(probability))
