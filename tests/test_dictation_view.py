"""A dictated word on the page plays its sound: that and no more, to its user alone."""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from medfuse.config import SAMPLE_RATE, Limits
from medfuse.data.studies import find_studies
from medfuse.dictation.record import Span, SpokenWord, Transcript
from medfuse.types import Modality
from medfuse_serving.api import build_api
from medfuse_serving.dictation_view import (
    Dictated,
    dictated_html,
    find_sounds,
    shelve_dictation,
)
from medfuse_serving.evidence import Piece, WordsPlace
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import ENGLISH, find_language
from medfuse_serving.page.desk import Desk, edit_note, take_dictation, write_down
from medfuse_serving.page.mount import mount_page
from medfuse_serving.predictor import Predictor
from medfuse_serving.shelves import Shelves
from tests.browser import assert_accessible, assert_played, listen, open_browser, open_page
from tests.hand_bundle import SETTINGS, make_study, make_wav, write_study
from tests.hand_network import MIXED, HandNetwork
from tests.live import running
from tests.test_accessibility import LOOKS

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

TEXT = "FINDINGS: cough and fever with chills today"
TIMES = ((0.1, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.2), (1.2, 1.4), (1.4, 1.7), (1.7, 1.9))
LENGTH_S = 2.0


def make_transcript() -> Transcript:
    """A transcript of two seconds, its words' times known."""
    found = [match.span() for match in re.finditer(r"\S+", TEXT)]
    words = tuple(
        SpokenWord(start=start, end=end, start_s=first, end_s=last)
        for (start, end), (first, last) in zip(found, TIMES, strict=True)
    )
    return Transcript(text=TEXT, words=words, speech=(), duration_s=LENGTH_S, model="by hand")


def piece(name: str, words: str) -> Piece:
    start = TEXT.index(words)
    place = WordsPlace(start=start, end=start + len(words), text=words)
    return Piece(id=name, modality=Modality.NOTE, value=1.0, share=None, place=place)


def test_a_word_is_a_button_that_plays_it_with_a_little_margin() -> None:
    sound = Shelves().put(1, lambda _: b"", "audio/wav")
    shown = dictated_html(ENGLISH, Dictated(make_transcript(), sound))
    spans = re.findall(r'data-play="(\S+) (\S+)" data-sound="dictation">([^<]*)<', shown)
    assert [(float(a), float(b), word) for a, b, word in spans] == [
        (0.0, 0.55, "FINDINGS:"),  # no earlier than the recording
        (0.25, 0.85, "cough"),
        (0.55, 1.05, "and"),
        (0.75, 1.35, "fever"),
        (1.05, 1.55, "with"),
        (1.25, 1.85, "chills"),
        (1.55, 2.0, "today"),  # and no later
    ]
    assert re.findall(r'tabindex="(\S+)"', shown) == ["0", *["-1"] * 6]
    assert f'data-shelf="{sound.token}"' in shown
    assert "逐词播放" in dictated_html(find_language("zh"), Dictated(make_transcript(), sound))


def test_a_piece_of_evidence_has_the_sound_of_its_words() -> None:
    pieces = (piece("a", "cough and"), piece("b", " "))
    assert find_sounds(make_transcript(), pieces) == {"a": Span(start_s=0.25, end_s=1.05)}
    area = Piece(id="c", modality=Modality.NOTE, value=1.0, share=None, place=None)
    assert find_sounds(make_transcript(), (area,)) == {}


def test_the_sound_is_as_it_was_heard_and_is_gone_with_its_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = make_wav(LENGTH_S)
    monkeypatch.setattr("medfuse.dictation.transcribe.follow", lambda *_: iter([make_transcript()]))
    shelves = Shelves()
    (dictated,) = write_down(recording, SETTINGS, shelves)
    assert isinstance(dictated, Dictated)
    desk = take_dictation(Desk(), dictated)
    del dictated
    assert desk.dictated is not None
    token = desk.dictated.sound.token
    shelf = shelves.find(token, 0)
    assert shelf is not None
    assert shelf.media_type == "audio/wav"
    heard, rate = soundfile.read(io.BytesIO(shelf.make(0)), dtype="float32")
    whole, _ = soundfile.read(io.BytesIO(recording), dtype="float32")
    assert (rate, len(heard)) == (SAMPLE_RATE, LENGTH_S * SAMPLE_RATE)
    np.testing.assert_allclose(heard, whole, atol=1e-4)
    del shelf
    kept = edit_note(desk, TEXT, desk.laid)
    assert kept.dictated is desk.dictated
    desk = edit_note(kept, f"{TEXT}!", kept.laid)
    del kept
    assert desk.dictated is None
    assert shelves.find(token, 0) is None


def test_a_sound_goes_with_whoever_holds_it() -> None:
    shelves = Shelves()
    dictated = shelve_dictation(make_wav(), make_transcript(), Limits(), shelves)
    token = dictated.sound.token
    assert shelves.find(token, 0) is dictated.sound
    del dictated
    assert shelves.find(token, 0) is None


# In a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(hand_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("examples") / "first"
    write_study(folder, replace(make_study(), voice=None))
    explainer = Explainer(Predictor(hand_bundle), None, HandNetwork(MIXED))
    app = mount_page(build_api(explainer), explainer, find_studies(folder.parent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medfuse.dictation.transcribe.follow", lambda *_: iter([make_transcript()]))
        with running(app) as url:
            yield url


@contextmanager
def dictating(browser: Browser, url: str) -> Iterator[Page]:
    """Open the page, write a dictation down and open its words."""
    with open_page(browser, url) as page:
        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        give_dictation(page)
        expect(page.locator("#note")).to_contain_text("cough and fever")
        yield page


def give_dictation(page: Page) -> None:
    file = FilePayload(name="Doe.wav", mimeType="audio/wav", buffer=make_wav(LENGTH_S))
    page.locator("input[type=file]").nth(3).set_input_files(file)


def open_words(page: Page) -> Locator:
    page.get_by_text("Written down from a dictation").click()
    words = page.get_by_role("toolbar", name="Words of the dictation")
    expect(words).to_be_visible()
    return words


@pytest.mark.parametrize("by", ["pointer", "key"])
def test_a_word_is_heard_and_no_more(browser: Browser, url: str, by: str) -> None:
    with dictating(browser, url) as page:
        asked: list[str] = []
        page.on("request", lambda r: asked.append(r.url) if "/shelves/" in r.url else None)
        words = open_words(page)
        audio = page.locator(".mf-dictated audio")
        listen(audio)
        if by == "pointer":
            button = words.get_by_role("button", name="cough")
            button.click()
        else:
            page.get_by_text("Written down from a dictation").focus()
            page.keyboard.press("Tab")
            expect(words.get_by_role("button", name="FINDINGS:")).to_be_focused()
            page.keyboard.press("ArrowRight")
            button = words.get_by_role("button", name="cough")
            expect(button).to_be_focused()
            page.keyboard.press("Enter")
        assert_played(button, audio, 0.25, 0.85)
        last = words.get_by_role("button", name="today")
        if by == "pointer":
            last.click()
        else:
            page.keyboard.press("End")
            expect(last).to_be_focused()
            page.keyboard.press("Shift+Tab")  # one stop for all the words
            expect(last).not_to_be_focused()
            page.keyboard.press("Tab")
            expect(last).to_be_focused()
            page.keyboard.press("Space")
        assert_played(last, audio, 1.55, 2.0)
        assert len(asked) == 1  # the sound is fetched once


def test_a_word_is_large_enough_to_be_hit(browser: Browser, url: str) -> None:
    with dictating(browser, url) as page:
        words = open_words(page)
        for word in words.get_by_role("button").all():
            box = word.bounding_box()
            assert box
            assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, 2.5.8


def test_nobody_else_can_fetch_the_sound_and_it_is_gone_with_the_study(
    browser: Browser, url: str
) -> None:
    with dictating(browser, url) as page, open_page(browser, url) as other:
        expect(other.get_by_role("button", name="Predict")).to_be_visible()
        give_dictation(other)
        expect(other.locator("#note")).to_contain_text("cough and fever")
        tokens = [
            str(each.locator(".mf-dictated audio").get_attribute("data-shelf"))
            for each in (page, other)
        ]
        assert len(set(tokens)) == 2
        assert tokens[0] not in other.content()
        addresses = [f"{url}/shelves/{token}/0" for token in tokens]
        for each, address in zip((page, other), addresses, strict=True):
            assert each.request.get(address).headers["content-type"] == "audio/wav"
            assert each.request.get(address).headers["cache-control"] == "no-store"
        page.get_by_label("Note", exact=True).press_sequentially("s")
        page.get_by_label("Note", exact=True).blur()
        expect(page.locator(".mf-dictated")).to_have_count(0)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        assert httpx.get(addresses[0]).status_code == 404
        assert other.request.get(addresses[1]).status == 200
        assert page.request.get(addresses[1]).status == 403
        other.get_by_role("button", name="Clear all").click()
        expect(other.locator("#note")).to_contain_text("No note")
        assert httpx.get(addresses[1]).status_code == 404


def test_a_dictation_goes_when_another_note_is_opened(browser: Browser, url: str) -> None:
    with dictating(browser, url) as page:
        token = page.locator(".mf-dictated audio").get_attribute("data-shelf")
        file = FilePayload(name="n.txt", mimeType="text/plain", buffer=b"FINDINGS: hoarse")
        page.locator("input[type=file]").nth(2).set_input_files(file)
        expect(page.locator("#note")).to_contain_text("hoarse")
        expect(page.locator(".mf-dictated")).to_have_count(0)
        assert httpx.get(f"{url}/shelves/{token}/0").status_code == 404


def test_a_sound_that_is_not_there_any_more_is_told(browser: Browser, url: str) -> None:
    with dictating(browser, url) as page:
        audio = page.locator(".mf-dictated audio")
        audio.evaluate("audio => { audio.dataset.shelf = 'gone'; }")
        words = open_words(page)
        expect(page.locator(".mf-dictated [role=alert]")).to_contain_text("no such piece")
        button = words.get_by_role("button", name="cough")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "false")


def test_evidence_in_a_dictated_note_plays_its_words(browser: Browser, url: str) -> None:
    with open_page(browser, url) as page:
        page.get_by_label("Example study").click()
        page.get_by_role("option", name="first").click()
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        give_dictation(page)
        expect(page.locator(".mf-dictated")).to_be_visible()
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        page.get_by_label("Finding to explain").click()
        page.get_by_role("option", name="findings: brightness").click()
        page.get_by_role("button", name="Explain this answer").click()
        expect(page.locator("#explanation")).to_contain_text("Completeness gap")
        page.get_by_text("The evidence as a table").click()
        audio = page.locator(".mf-dictated audio")
        listen(audio)
        # Six pieces that say a tenth each make a group, a colon among them; two are left.
        play = page.get_by_role("button", name='Play "chills today"')
        play.press("Enter")
        assert_played(play, audio, 1.25, 2.0)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """When a dictation begins to be written down; and what lets it be."""
    begun, go_on = threading.Event(), threading.Event()

    def transcribe_late(*_: object) -> Iterator[float | Transcript]:
        yield 0.5
        begun.set()
        assert go_on.wait(20)
        yield make_transcript()

    monkeypatch.setattr("medfuse.dictation.transcribe.follow", transcribe_late)
    return begun, go_on


def test_what_comes_while_a_dictation_is_written_down_stays_beside_it(
    browser: Browser, url: str, late: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = late
    with open_page(browser, url) as page:
        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        give_dictation(page)
        image = FilePayload(name="x", mimeType="", buffer=make_study().images[0])
        assert begun.wait(10)
        page.locator("input[type=file]").nth(0).set_input_files(image)
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        go_on.set()
        expect(page.locator("#note")).to_contain_text("chills")
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        expect(page.locator("#answer")).not_to_contain_text("%")  # it is of no note
        expect(page.locator("#given-told")).to_be_hidden()


@pytest.mark.parametrize("meanwhile", ["typed", "typed on its way", "next study"])
def test_a_dictation_takes_the_place_of_no_note_that_was_written_meanwhile(
    meanwhile: str, browser: Browser, url: str, late: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = late
    held: list[Route] = []
    with open_page(browser, url) as page:
        told = page.locator("#given-told")
        note = page.get_by_label("Note", exact=True)
        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        if meanwhile == "typed on its way":
            page.route("**/gradio_api/upload*", lambda route: held.append(route))
            with page.expect_request("**/gradio_api/upload*"):
                give_dictation(page)
            note.fill("FINDINGS: hoarse")
            held[0].continue_()
            expect(told).to_contain_text("give the dictation again")
        else:
            give_dictation(page)
            assert begun.wait(10)
            if meanwhile == "typed":
                note.fill("FINDINGS: hoarse")
            else:
                page.get_by_label("Example study").click()
                page.get_by_role("option", name="first").click()
                expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        kept = note.input_value()
        go_on.set()
        if meanwhile == "typed on its way":
            expect(told).to_be_hidden()  # it was seen before the answer was asked for
        else:
            expect(told).to_contain_text("give the dictation again")
        expect(note).to_have_value(kept)
        expect(page.locator("#note")).not_to_contain_text("chills")
        expect(page.locator("#answer")).to_contain_text("%")


def test_how_far_a_dictation_is_written_down_is_shown_and_it_is_stopped(
    browser: Browser, url: str, late: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = late
    with open_page(browser, url) as page:
        stop = page.get_by_role("button", name="Stop writing down")
        note = page.get_by_label("Note", exact=True)
        note.fill("FINDINGS: hoarse")
        expect(stop).to_be_hidden()
        give_dictation(page)
        assert begun.wait(10)
        expect(page.locator("#writing")).to_contain_text("Writing down: 50 %")
        expect(page.locator("#mf-told")).to_contain_text("The dictation is being written down.")
        assert_accessible(page, "a dictation being written down")
        stop.press("Enter")
        expect(page.locator("#writing")).to_be_hidden()
        go_on.set()
        page.wait_for_timeout(1000)
        expect(note).to_have_value("FINDINGS: hoarse")
        expect(page.locator("#given-told")).to_be_hidden()
        give_dictation(page)  # and another is taken
        expect(page.locator("#note")).to_contain_text("chills")
        expect(stop).to_be_hidden()


@pytest.mark.parametrize("look", LOOKS)
def test_the_words_break_no_rule_of_wcag(look: str, browser: Browser, url: str) -> None:
    dark = "?__theme=dark" if look == "dark" else "?__theme=light"
    with dictating(browser, f"{url}/{dark}") as page:
        if look == "high contrast":
            page.emulate_media(forced_colors="active")
        words = open_words(page)
        words.get_by_role("button", name="cough").click()
        assert_accessible(page, "the words of a dictation")
