"""What a missing modality might change: by hand, against single answers, and on the page."""

import html
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from medfuse.errors import BundleError
from medfuse.types import Modality, Study
from medfuse_serving.answer import format_probability, to_answer
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import ENGLISH, find_language
from medfuse_serving.missing import FEWEST, Reach, explore, follow
from medfuse_serving.missing_view import reach_html
from medfuse_serving.page.mount import mount_page
from medfuse_serving.predictor import Predictor
from tests.browser import assert_accessible, open_browser, open_page
from tests.hand_bundle import make_dicom, make_study
from tests.hand_network import MIXED, HandNetwork
from tests.live import running

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

LEVELS = (0, 700, 1400, 2100, 2800, 3500)
OTHERS = tuple(
    Study(images=(make_dicom(np.full((9, 18), level, np.uint16)),), note=b"FINDINGS: cough")
    for level in LEVELS
)
NOTE = Study(note=b"FINDINGS: fever")


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


def test_a_range_is_that_of_the_answers_with_each_other_s_part(predictor: Predictor) -> None:
    (reach,) = explore(predictor, NOTE, OTHERS)
    assert (reach.modality, reach.count) == (Modality.IMAGE, len(OTHERS))
    answers = [
        to_answer(predictor.predict([replace(NOTE, images=other.images)])[0]) for other in OTHERS
    ]
    for task in answers[0].tasks:
        for name in task.probabilities:
            each = [
                next(t for t in a.tasks if t.name == task.name).probabilities[name] for a in answers
            ]
            assert reach.ranges[f"{task.name}.{name}"] == (min(each), max(each))
    low, high = reach.ranges["findings.brightness"]
    assert low < high  # the hand network reads how bright it is


def test_a_modality_that_is_there_or_that_few_others_have_has_no_range(
    predictor: Predictor,
) -> None:
    assert explore(predictor, make_study(), OTHERS) == ()
    assert explore(predictor, NOTE, OTHERS[: FEWEST - 1]) == ()
    lacking = (*OTHERS[: FEWEST - 1], NOTE)
    assert explore(predictor, NOTE, lacking) == ()
    (reach,) = explore(predictor, NOTE, OTHERS[:FEWEST])
    assert reach.count == FEWEST


def test_it_is_told_how_far_it_is_before_each_answer(predictor: Predictor) -> None:
    *shares, found = follow(predictor, NOTE, OTHERS)
    assert shares == [done / len(OTHERS) for done in range(len(OTHERS))]
    assert found == explore(predictor, NOTE, OTHERS)


def test_the_table_has_each_answer_and_its_range_but_nothing_that_is_withheld(
    predictor: Predictor,
) -> None:
    answer = to_answer(predictor.predict([NOTE])[0])
    reach = Reach(Modality.IMAGE, 7, {"findings.brightness": (0.1234, 0.9)})
    shown = reach_html(ENGLISH, answer, [reach], ())
    seen = " ".join(html.unescape(re.sub("<[^>]*>", " ", shown)).split())
    assert "missing image" in seen
    assert "7 other patients" in seen
    now = format_probability(answer.tasks[0].probabilities["brightness"])
    assert f"Brightness {now} 12.3 % to 90.0 %" in seen
    assert "left:12.3%;width:77.7%" in shown
    assert reach_html(ENGLISH, answer, [reach], {"findings.brightness"}) == ""
    assert "缺失" in reach_html(find_language("zh"), answer, [reach], ())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def network() -> HandNetwork:
    return HandNetwork(MIXED)


@pytest.fixture(scope="module")
def url(
    predictor: Predictor, network: HandNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    others = tmp_path_factory.mktemp("others")
    for number, other in enumerate(OTHERS):
        folder = others / f"{number}"
        folder.mkdir()
        (folder / "i.dcm").write_bytes(other.images[0])
    explainer = Explainer(predictor, others, network)
    with running(mount_page(build_api(explainer), explainer)) as url:
        yield url


ASK = "Show what a missing part might change"


def answer_note(page: Page) -> None:
    page.get_by_label("Note", exact=True).fill("FINDINGS: fever")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer")).to_contain_text("%")


def test_the_page_shows_it_once_it_is_asked_and_not_beside_another_study(
    browser: Browser, url: str
) -> None:
    with open_page(browser, url) as page:
        ask = page.get_by_role("button", name=ASK)
        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        expect(ask).to_be_hidden()
        answer_note(page)
        ask.click()
        table = page.locator("#reach .mf-reach")
        expect(table).to_contain_text("What the missing image might change")
        expect(table).to_contain_text("6 other patients")
        assert_accessible(page, "what a missing image might change")
        page.get_by_label("Note", exact=True).press_sequentially(" and cough")
        expect(table).to_have_count(0)
        # Nor when the other study is answered in its turn.
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        expect(table).to_have_count(0)


def test_what_was_found_outlasts_an_explanation_that_was_under_way(
    browser: Browser, url: str, network: HandNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_page(browser, url) as page:
        answer_note(page)
        monkeypatch.setattr(network, "delay_s", 0.05)
        page.get_by_role("button", name="Explain this answer").click()
        expect(page.locator("#explanation .mf-progress")).to_contain_text("%")
        page.get_by_role("button", name=ASK).click()
        table = page.locator("#reach .mf-reach")
        expect(table).to_contain_text("Wordiness")
        monkeypatch.setattr(network, "delay_s", 0.0)
        expect(page.locator("#explanation")).to_contain_text("Maps withheld")
        expect(table).not_to_contain_text("Wordiness")  # which is withheld now
        expect(table).to_contain_text("Brightness")


def test_what_was_found_does_not_come_back_beside_a_note_that_is_being_typed(
    browser: Browser, url: str, network: HandNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_page(browser, url) as page:
        answer_note(page)
        page.get_by_role("button", name=ASK).click()
        table = page.locator("#reach .mf-reach")
        expect(table).to_have_count(1)
        monkeypatch.setattr(network, "delay_s", 0.05)
        page.get_by_role("button", name="Explain this answer").click()
        expect(page.locator("#explanation .mf-progress")).to_contain_text("%")
        page.get_by_label("Note", exact=True).press_sequentially(" and")  # which keeps the focus
        expect(table).to_have_count(0)
        monkeypatch.setattr(network, "delay_s", 0.0)
        page.wait_for_timeout(2000)  # until the explanation has ended
        expect(page.locator("#explanation .mf-progress")).to_have_count(0)
        expect(table).to_have_count(0)


def test_nothing_is_shown_of_what_an_explanation_has_withheld_meanwhile(
    browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = threading.Event()

    def follow_late(*given: Any) -> Iterator[float | tuple[Reach, ...]]:
        assert explained.wait(20)
        yield from follow(*given)

    monkeypatch.setattr("medfuse_serving.missing.follow", follow_late)
    with open_page(browser, url) as page:
        answer_note(page)
        page.get_by_role("button", name=ASK).click()
        page.get_by_role("button", name="Explain this answer").click()
        wordiness = page.locator("#answer .mf-bar").filter(has_text="wordiness")
        expect(wordiness).to_contain_text("Refer to a human.")
        explained.set()
        table = page.locator("#reach .mf-reach")
        expect(table).to_contain_text("Brightness")
        expect(table).not_to_contain_text("Wordiness")
        expect(wordiness).to_contain_text("Refer to a human.")
        # As for what was found before: it is shown anew without what is withheld now.
        page.get_by_role("button", name="Predict").click()
        expect(table).to_have_count(0)
        page.get_by_role("button", name=ASK).click()
        expect(table).to_contain_text("Wordiness")
        page.get_by_role("button", name="Explain this answer").click()
        expect(table).not_to_contain_text("Wordiness")
        expect(table).to_contain_text("Brightness")


def test_it_is_shown_how_far_it_is_and_it_is_stopped(
    browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, asked = threading.Event(), []

    def follow_late(*given: Any) -> Iterator[float | tuple[Reach, ...]]:
        for number, step in enumerate(follow(*given)):
            asked.append(number)
            yield step
            assert number < 2 or go_on.wait(20)

    monkeypatch.setattr("medfuse_serving.missing.follow", follow_late)
    with open_page(browser, url) as page:
        answer_note(page)
        stop = page.get_by_role("button", name="Stop looking for it")
        expect(stop).to_be_hidden()
        page.get_by_role("button", name=ASK).click()
        expect(page.locator("#reach")).to_contain_text(f"Looking: {200 // len(OTHERS)} %")
        stop.click()
        expect(page.locator("#reach .mf-progress")).to_have_count(0)
        go_on.set()
        page.wait_for_timeout(700)
        assert asked == [0, 1, 2, 3]  # what was under way, and no more
        expect(page.locator("#reach .mf-reach")).to_have_count(0)
        page.get_by_role("button", name=ASK).click()
        expect(page.locator("#reach .mf-reach")).to_have_count(1)
        expect(stop).to_be_hidden()


def test_why_nothing_was_found_is_told_in_its_place(
    browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Iterator[float]:
        yield 0.5
        raise BundleError("the graph failed")

    monkeypatch.setattr("medfuse_serving.missing.follow", fail)
    with open_page(browser, url) as page:
        answer_note(page)
        page.get_by_role("button", name=ASK).click()
        expect(page.locator("#reach .mf-problem")).to_contain_text("the graph failed")
        expect(page.locator("#answer")).to_contain_text("%")


def test_without_other_studies_it_cannot_be_asked(browser: Browser, predictor: Predictor) -> None:
    explainer = Explainer(predictor, None, HandNetwork(MIXED))
    with (
        running(mount_page(build_api(explainer), explainer)) as url,
        open_page(browser, url) as page,
    ):
        page.get_by_label("Note", exact=True).fill("FINDINGS: fever")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        expect(page.get_by_role("button", name="Show what a missing")).to_have_count(0)
