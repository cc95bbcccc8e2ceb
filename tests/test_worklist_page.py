"""The worklist and the reading on the page, in a real browser and by keyboard alone."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import gradio
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Dialog, FilePayload, Page, expect
from starlette.types import Receive, Scope, Send

from medfuse.config import PrepareSettings
from medfuse.errors import InputError
from medfuse.types import Prediction, Study
from medfuse_serving.answer import Answer, NoveltyAnswer, format_probability, to_answer
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import ENGLISH, find_language
from medfuse_serving.page.desk import Desk, lay_out
from medfuse_serving.page.desk_view import show_note
from medfuse_serving.page.explaining import explain
from medfuse_serving.page.mount import mount_page
from medfuse_serving.page.parts import lay_parts
from medfuse_serving.page.practice import Practice
from medfuse_serving.page.room import Room
from medfuse_serving.page.session import Session
from medfuse_serving.predictor import Predictor
from medfuse_serving.reader import SCOPE
from medfuse_serving.report.verify import open_report
from medfuse_serving.shelves import Shelves
from medfuse_serving.worklist.panel import WORDS, list_html
from medfuse_serving.worklist.records import PageQuery, Status, StudyRow
from medfuse_serving.worklist.routes import mount_worklist
from medfuse_serving.worklist.store import Store
from medfuse_serving.worklist.tables import studies
from tests.browser import assert_accessible, open_browser, open_page
from tests.hand_bundle import NOTE, SETTINGS, make_dicom, make_study
from tests.hand_network import MIXED, HandNetwork
from tests.live import running
from tests.test_accessibility import LOOKS

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

SHOWN = re.compile(r"\d %")
LIST = "mf-worklist"


class CountingPredictor(Predictor):
    """Counts the studies that it answers, and may be slow."""

    asked = 0
    last: Study | None = None
    delay_s = 0.0

    def predict(self, studies: Sequence[Study]) -> list[Prediction]:
        self.asked += len(studies)
        self.last = studies[-1]
        time.sleep(self.delay_s)
        return super().predict(studies)


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> CountingPredictor:
    return CountingPredictor(hand_bundle)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


NETWORK = HandNetwork(MIXED)


@contextmanager
def serving(predictor: Predictor, practice: Practice) -> Iterator[str]:
    explainer = Explainer(predictor, None, NETWORK)
    app = build_api(explainer)
    if practice.store is not None:
        mount_worklist(app, practice.store, predictor.bundle.manifest.prepare.limits)
    with running(mount_page(app, explainer, (), practice)) as url:
        yield url


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Practice]:
    """A worklist that is filled anew for each test."""
    with Store(str(tmp_path_factory.mktemp("list") / "w.sqlite")) as store:
        yield Practice(store)


@pytest.fixture(scope="module")
def url(predictor: Predictor, practice: Practice) -> Iterator[str]:
    with serving(predictor, practice) as url:
        yield url


@pytest.fixture(scope="module")
def first_url(predictor: Predictor, practice: Practice) -> Iterator[str]:
    """The same, where the reader's impression comes first."""
    with serving(predictor, replace(practice, read_first=True)) as url:
        yield url


@pytest.fixture
def store(practice: Practice) -> Store:
    """Three studies: a whole one, a note, and a note again."""
    assert practice.store is not None
    for row in list_rows(practice.store):
        practice.store.remove(row.id)
    practice.store.add("Alder", make_study())
    practice.store.add("Birch", Study(note=b"FINDINGS: hoarse"))
    practice.store.add("Cedar", Study(note=b"FINDINGS: fever"))
    return practice.store


def list_rows(store: Store) -> list[StudyRow]:
    return list(store.list_rows(PageQuery(sort="label")).rows)


def statuses(store: Store) -> list[str]:
    return [row.status for row in list_rows(store)]


@pytest.fixture
def page(browser: Browser, url: str, store: Store) -> Iterator[Page]:
    with open_page(browser, url) as page:
        expect(page.locator(f"{LIST} .mf-count")).to_have_text("3 studies")
        yield page


@pytest.fixture
def first_page(browser: Browser, first_url: str, store: Store) -> Iterator[Page]:
    with open_page(browser, first_url) as page:
        expect(page.locator(f"{LIST} .mf-count")).to_have_text("3 studies")
        yield page


def said(page: Page) -> str:
    return page.locator(f"{LIST} [role=status]").inner_text()


def focused(page: Page) -> str:
    """What has the focus, in the worklist's shadow tree as well: its role, or its tag."""
    return str(
        page.evaluate(
            """() => {
                let at = document.activeElement;
                while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
                return at.getAttribute("role") ?? at.type ?? at.localName;
            }"""
        )
    )


def tab_to(page: Page, what: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page) == what:
            return
    raise AssertionError(f"Tab never reaches {what}")


def labels(page: Page) -> list[str]:
    return page.locator(f"{LIST} .mf-row > :first-child").all_inner_texts()


def predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()


# The worklist -------------------------------------------------------------------------------------


def test_studies_are_found_and_opened_by_keyboard_alone(page: Page, store: Store) -> None:
    tab_to(page, "grid")
    assert said(page) == "Study 1 of 3: Alder, waiting"
    grid = page.locator(f"{LIST} [role=grid]")
    assert grid.get_attribute("aria-rowcount") == "4"  # with its head
    page.keyboard.press("End")
    assert said(page) == "Study 3 of 3: Cedar, waiting"
    active = page.locator(f"{LIST} #{grid.get_attribute('aria-activedescendant')}")
    assert active.get_attribute("aria-rowindex") == "4"
    page.keyboard.press("ArrowUp")
    assert said(page) == "Study 2 of 3: Birch, waiting"
    page.keyboard.press("Enter")
    expect(page.locator("#note")).to_contain_text("hoarse")
    expect(page.locator(f"{LIST} [aria-selected=true]")).to_contain_text("opened")
    assert statuses(store) == ["waiting", "opened", "waiting"]
    assert focused(page) == "grid"
    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("eDa")
    expect(page.locator(f"{LIST} .mf-count")).to_have_text("1 studies")
    expect(page.locator(f"{LIST} [role=status]")).to_have_text("1 studies")
    page.keyboard.press("Enter")
    assert focused(page) == "grid"
    assert said(page) == "Study 1 of 1: Cedar, waiting"
    page.keyboard.press("Enter")
    expect(page.locator("#note")).to_contain_text("fever")


def test_the_next_waiting_study_is_opened_from_anywhere(page: Page, store: Store) -> None:
    page.get_by_label("Note", exact=True).focus()
    page.keyboard.press("Alt+n")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    page.keyboard.press("Alt+n")
    expect(page.locator("#note")).to_contain_text("hoarse")
    # An answer never stays beside a study that it is not of.
    expect(page.locator("#answer")).not_to_contain_text(SHOWN)
    expect(page.locator("#mf-told > p").last).to_have_text("Study Birch: opened")
    expect(page.locator("#mf-told")).not_to_contain_text("waiting")
    page.locator(f"{LIST} .mf-next").click()
    expect(page.locator("#note")).to_contain_text("fever")
    page.keyboard.press("Alt+n")
    expect(page.locator(f"{LIST} [role=status]")).to_have_text("No study is waiting.")
    expect(page.locator("#note")).to_contain_text("fever")
    assert statuses(store) == ["opened", "opened", "opened"]


def test_an_answer_that_comes_too_late_is_not_shown_beside_the_next_study(
    page: Page, store: Store, predictor: CountingPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(store.list_readings()))
    page.keyboard.press("Alt+n")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    monkeypatch.setattr(predictor, "delay_s", 1.5)
    asked = predictor.asked
    predict(page)
    while predictor.asked == asked:
        page.wait_for_timeout(50)
    page.keyboard.press("Alt+n")
    expect(page.locator("#note")).to_contain_text("hoarse")
    page.wait_for_timeout(2500)
    expect(page.locator("#note")).to_contain_text("hoarse")
    expect(page.locator("#image")).to_contain_text("No image")
    expect(page.locator("#answer")).not_to_contain_text(SHOWN)
    assert len(list(store.list_readings())) == before  # it was not shown


def test_rows_are_sorted_and_filtered(page: Page, store: Store) -> None:
    store.open(list_rows(store)[1].id, "Reader 7")
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.get_by_role("columnheader", name="Label")).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.get_by_role("columnheader", name="Label")).to_have_attribute(
        "aria-sort", "descending"
    )
    expect(page.locator(f"{LIST} .mf-row > :first-child")).to_have_text(["Cedar", "Birch", "Alder"])
    page.get_by_label("Given").select_option("image")
    expect(page.locator(f"{LIST} .mf-row > :first-child")).to_have_text(["Alder"])
    page.get_by_label("Given").select_option("any")
    page.get_by_label("Status").select_option("opened")
    expect(page.locator(f"{LIST} .mf-row > :first-child")).to_have_text(["Birch"])
    expect(page.locator(f"{LIST} .mf-row")).to_contain_text("Reader 7")
    page.get_by_label("Status").select_option("read")
    expect(page.locator(f"{LIST} .mf-count")).to_have_text("No study.")


def test_a_study_that_is_open_stays_with_its_answer_and_a_changed_one_is_opened_anew(
    page: Page,
) -> None:
    row = page.locator(f"{LIST} .mf-row", has_text="Birch")
    row.click()
    expect(page.locator("#note")).to_contain_text("hoarse")
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    row.click()
    page.wait_for_timeout(700)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    page.get_by_label("Note", exact=True).press_sequentially(" and more")
    expect(page.locator("#answer")).not_to_contain_text(SHOWN)
    row.click()
    expect(page.get_by_label("Note", exact=True)).to_have_value("FINDINGS: hoarse")


def test_a_note_that_is_left_by_opening_a_study_does_not_follow_it_there(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show_slowly(desk: Desk, settings: PrepareSettings) -> str:
        if "and more" in desk.note_text:
            time.sleep(1)
        return show_note(desk, settings)

    monkeypatch.setattr("medfuse_serving.page.giving.show_note", show_slowly)
    note = page.get_by_label("Note", exact=True)
    for name, text in (("Birch", "hoarse"), ("Birch", "hoarse"), ("Cedar", "fever")):
        page.locator(f"{LIST} .mf-row", has_text=name).click()
        expect(note).to_have_value(f"FINDINGS: {text}")
        page.wait_for_timeout(1500)  # the note that was left is done by now
        expect(note).to_have_value(f"FINDINGS: {text}")
        expect(page.locator("#note")).not_to_contain_text("and more")
        note.press_sequentially(" and more")


def test_an_answer_outlasts_the_note_that_was_left_by_asking_for_it(
    page: Page, predictor: CountingPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show_slowly(desk: Desk, settings: PrepareSettings) -> str:
        time.sleep(1.5)
        return show_note(desk, settings)

    page.locator(f"{LIST} .mf-row", has_text="Birch").click()
    note = page.get_by_label("Note", exact=True)
    expect(note).to_have_value("FINDINGS: hoarse")
    note.press_sequentially(" and more")
    # That the note was left is heard of while the answer is under way, and done after it.
    monkeypatch.setattr("medfuse_serving.page.giving.show_note", show_slowly)
    monkeypatch.setattr(predictor, "delay_s", 0.7)
    page.evaluate(
        """() => {
            const send = window.fetch;
            window.fetch = async (address, ...more) => {
                const left = String(address).includes("/run/");
                if (left) await new Promise((go) => setTimeout(go, 300));
                return send(address, ...more);
            };
        }"""
    )
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Make a PDF report").click()
    expect(page.locator("#report-place a")).to_be_visible()
    expect(page.locator("#note")).to_contain_text("hoarse and more")


def test_a_note_in_the_browser_is_none_of_a_study_that_has_not_arrived_there(
    page: Page, predictor: CountingPredictor
) -> None:
    """Who presses Predict before the study that they opened is shown sends the last one's note."""
    page.locator(f"{LIST} .mf-row", has_text="Birch").click()
    expect(page.get_by_label("Note", exact=True)).to_have_value("FINDINGS: hoarse")
    page.get_by_label("Note", exact=True).press_sequentially(" and more")
    # What the server gives back is held up, and what is asked is let through.
    page.evaluate(
        """() => {
            const send = window.fetch;
            window.held = [];
            window.fetch = async (...asked) => {
                const answer = await send(...asked);
                if (window.held) await new Promise((go) => window.held?.push(go) ?? go());
                return answer;
            };
        }"""
    )
    asked = predictor.asked
    page.locator(f"{LIST} .mf-row", has_text="Cedar").click()
    page.wait_for_timeout(1000)
    expect(page.get_by_label("Note", exact=True)).to_have_value("FINDINGS: hoarse and more")
    page.get_by_role("button", name="Predict", exact=True).click()
    page.wait_for_timeout(1000)
    page.evaluate(
        "() => { const held = window.held; window.held = null; held.forEach((go) => go()); }"
    )
    expect(page.get_by_label("Note", exact=True)).to_have_value("FINDINGS: fever")
    expect(page.locator("#note")).to_contain_text("fever")
    expect(page.locator("#note")).not_to_contain_text("hoarse")
    page.wait_for_timeout(300)
    expect(page.locator("#answer")).not_to_contain_text(SHOWN)
    assert predictor.asked == asked  # nobody had seen what would have been answered
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    assert predictor.last is not None
    assert predictor.last.note == b"FINDINGS: fever"


def test_which_study_it_is_and_its_image_stay_in_sight(page: Page, store: Store) -> None:
    pixels = np.tile(np.arange(64, dtype=np.uint16) * 64, (48, 1))
    image = make_dicom(pixels, "P7", study_date="20260203")
    store.add("Elm", Study(images=(image,), note=b"FINDINGS: none"))
    page.set_viewport_size({"width": 1280, "height": 800})
    page.reload()
    which = page.locator("#which .mf-open")
    expect(page.locator(f"{LIST} .mf-row")).to_have_count(4)
    expect(which).to_have_count(0)
    page.locator(f"{LIST} .mf-row").filter(has_text="Elm").click()
    expect(which).to_have_text(re.compile("Elm.*2026-02-03.*Patient ID P7"))
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    assert not re.search("Elm|P7|2026", page.title() + page.url)
    stage = page.locator("#image .mf-stage")
    for place in ("#answer .mf-bars", "#note .mf-note", "#report-ask"):
        page.locator(place).first.scroll_into_view_if_needed()
        for seen in (which, stage, page.locator(place).first):
            expect(seen).to_be_in_viewport(ratio=0.95)
    page.set_viewport_size({"width": 1920, "height": 1080})
    box, answer = stage.bounding_box(), page.locator("#answer").bounding_box()
    assert box
    assert answer
    assert box["x"] > answer["x"] + answer["width"]
    assert box["width"] > 700
    page.get_by_role("button", name="Clear all").click()
    expect(which).to_have_count(0)


def test_ten_thousand_rows_are_a_few_in_the_page(
    page: Page, store: Store, predictor: Predictor
) -> None:
    now = datetime.now(UTC)
    rows = [
        {
            "id": f"{number:032x}",
            "label": f"S{number:05d}",
            "label_key": f"s{number:05d}",
            "arrived": now,
            "modalities": 2,
            "status": Status.WAITING,
            "reader": "",
            "changed": now,
            "digest": "",
        }
        for number in range(4, 10_001)
    ]
    with store._writing.begin() as connection:
        connection.execute(studies.insert(), rows)
    try:
        page.reload()
        expect(page.locator(f"{LIST} .mf-count")).to_have_text("10,000 studies")
        tab_to(page, "grid")
        page.keyboard.press("End")
        expect(page.locator(f"{LIST} [role=status]")).to_contain_text("Study 1 of 10,000")
        last = page.locator(f"{LIST} .mf-row", has_text="S10000")
        expect(last).to_have_attribute("aria-rowindex", "10001")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowDown")
        assert said(page) == "Study 10,000 of 10,000: S10000, waiting"
        assert page.locator(f"{LIST} [role=row]").count() < 100
        # As quickly as keys are pressed, and never a row that is empty for good.
        for _ in range(40):
            page.keyboard.press("PageUp")
            assert page.locator(f"{LIST} [role=row]").count() < 100
        expect(page.locator(f"{LIST} .mf-row", has_text="\N{HORIZONTAL ELLIPSIS}")).to_have_count(0)
    finally:
        with store._writing.begin() as connection:
            connection.execute(studies.delete())


def test_what_arrives_is_seen_without_the_page_being_loaded_anew(page: Page, store: Store) -> None:
    store.add("Dogwood", Study(note=NOTE))
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.locator(f"{LIST} .mf-row > :first-child")).to_have_text(
        ["Alder", "Birch", "Cedar", "Dogwood"]
    )


def test_a_study_that_was_removed_meanwhile_is_told(page: Page, store: Store) -> None:
    store.remove(list_rows(store)[1].id)
    page.locator(f"{LIST} .mf-row", has_text="Birch").click()
    expect(page.locator("#given-told .mf-problem")).to_contain_text("no such study on the worklist")


def test_no_page_has_the_address_of_another_s_study(browser: Browser, url: str, page: Page) -> None:
    with open_page(browser, url) as other:
        for one in (page, other):
            one.locator(f"{LIST} .mf-row", has_text="Alder").click()
            expect(one.locator("#image .mf-what")).to_contain_text("pixels")
        here, there = (
            str(one.locator("mf-viewer").get_attribute("data-shelf")) for one in (page, other)
        )
        assert here != there
        assert there not in page.content()
        page.keyboard.press("Alt+n")
        expect(page.locator("#image")).to_contain_text("No image")
        assert httpx.get(f"{url}/shelves/{here}/0").status_code == 404
        assert other.request.get(f"{url}/shelves/{there}/0").status == 200
        assert page.request.get(f"{url}/shelves/{there}/0").status == 403


def test_a_label_is_text_and_nothing_else(browser: Browser, url: str, store: Store) -> None:
    label = "<img src=x onerror=alert(1)>${1}"
    store.add(label, Study(note=NOTE))
    with open_page(browser, url) as page:
        expect(page.locator(f"{LIST} .mf-row > :first-child").last).to_have_text(label)
        assert page.locator(f"{LIST} img").count() == 0


def test_the_worklist_turns_to_the_reader_s_language(page: Page) -> None:
    page.get_by_label("Language").click()
    page.get_by_role("option", name="简体中文").click()
    expect(page.locator(f"{LIST} .mf-count")).to_have_text("3 项检查")
    expect(page.locator(f"{LIST} h2")).to_have_text("工作列表")
    expect(page.get_by_role("button", name="接受")).to_have_count(0)  # there is no answer
    page.keyboard.press("Alt+n")
    expect(page.locator("#mf-told > p").last).to_have_text(re.compile("^检查 Alder.*已打开$"))
    expect(page.locator(f"{LIST} .mf-row").first).to_contain_text("已打开")
    page.locator(f"{LIST} [role=grid]").focus()
    expect(page.locator(f"{LIST} [role=status]")).to_have_text(re.compile("第 1 项.*Alder.*已打开"))


@pytest.mark.parametrize("code", ["en", "zh"])
def test_every_word_of_the_element_is_given_with_its_values_open(code: str) -> None:
    shown = list_html(find_language(code), None)
    for name in WORDS:
        assert f"&quot;{name}&quot;" in shown
    assert "&#123;number&#125;" in shown


# Readings -----------------------------------------------------------------------------------------


def decide(page: Page, how: str, wording: str = "", reason: str = "") -> None:
    page.get_by_label("Final wording").fill(wording)
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=how, exact=True).click()


@pytest.mark.parametrize(
    ("how", "wording", "reason", "kept"),
    [
        ("Accept", "Of an edit", "Of an override", "accepted."),
        ("Edit", "Bright on the left.", "The right is dark.", "accepted with changes"),
        ("Override", "", "Motion.", "overridden"),
    ],
)
def test_a_decision_is_kept_and_stands_in_the_report(
    page: Page, store: Store, how: str, wording: str, reason: str, kept: str
) -> None:
    before = len(list(store.list_readings()))
    page.keyboard.press("Alt+n")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    expect(page.get_by_role("button", name=how, exact=True)).to_be_hidden()
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    if how != "Accept":
        decide(page, how, wording)
        expect(page.locator("#decision-place [role=alert]")).to_contain_text("needs a reason")
        assert statuses(store)[0] == "opened"
    decide(page, how, wording, reason)
    expect(page.locator("#decision-place [data-told]")).to_contain_text(kept)
    if how == "Accept":  # what was written for another decision is none of this one
        wording = reason = ""
    expect(page.get_by_label("Final wording")).to_have_value(wording)
    expect(page.get_by_label("Reason")).to_have_value(reason)
    expect(page.locator(f"{LIST} [aria-selected=true]")).to_contain_text("read")
    assert statuses(store) == ["read", "waiting", "waiting"]
    shown, decided = list(store.list_readings())[before:]
    assert shown.reading == decided.reading
    assert (shown.decided_at, decided.label) == (None, "Alder")
    assert (decided.decision, decided.wording, decided.reason) == (how.lower(), wording, reason)
    assert decided.answer is not None
    assert decided.answer.tasks[0].probabilities

    page.get_by_role("button", name="Make a PDF report").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the report").click()
    record = open_report(Path(download.value.path())).record
    assert record.study_id == "Alder"
    assert record.reading is not None
    assert (record.reading.decision, record.reading.wording) == (how.lower(), wording)
    assert record.reading.answered_at == shown.answered_at
    # What was decided on one answer does not stay beside another.
    page.keyboard.press("Alt+n")
    expect(page.locator("#note")).to_contain_text("hoarse")
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    expect(page.locator("#decision-place")).not_to_contain_text("Kept")
    expect(page.get_by_label("Reason")).to_have_value("")


def test_an_answer_that_is_all_withheld_is_not_accepted_but_its_referral_noted(
    page: Page, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_unlike(prediction: Prediction) -> Answer:
        answer = to_answer(prediction)
        unlike = {m: NoveltyAnswer(p_value=0.0, novel=True) for m in answer.used}
        return answer.model_copy(update={"novelty": unlike})

    monkeypatch.setattr("medfuse_serving.page.answering.to_answer", answer_unlike)
    page.locator(f"{LIST} .mf-row", has_text="Birch").click()
    expect(page.locator("#note")).to_contain_text("hoarse")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("Refer to a human.")
    for how in ("Accept", "Edit", "Override"):
        expect(page.get_by_role("button", name=how, exact=True)).to_be_hidden()
    page.get_by_role("button", name="Referral noted").click()
    expect(page.locator("#decision-place")).to_contain_text("the referral was noted")
    expect(page.locator(f"{LIST} [aria-selected=true]")).to_contain_text("read")
    *_, kept = store.list_readings()
    assert kept.decision == "acknowledge"
    monkeypatch.undo()
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    expect(page.get_by_role("button", name="Accept", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Referral noted")).to_be_hidden()


def test_a_reading_has_the_name_of_who_is_logged_in(
    browser: Browser, predictor: Predictor, store: Store
) -> None:
    explainer = Explainer(predictor, None, NETWORK)
    app = build_api(explainer)
    mount_worklist(app, store, SETTINGS.limits)

    async def name(scope: Scope, receive: Receive, send: Send) -> None:
        """Stand in for the log-in, which names the reader in a request's scope."""
        await mounted({**scope, SCOPE: "Reader 7"}, receive, send)

    mounted = mount_page(app, explainer, (), Practice(store))
    with running(name) as url, open_page(browser, url) as page:
        page.locator(f"{LIST} .mf-row", has_text="Birch").click()
        expect(page.locator(f"{LIST} [aria-selected=true]")).to_contain_text("Reader 7")
        predict(page)
        expect(page.locator("#answer")).to_contain_text(SHOWN)
        decide(page, "Accept")
        expect(page.locator("#decision-place")).to_contain_text("Kept")
    assert [line.reader for line in store.list_readings()][-2:] == ["Reader 7", "Reader 7"]
    assert [row.reader for row in list_rows(store)] == ["", "Reader 7", ""]


def test_a_decision_outlasts_an_explanation_that_was_under_way(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.keyboard.press("Alt+n")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    predict(page)
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    page.get_by_label("Finding to explain").click()
    page.get_by_role("option", name="findings: brightness").click()
    monkeypatch.setattr(NETWORK, "delay_s", 0.03)
    page.get_by_role("button", name="Explain this answer").click()
    expect(page.locator("#explanation .mf-progress")).to_contain_text(re.compile("[1-9] %"))
    decide(page, "Override", reason="Motion.")
    expect(page.locator("#decision-place")).to_contain_text("overridden")
    expect(page.locator("#explanation")).to_contain_text("Completeness gap", timeout=60_000)
    page.get_by_role("button", name="Make a PDF report").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the report").click()
    record = open_report(Path(download.value.path())).record
    assert record.explanations
    assert record.reading is not None
    assert record.reading.reason == "Motion."


def test_no_score_reaches_the_page_before_the_impression_is_kept(
    first_page: Page, store: Store, predictor: CountingPredictor
) -> None:
    page = first_page
    answer = to_answer(predictor.predict([make_study()])[0])
    numbers = [*answer.tasks[0].probabilities.values(), answer.tasks[1].value]
    secrets = [repr(number)[:8] for number in numbers]
    secrets += [format_probability(p) for p in answer.tasks[0].probabilities.values()]
    # Every message of the page's event stream, as it comes.
    page.evaluate(
        """() => {
            window.told = [];
            const parse = JSON.parse;
            JSON.parse = (text, ...rest) => {
                window.told.push(String(text));
                return parse(text, ...rest);
            };
        }"""
    )
    asked = predictor.asked
    page.keyboard.press("Alt+n")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    expect(page.get_by_label("Your impression in words")).to_be_hidden()
    predict(page)
    expect(page.locator("#answer [data-told]")).to_contain_text("Read first")
    expect(page.get_by_role("button", name="Explain this answer")).to_be_hidden()
    expect(page.get_by_role("button", name="Accept")).to_be_hidden()
    keep = page.get_by_role("button", name="Keep my impression")
    keep.click()
    expect(page.locator("#impression-place [role=alert]")).to_contain_text("says nothing")
    told = "\n".join(page.evaluate("window.told"))
    assert "Read first" in told  # the stream is seen
    everything = told + page.content() + page.locator("body").inner_text()
    assert [secret for secret in secrets if secret in everything] == []
    assert predictor.asked == asked

    page.get_by_role("group", name="Brightness").get_by_label("absent").check()
    page.get_by_label("Loudness (dB)").fill("12.5")
    page.get_by_label("Your impression in words").fill("Dark, and loud.")
    keep.click()
    for probability in answer.tasks[0].probabilities.values():
        expect(page.locator("#answer")).to_contain_text(format_probability(probability))
    assert predictor.asked == asked + 1
    told = "\n".join(page.evaluate("window.told"))
    assert all(format_probability(p) in told for p in answer.tasks[0].probabilities.values())
    impression, shown = list(store.list_readings())[-2:]
    assert impression.findings == {"findings.brightness": "absent", "loudness": "12.5"}
    assert (impression.impression, impression.answer) == ("Dark, and loud.", None)
    assert impression.impression_at is not None
    assert shown.answered_at is not None
    assert impression.impression_at < shown.answered_at
    # It stands beside the answer, in the reader's language.
    kept = page.locator("#kept-impression")
    for said in ("Brightness: absent", "Loudness (dB): 12.5", "Dark, and loud."):
        expect(kept).to_contain_text(said)
    # The next study begins with an empty form.
    page.keyboard.press("Alt+n")
    expect(page.locator("#note")).to_contain_text("hoarse")
    predict(page)
    expect(page.locator("#answer")).to_contain_text("Read first")
    expect(page.get_by_label("Your impression in words")).to_have_value("")
    expect(page.get_by_role("group", name="Brightness").get_by_label("absent")).not_to_be_checked()


def test_what_was_written_and_not_kept_is_not_lost_without_a_question(
    first_page: Page, store: Store
) -> None:
    page = first_page
    asked: list[str] = []
    leave = False

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.message or dialog.type)
        if leave:
            dialog.accept()
        else:
            dialog.dismiss()

    page.on("dialog", answer)

    def expect_question(count: int) -> None:
        before = len(asked)
        page.keyboard.press("Alt+n")
        page.wait_for_timeout(500)
        assert len(asked) - before == count
        asked.clear()

    page.keyboard.press("Alt+n")  # nothing was written yet
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    predict(page)
    words = page.get_by_label("Your impression in words")
    page.get_by_role("group", name="Brightness").get_by_label("absent").check()
    expect_question(1)
    words.fill("Dark.")
    expect_question(1)
    page.get_by_role("button", name="Clear all").click()
    assert "would be lost" in asked.pop()
    expect(words).to_have_value("Dark.")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    page.get_by_role("button", name="Keep my impression").click()
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    # The impression is kept; a reason is not, until it stands in a decision.
    page.get_by_label("Reason").press_sequentially("Motion.")
    expect_question(1)
    page.get_by_role("button", name="Override", exact=True).click()
    expect(page.locator("#decision-place")).to_contain_text("overridden")
    page.get_by_label("Reason").press_sequentially(" Twice.")
    expect_question(1)
    with page.expect_event("dialog") as question:
        page.evaluate("() => void setTimeout(() => location.reload())")
    assert question.value.type == "beforeunload"
    expect(page.get_by_label("Reason")).to_have_value("Motion. Twice.")
    page.get_by_role("button", name="Override", exact=True).click()
    page.wait_for_timeout(700)
    asked.clear()
    expect_question(0)
    expect(page.locator("#note")).to_contain_text("hoarse")
    # Who says so leaves.
    predict(page)
    words.fill("Hoarse.")
    leave = True
    expect_question(1)
    expect(page.locator("#note")).to_contain_text("fever")


def test_what_was_written_stays_when_a_part_of_the_study_is_changed(first_page: Page) -> None:
    page = first_page
    words, reason = page.get_by_label("Your impression in words"), page.get_by_label("Reason")
    absent = page.get_by_role("group", name="Brightness").get_by_label("absent")
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    predict(page)
    absent.check()
    words.fill("Dark.")
    image = make_dicom(np.full((9, 9), 1, np.uint16))
    files = [FilePayload(name=name, mimeType="", buffer=image) for name in ("a", "b")]
    page.locator("input[type=file]").nth(0).set_input_files(files)
    expect(page.locator("#image")).to_contain_text("Frame 1 of 2")
    predict(page)
    for language, said in (("简体中文", "先行判读"), ("English", "Read first")):
        page.get_by_label("Language").click()
        page.get_by_role("option", name=language).click()
        expect(page.locator("#answer")).to_contain_text(said)
    expect(words).to_have_value("Dark.")
    expect(absent).to_be_checked()
    page.get_by_role("button", name="Keep my impression").click()
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    for decided in (False, True):
        reason.fill("Motion.")
        if decided:
            page.get_by_role("button", name="Override", exact=True).click()
            expect(page.locator("#decision-place")).to_contain_text("overridden")
        page.get_by_role("button", name="Remove image").click()
        expect(page.locator("#answer")).not_to_contain_text(SHOWN)
        predict(page)
        expect(page.locator("#answer")).to_contain_text("Read first")
        page.get_by_role("button", name="Keep my impression").click()
        expect(page.locator("#answer")).to_contain_text(SHOWN)
        expect(page.locator("#kept-impression")).to_contain_text("Dark.")
        expect(page.locator("#decision-place")).not_to_contain_text("overridden")
        expect(reason).to_have_value("" if decided else "Motion.")


def test_a_changed_study_asks_for_another_impression(first_page: Page, store: Store) -> None:
    page = first_page
    page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
    predict(page)
    page.get_by_label("Your impression in words").fill("A cough.")
    page.get_by_role("button", name="Keep my impression").click()
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    page.get_by_label("Note", exact=True).press_sequentially(" and fever")
    expect(page.locator("#answer")).not_to_contain_text(SHOWN)
    predict(page)
    expect(page.locator("#answer")).to_contain_text("Read first")
    expect(page.locator("#answer")).not_to_contain_text(SHOWN)
    # A study that is on no worklist is kept by its inputs.
    last = list(store.list_readings())[-1]
    assert last.study is None
    assert [part.modality for part in last.inputs] == ["note"]


def test_a_study_that_cannot_be_read_needs_no_impression(first_page: Page) -> None:
    predict(first_page)
    expect(first_page.locator("#answer .mf-problem")).to_contain_text("no image, no note")
    expect(first_page.get_by_label("Your impression in words")).to_be_hidden()


def test_nothing_is_explained_before_the_answer(predictor: Predictor) -> None:
    # The button is not seen then; this is what somebody would be told who presses it all the same.
    explainer = Explainer(predictor, None, HandNetwork(MIXED))
    target = explainer.targets[0]
    desk = lay_out(ENGLISH, Study(note=NOTE), SETTINGS, Shelves())
    for read_first in (False, True):
        practice = Practice(read_first=read_first)
        with gradio.Blocks():
            room = Room(explainer, (), Shelves(), practice, lay_parts(explainer, (), practice))
        session = Session(desk)
        steps = explain(room, NOTE.decode(), desk.laid, session, target, "gradients", None, False)
        if read_first:
            with pytest.raises(InputError, match="comes after the answer"):
                list(steps)
        else:
            list(steps)
            assert [view.record.target for view in session.desk.views] == [target]


@pytest.fixture(scope="module")
def bare_url(predictor: Predictor) -> Iterator[str]:
    """Without a worklist."""
    with serving(predictor, Practice()) as url:
        yield url


def test_without_a_worklist_a_reading_stays_here_and_the_page_says_so(
    browser: Browser, bare_url: str
) -> None:
    with open_page(browser, bare_url) as page:
        page.get_by_label("Note", exact=True).fill("FINDINGS: cough")
        predict(page)
        expect(page.locator("#decision-place")).to_contain_text("There is no worklist")
        assert page.locator(LIST).count() == 0
        decide(page, "Override", reason="Motion.")
        expect(page.locator("#decision-place")).to_contain_text("overridden")
        expect(page.locator("#decision-place")).to_contain_text("There is no worklist")


# For everyone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", LOOKS)
def test_no_screen_of_a_reading_breaks_a_rule_of_wcag(
    look: str, browser: Browser, first_url: str, store: Store
) -> None:
    dark = "?__theme=dark" if look == "dark" else "?__theme=light"
    with open_page(browser, f"{first_url}/{dark}") as page:
        if look == "high contrast":
            page.emulate_media(forced_colors="active")
        expect(page.locator(f"{LIST} .mf-count")).to_have_text("3 studies")
        assert_accessible(page, "a worklist")
        page.keyboard.press("Alt+n")
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        predict(page)
        expect(page.locator("#answer")).to_contain_text("Read first")
        page.get_by_role("button", name="Keep my impression").click()
        expect(page.locator("#impression-place")).to_contain_text("says nothing")
        assert_accessible(page, "an impression")
        page.get_by_label("Your impression in words").fill("Dark.")
        page.get_by_role("button", name="Keep my impression").click()
        expect(page.locator("#answer")).to_contain_text(SHOWN)
        page.get_by_role("button", name="Edit", exact=True).click()
        expect(page.locator("#decision-place")).to_contain_text("needs a reason")
        assert_accessible(page, "a decision that is refused")
        decide(page, "Accept")
        expect(page.locator("#decision-place")).to_contain_text("Kept")
        assert_accessible(page, "a decision")


def test_axe_sees_what_is_wrong_in_the_worklist_too(page: Page) -> None:
    page.locator(f"{LIST} .mf-tools select").first.evaluate("s => s.parentElement.replaceWith(s)")
    with pytest.raises(AssertionError, match="select-name"):
        assert_accessible(page, "a list without a name", kept=False)


def test_a_reading_is_done_by_keyboard_alone(first_page: Page, store: Store) -> None:
    page = first_page
    tab_to(page, "grid")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#note")).to_contain_text("hoarse")

    def press(name: str) -> None:
        button = page.get_by_role("button", name=name)
        for _ in range(80):
            page.keyboard.press("Tab")
            if button.evaluate("button => button === document.activeElement"):
                page.keyboard.press("Enter")
                return
        raise AssertionError(f"Tab never reaches {name}")

    press("Predict")
    expect(page.locator("#answer")).to_contain_text("Read first")
    for _ in range(80):
        page.keyboard.press("Tab")
        if focused(page) == "radio":
            break
    page.keyboard.press("ArrowRight")  # from "present", which is not chosen yet, to "absent"
    press("Keep my impression")
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    press("Accept")
    expect(page.locator("#decision-place")).to_contain_text("accepted")
    assert statuses(store) == ["waiting", "read", "waiting"]
    assert list(store.list_readings())[-1].findings == {"findings.brightness": "absent"}


def test_twice_the_zoom_needs_no_scrolling_sideways(first_page: Page) -> None:
    page = first_page
    page.set_viewport_size({"width": 640, "height": 512})  # 1280 x 1024 at 200 %
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    cells = page.locator(f"{LIST} :is([role=gridcell], [role=columnheader])")
    assert cells.count() == 5 + 3 * 5
    assert cells.evaluate_all("all => all.filter(c => c.scrollWidth > c.clientWidth).length") == 0
    page.keyboard.press("Alt+n")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")
    predict(page)
    page.get_by_label("Your impression in words").fill("Dark.")
    assert page.evaluate(wide) <= 0
    page.get_by_role("button", name="Keep my impression").click()
    expect(page.locator("#answer")).to_contain_text(SHOWN)
    assert page.evaluate(wide) <= 0
