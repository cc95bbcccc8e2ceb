"""Nothing of a study stays where its reader has left, and no reader is given another's."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.login.accounts import Accounts, make_account
from medfuse_serving.login.door import Guard, mount_login
from medfuse_serving.page.mount import mount_page
from medfuse_serving.page.practice import Practice
from medfuse_serving.predictor import Predictor
from medfuse_serving.worklist.routes import mount_worklist
from medfuse_serving.worklist.store import Store
from tests.browser import open_browser, open_page
from tests.hand_bundle import make_study
from tests.live import running

pytestmark = pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")

PASSWORD = "correct horse battery"


@dataclass
class Clock:
    """A clock that is moved by hand."""

    now_s: float = 1e6

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Served:
    """A server with accounts and a worklist."""

    url: str
    guard: Guard
    clock: Clock = field(default_factory=Clock)


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


@pytest.fixture(scope="module")
def known() -> Accounts:
    return Accounts({name: make_account(name, PASSWORD) for name in ("ann", "bob")})


@pytest.fixture
def served(predictor: Predictor, known: Accounts, tmp_path: Path) -> Iterator[Served]:
    clock = Clock()
    guard = Guard(known, clock)
    explainer = Explainer(predictor)
    app = build_api(explainer)
    mount_login(app, guard)
    with Store(str(tmp_path / "w.sqlite")) as store:
        store.add("Alder", make_study())
        mount_worklist(app, store, predictor.bundle.manifest.prepare.limits)
        with running(mount_page(app, explainer, (), Practice(store))) as url:
            yield Served(url, guard, clock)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser(keeping=True) as browser:
        yield browser


def log_in(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def open_study(page: Page) -> None:
    page.locator("mf-worklist .mf-row").first.click()
    expect(page.locator("#note")).to_contain_text("cough and fever")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def go_back(page: Page) -> None:
    """Press the browser's button; a page that it kept is not loaded, so nothing tells of that."""
    page.go_back(wait_until="commit")
    page.wait_for_timeout(500)


def assert_gone(page: Page, url: str) -> None:
    """Nothing of the study is on the screen, which asks to log in."""
    expect(page.get_by_label("Password")).to_be_visible()
    assert page.url.startswith(f"{url}/login")
    assert "cough" not in page.content()


def test_no_page_and_no_answer_is_kept_by_a_browser(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        assert client.get("/login").headers["cache-control"] == "no-store"
        assert client.get("/").headers["cache-control"] == "no-store"  # sent to the log-in
        client.post("/login", data={"name": "ann", "password": PASSWORD})
        for path in ("/", "/reader", "/gradio_api/info", "/config", "/docs", "/shelves/x/0"):
            assert client.get(path).headers["cache-control"] == "no-store", path
        assert client.post("/v1/predict").headers["cache-control"] == "no-store"
        assert "no-store" not in client.get("/web/viewer.js").headers.get("cache-control", "")


def test_going_back_after_logging_out_shows_nothing(browser: Browser, served: Served) -> None:
    with open_page(browser, f"{served.url}/web/login.css") as page:
        # What may be kept is: this browser does go back to pages as they were.
        page.evaluate("window.left = true")
        page.goto(f"{served.url}/healthz")
        go_back(page)
        asked = {"expression": "window.left", "returnByValue": True}
        told = page.context.new_cdp_session(page).send("Runtime.evaluate", asked)
        assert told["result"].get("value") is True
        page.goto(f"{served.url}/")
        log_in(page, "ann")
        open_study(page)
        page.get_by_role("button", name="Log out").click()
        assert_gone(page, served.url)
        go_back(page)
        assert_gone(page, served.url)
        # Nor a page that was left otherwise, and whose log-in ended meanwhile.
        log_in(page, "ann")
        open_study(page)
        page.goto(f"{served.url}/healthz")
        page.request.post(f"{served.url}/logout")
        go_back(page)
        assert_gone(page, served.url)
