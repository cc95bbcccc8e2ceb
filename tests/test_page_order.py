"""The page while two things happen: each stays with the study, answer and language it is of."""

import gc
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from gradio.state_holder import StateHolder
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from medfuse_serving.page.desk import Desk, take_images
from medfuse_serving.page.session import Session
from medfuse_serving.prior import lay_prior
from medfuse_serving.report.record import ReportRecord
from medfuse_serving.report.render import make_report
from tests.browser import assert_accessible, hold, release, wait_until
from tests.hand_bundle import SETTINGS, make_dicom, make_wav
from tests.test_page_late import (
    DICTATION,
    IMAGE,
    IMAGES,
    PRIOR,
    QUEUED,
    REPORT,
    UNQUEUED,
    VOICE,
    browser,
    choose_example,
    explain,
    give,
    network,
    open_row,
    page,
    predict,
    predictor,
    press,
    slow,
    store,
    turn_to,
    urls,
)

__all__ = ["browser", "network", "page", "predictor", "slow", "store", "urls"]

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

NOTE_FILE = "Open a note file"


def see(page: Page, name: str, note: str) -> None:
    open_row(page, name)
    expect(page.locator("#which")).to_contain_text(name)
    expect(page.locator("#note")).to_contain_text(note)


def answer_alder(page: Page) -> None:
    see(page, "Alder", "cough")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")


# Of another study -----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["upload", "queue/join"])
@pytest.mark.parametrize("where", [IMAGES, VOICE, PRIOR, NOTE_FILE])
def test_what_was_chosen_beside_one_study_does_not_come_to_the_next(
    page: Page, where: str, address: str
) -> None:
    see(page, "Alder", "cough")
    held: list[Route] = []
    page.route(f"**/gradio_api/{address}*", lambda route: held.append(route))
    files = {VOICE: make_wav(), NOTE_FILE: b"FINDINGS: of Alder"}
    give(page, where, files.get(where, IMAGE))
    wait_until(page, lambda: bool(held))
    see(page, "Birch", "hoarse")
    held[0].continue_()
    page.unroute(f"**/gradio_api/{address}*")
    place = "#prior" if where == PRIOR else "#given-told"
    expect(page.locator(place)).to_contain_text("chosen for another study")
    for part in ("#image mf-viewer", "#voice audio", "#prior mf-viewer"):
        expect(page.locator(part)).to_have_count(0)
    expect(page.get_by_label("Note", exact=True)).to_have_value("FINDINGS: hoarse")
    # And what is chosen beside this one is taken.
    give(page, IMAGES, make_dicom(np.full((9, 11), 2, np.uint16)))
    expect(page.locator("#image .mf-what")).to_contain_text("11 \N{MULTIPLICATION SIGN} 9")


def test_an_image_that_is_shown_late_does_not_stay_beside_the_next_study(page: Page) -> None:
    held = hold(page, QUEUED, most=1)
    give(page, IMAGES, IMAGE)
    wait_until(page, lambda: len(held) == 1)
    see(page, "Birch", "hoarse")
    release(held)
    expect(page.locator("#image mf-viewer")).to_be_visible()  # or nothing was tested
    expect(page.locator("#image")).to_contain_text("No image given.")
    expect(page.locator("#which")).to_contain_text("Birch")
    expect(page.locator("#note")).to_contain_text("hoarse")


def test_what_was_said_of_one_study_s_file_goes_as_the_next_is_opened(page: Page) -> None:
    see(page, "Alder", "cough")
    large = FilePayload(
        name="Doe_John.dcm", mimeType="", buffer=bytes(SETTINGS.limits.file_bytes + 1)
    )
    page.locator("#images input[type=file]").set_input_files(large)
    errors = page.locator("#mf-errors")
    expect(errors).to_contain_text("Doe_John")
    see(page, "Birch", "hoarse")
    expect(errors).to_be_empty()
    give(page, IMAGES, IMAGE)  # which is not of the study that the large one was chosen for
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


# Of another answer ----------------------------------------------------------------------------


def test_what_was_decided_on_an_answer_does_not_stand_beside_the_next(
    page: Page, slow: Callable[[float, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk is held by a prior while the next answer comes and the page is turned."""

    def lay_late(*values: object) -> object:
        time.sleep(2)
        return lay_prior(*values)  # type: ignore[arg-type]

    answer_alder(page)
    press(page, "Accept")
    expect(page.locator("#decision-place")).to_contain_text("Kept")
    monkeypatch.setattr("medfuse_serving.page.giving.lay_prior", lay_late)
    slow(1.0, 0.0)
    predict(page)
    page.wait_for_timeout(300)
    give(page, PRIOR, IMAGE)
    page.wait_for_timeout(500)
    turn_to(page, "简体中文")
    expect(page.locator("#prior mf-viewer")).to_be_visible()
    expect(page.locator("#answer h2")).to_have_text("模型回答")
    expect(page.locator("#decision-place [data-at]")).to_have_count(0)


@pytest.mark.parametrize("meanwhile", ["explanation", "language"])
def test_a_report_has_what_came_while_it_was_written(
    page: Page, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, str]] = []

    def write_late(record: ReportRecord) -> bytes:
        if not written:
            time.sleep(2)
        written.append((len(record.explanations), record.language))
        return make_report(record)

    monkeypatch.setattr("medfuse_serving.page.reporting.make_report", write_late)
    answer_alder(page)
    press(page, REPORT)
    page.wait_for_timeout(300)
    if meanwhile == "explanation":
        explain(page)
        expect(page.locator("#explanation")).to_contain_text("Why ")
    else:
        turn_to(page, "简体中文")
    expect(page.locator("#report-place a")).to_be_visible()
    assert len(written) == 2
    assert written[-1] == ((1, "en") if meanwhile == "explanation" else (0, "zh"))


# In another language --------------------------------------------------------------------------


def test_an_answer_that_comes_late_is_in_the_page_s_language(page: Page) -> None:
    see(page, "Alder", "cough")
    held = hold(page, QUEUED, most=1)
    predict(page)
    wait_until(page, lambda: len(held) == 1)
    turn_to(page, "简体中文")
    expect(page.locator("#answer h2")).to_have_text("模型回答")
    release(held)
    page.wait_for_timeout(1000)
    expect(page.locator("#answer h2")).to_have_text("模型回答")
    expect(page.locator("#answer")).to_contain_text("%")


def test_a_decision_that_comes_late_is_in_the_page_s_language(page: Page) -> None:
    answer_alder(page)
    held = hold(page, UNQUEUED, most=1)
    press(page, "Accept")
    wait_until(page, lambda: len(held) == 1)
    turn_to(page, "简体中文")
    expect(page.locator("#decision-place")).to_contain_text("已保存")
    release(held)
    page.wait_for_timeout(500)
    expect(page.locator("#decision-place")).to_contain_text("已保存")
    expect(page.locator("#decision-place")).not_to_contain_text("Kept")


# At once --------------------------------------------------------------------------------------


def test_what_is_typed_right_after_all_was_cleared_stays(page: Page) -> None:
    answer_alder(page)
    held = hold(page, QUEUED, most=1)
    press(page, "Clear all")
    note = page.get_by_label("Note", exact=True)
    expect(note).to_have_value("")
    note.fill("FINDINGS: fever")
    wait_until(page, lambda: len(held) == 1)
    release(held)
    expect(page.locator("#image")).to_contain_text("No image given.")
    expect(note).to_have_value("FINDINGS: fever")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    expect(page.locator("#note")).to_contain_text("fever")
    expect(page.locator("#answer .mf-absent")).to_have_count(2)


# Refusals -------------------------------------------------------------------------------------


def test_a_refusal_stays_until_it_was_seen_or_is_over(page: Page) -> None:
    told = page.locator("#given-told")
    give(page, IMAGES, b"not an image")
    expect(page.locator("#image")).to_contain_text("cannot be used")
    give(page, IMAGES, IMAGE)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    expect(page.locator("#image")).to_contain_text("cannot be used")
    page.set_viewport_size({"width": 640, "height": 512})
    page.locator("#dictation").scroll_into_view_if_needed()
    give(page, DICTATION, make_wav())
    expect(told).to_contain_text("no speech to write down")
    expect(told).to_be_in_viewport(ratio=0.95)
    give(page, PRIOR, IMAGE)
    expect(page.locator("#prior mf-viewer")).to_be_visible()
    expect(told).to_be_visible()
    see(page, "Birch", "hoarse")
    expect(told).to_be_hidden()


def test_a_refusal_is_seen_with_a_prior_beside_it(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 1000})
    give(page, PRIOR, IMAGE)
    expect(page.locator("#prior .mf-what")).to_contain_text("pixels")
    give(page, IMAGES, b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40), IMAGE)
    problems = page.locator("#image .mf-problem")
    expect(problems).to_have_count(2)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    boxes = [at.bounding_box() for at in (*problems.all(), page.locator("#image mf-viewer"))]
    for above, below in pairwise(boxes):
        assert above
        assert below
        assert above["y"] + above["height"] <= below["y"]
    assert_accessible(page, "a refusal beside a prior")


def test_only_what_cannot_be_read_is_offered_to_be_left_out(page: Page) -> None:
    leave_out = page.get_by_role("button", name="Leave out what cannot be read")
    choose_example(page)  # whose note has a section that the model does not read
    expect(page.locator("#note")).to_contain_text("not read by the model")
    expect(leave_out).to_be_hidden()
    give(page, VOICE, b"no recording")
    expect(page.locator("#voice .mf-problem")).to_be_visible()
    leave_out.press("Enter")
    expect(page.locator("#voice")).to_contain_text("No recording given.")
    expect(page.locator("#image h2")).to_be_focused()
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def test_what_is_typed_into_has_an_edge_that_is_seen(page: Page) -> None:
    answered = page.get_by_label("Note", exact=True)
    answered.fill("FINDINGS: cough")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
    edges = "all => all.filter(at => at.checkVisibility()).map(at => getComputedStyle(at).border)"
    for forced in (False, True):
        page.emulate_media(forced_colors="active" if forced else "none")
        found = page.locator("textarea").evaluate_all(edges)
        assert len(found) == 3
        assert set(found) == {f"1px solid {'rgb(0, 0, 0)' if forced else 'rgb(100, 116, 139)'}"}


# Nobody is there ------------------------------------------------------------------------------


def find_sessions() -> list[Session]:
    """Find the sessions that hold a study."""
    gc.collect()
    held = [at for at in gc.get_objects() if type(at) is Session]
    return [session for session in held if session.desk.study != Desk().study]


@pytest.mark.parametrize("doing", ["nothing", "answering", "taking up"])
def test_a_study_is_gone_after_its_page_whatever_was_under_way(
    browser: Browser,
    urls: tuple[str, str],
    slow: Callable[[float, float], None],
    monkeypatch: pytest.MonkeyPatch,
    doing: str,
) -> None:
    monkeypatch.setattr("medfuse_serving.page.mount.CLOSED_S", 0.5)
    for session in find_sessions():  # of tests before
        session.close()
    context = browser.new_context()
    page = context.new_page()
    page.goto(urls[0])
    expect(page.locator("mf-worklist .mf-count")).to_have_text("3 studies")
    choose_example(page)
    assert len(find_sessions()) == 1
    if doing == "answering":
        slow(3.0, 0.0)
        predict(page)
        page.wait_for_timeout(500)
    elif doing == "taking up":

        def take_late(*values: object) -> Desk:
            time.sleep(3)
            return take_images(*values)  # type: ignore[arg-type]

        monkeypatch.setattr("medfuse_serving.page.giving.take_images", take_late)
        give(page, IMAGES, IMAGE)
        page.wait_for_timeout(700)
    context.close()
    time.sleep(5.5)
    assert find_sessions() == []


def test_a_study_that_was_not_touched_for_an_hour_is_gone_and_the_page_says_so(page: Page) -> None:
    for session in find_sessions():  # of tests before
        session.close()
    give(page, IMAGES, IMAGE)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    holders = [at for at in gc.get_objects() if type(at) is StateHolder]
    for state in [state for holder in holders for state in holder.session_data.values()]:
        for key, (life_s, since) in list(state._state_ttl.items()):
            state._state_ttl[key] = (life_s, since - timedelta(hours=1, seconds=1))
    for holder in holders:
        holder.delete_all_expired_state()  # type: ignore[no-untyped-call]
    assert find_sessions() == []
    give(page, IMAGES, IMAGE)
    told = "no longer has the study that the page shows"
    expect(page.locator("#given-told")).to_contain_text(told)
    predict(page)
    expect(page.locator("#answer")).to_contain_text(told)
    press(page, "Clear all")
    expect(page.locator("#given-told")).to_be_hidden()
    give(page, IMAGES, IMAGE)
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("%")
