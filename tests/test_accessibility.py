"""The page by axe-core: no violation of WCAG 2.2 A or AA on any screen; and by keyboard alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, expect

from medfuse.data.studies import find_studies
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.page.mount import mount_page
from medfuse_serving.predictor import Predictor
from tests.browser import assert_accessible, open_browser, open_page
from tests.hand_bundle import SETTINGS, make_study, write_study
from tests.hand_network import MIXED, HandNetwork
from tests.live import running

LOOKS = ("light", "dark", "high contrast")

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")


@dataclass
class Served:
    url: str
    network: HandNetwork = field(default_factory=lambda: HandNetwork(MIXED))


@pytest.fixture(scope="module")
def served(hand_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("examples") / "first"
    write_study(folder, make_study())
    network = HandNetwork(MIXED)
    explainer = Explainer(Predictor(hand_bundle), None, network)
    app = mount_page(build_api(explainer), explainer, find_studies(folder.parent))
    with running(app) as url:
        yield Served(url, network)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize("look", LOOKS)
def test_no_screen_breaks_a_rule_of_wcag(look: str, browser: Browser, served: Served) -> None:
    dark = "?__theme=dark" if look == "dark" else "?__theme=light"
    with open_page(browser, f"{served.url}/{dark}") as page:
        if look == "high contrast":
            page.emulate_media(forced_colors="active")
        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        assert_accessible(page, "nothing given")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("Cannot be used")
        assert_accessible(page, "a refusal")
        page.get_by_label("Example study").click()
        page.get_by_role("option", name="first").click()
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        page.get_by_text("Advanced").click()
        assert_accessible(page, "an answer")
        page.get_by_label("Finding to explain").click()
        page.get_by_role("option", name="findings: brightness").click()
        page.get_by_role("button", name="Explain this answer").click()
        expect(page.locator("#explanation")).to_contain_text("Completeness gap")
        expect(page.locator("#image .mf-heat")).to_be_hidden()
        assert_accessible(page, "an explanation")
        page.get_by_label("Show what spoke for and against").check()
        expect(page.locator("#image .mf-heat")).to_be_visible()
        page.get_by_text("The evidence as a table").click()
        page.get_by_role("button", name="Show").first.focus()
        assert_accessible(page, "an explanation with its maps and its table")
        older = make_study().images[0]
        upload = FilePayload(name="x", mimeType="", buffer=older)
        page.locator("input[type=file]").nth(1).set_input_files(upload)
        expect(page.locator("#prior .mf-what")).to_contain_text("pixels")
        assert_accessible(page, "an earlier study beside it")
        page.get_by_role("button", name="Remove the prior images").click()
        page.get_by_label("Finding to explain").click()
        page.get_by_role("option", name="findings: wordiness").click()
        page.get_by_role("button", name="Explain this answer").click()
        expect(page.locator("#answer")).to_contain_text("Refer to a human")
        assert_accessible(page, "a referral")
        page.get_by_label("Language").click()
        page.get_by_role("option", name="简体中文").click()
        expect(page.get_by_role("button", name="预测")).to_be_visible()
        assert_accessible(page, "another language")


def test_a_long_note_and_a_file_too_large_break_no_rule(browser: Browser, served: Served) -> None:
    with open_page(browser, served.url) as page:
        note = page.get_by_label("Note", exact=True)
        note.fill("\n".join(f"line {number}" for number in range(60)))
        note.blur()
        shown = page.locator("#note").get_by_role("region", name="The note by sections")
        expect(shown).to_contain_text("line 59")
        assert shown.evaluate("e => e.scrollHeight > e.clientHeight")
        assert_accessible(page, "a long note")
        shown.focus()
        page.keyboard.press("End")
        page.wait_for_function("document.activeElement.scrollTop > 0")
        large = FilePayload(name="x.dcm", mimeType="", buffer=bytes(SETTINGS.limits.file_bytes + 1))
        page.locator("input[type=file]").nth(0).set_input_files(large)
        error = page.get_by_role("alert").filter(has_text="at most")
        expect(error).to_contain_text("x.dcm")
        assert_accessible(page, "a file that is too large")
        error.get_by_role("button", name="Close").click()
        expect(error).to_be_hidden()


def test_high_contrast_keeps_what_is_told_by_a_colour(browser: Browser, served: Served) -> None:
    with open_page(browser, served.url) as page:
        page.emulate_media(forced_colors="active")
        page.get_by_label("Example study").click()
        page.get_by_role("option", name="first").click()
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        predict = page.get_by_role("button", name="Predict")
        predict.click()
        expect(page.locator("#answer")).to_contain_text("%")

        def look(place: Locator, what: str) -> str:
            return str(place.evaluate("(e, what) => getComputedStyle(e)[what]", what))

        track = page.locator("#answer .mf-track").first
        bar = track.locator("i")
        assert look(bar, "backgroundColor") != look(track, "backgroundColor")
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<hr id=probe>')")
        probe = page.locator("#probe")
        probe.evaluate("e => e.style.backgroundColor = 'Highlight'")
        assert look(bar, "backgroundColor") == look(probe, "backgroundColor")
        tools = [page.locator(f"#image [data-do=tool-{name}]") for name in ("window", "pan")]
        pressed, other = (look(tool, "backgroundColor") for tool in tools)
        assert pressed != other
        assert look(page.locator("#image .mf-stage"), "backgroundColor") == "rgb(0, 0, 0)"
        for button in (predict, page.get_by_role("button", name="Explain this answer")):
            assert look(button, "borderTopStyle") == "solid"
            assert float(look(button, "borderTopWidth").removesuffix("px")) >= 1


def test_axe_sees_what_is_wrong_in_the_viewer_too(browser: Browser, served: Served) -> None:
    with open_page(browser, served.url) as page:
        page.get_by_label("Example study").click()
        page.get_by_role("option", name="first").click()
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        page.locator("mf-viewer .mf-tools select").evaluate("s => s.parentElement.replaceWith(s)")
        with pytest.raises(AssertionError, match="select-name"):
            assert_accessible(page, "a list without a name", kept=False)


def test_a_study_is_read_by_keyboard_alone(browser: Browser, served: Served) -> None:
    with open_page(browser, served.url) as page:

        def tab_to(selector: str) -> None:
            """Go on by Tab until something has the focus, in the viewer's shadow tree as well."""
            for _ in range(60):
                page.keyboard.press("Tab")
                if page.evaluate(
                    """selector => {
                        let at = document.activeElement;
                        while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
                        return Boolean(at?.matches(selector));
                    }""",
                    selector,
                ):
                    return
            raise AssertionError(f"Tab never reaches {selector}")

        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        tab_to("[aria-label='Example study']")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        tab_to("button.primary")
        page.keyboard.press("Enter")
        expect(page.locator("#answer")).to_contain_text("%")
        tab_to("#explain button.primary")
        page.keyboard.press("Enter")
        expect(page.locator("#explanation")).to_contain_text("Why")
        tab_to(".mf-stage")
        before = page.locator("mf-viewer [data-set=center]").input_value()
        page.keyboard.press("ArrowDown")
        expect(page.locator("mf-viewer [data-set=center]")).not_to_have_value(before)


def test_twice_the_zoom_needs_no_scrolling_sideways(browser: Browser, served: Served) -> None:
    with open_page(browser, served.url) as page:
        page.set_viewport_size({"width": 640, "height": 512})  # 1280 x 1024 at 200 %
        page.get_by_label("Example study").click()
        page.get_by_role("option", name="first").click()
        expect(page.locator("#image .mf-what")).to_contain_text("pixels")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0
