"""Nothing of a study stays where its reader has left, and no reader is given another's."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.language import ENGLISH, Language, find_language
from medfuse_serving.login.accounts import Accounts, make_account
from medfuse_serving.login.door import COOKIE, UNATTENDED, Guard, mount_login
from medfuse_serving.login.sessions import IDLE_S
from medfuse_serving.page import owning
from medfuse_serving.page.mount import mount_page
from medfuse_serving.page.practice import Practice
from medfuse_serving.predictor import Predictor
from medfuse_serving.worklist.routes import mount_worklist
from medfuse_serving.worklist.store import Store
from tests.browser import assert_accessible, open_browser, open_page
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
    clock: Clock


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


@pytest.fixture(scope="module")
def known() -> Accounts:
    return Accounts({name: make_account(name, PASSWORD) for name in ("ann", "bob")})


@contextmanager
def serve(predictor: Predictor, guard: Guard | None, folder: Path) -> Iterator[str]:
    explainer = Explainer(predictor)
    app = build_api(explainer)
    if guard is not None:
        mount_login(app, guard)
    with Store(str(folder / "w.sqlite")) as store:
        store.add("Alder", make_study())
        mount_worklist(app, store, predictor.bundle.manifest.prepare.limits)
        with running(mount_page(app, explainer, (), Practice(store))) as url:
            yield url


@pytest.fixture
def served(predictor: Predictor, known: Accounts, tmp_path: Path) -> Iterator[Served]:
    clock = Clock()
    with serve(predictor, Guard(known, clock), tmp_path) as url:
        yield Served(url, clock)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser(whole=True) as browser:
        yield browser


def log_in(page: Page, name: str, language: Language = ENGLISH) -> None:
    page.get_by_label(language.text("Name")).fill(name)
    page.get_by_label(language.text("Password")).fill(PASSWORD)
    page.get_by_role("button", name=language.text("Log in")).click()


def open_study(page: Page) -> None:
    page.locator("mf-worklist .mf-row").first.click()
    expect(page.locator("#note")).to_contain_text("cough and fever")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def go_back(page: Page) -> None:
    """Press the browser's button; a page that it kept is not loaded, so nothing tells of that."""
    page.go_back(wait_until="commit")
    page.wait_for_timeout(500)


def assert_gone(page: Page, url: str, language: Language = ENGLISH) -> None:
    """Nothing of the study is on the screen, which asks to log in."""
    expect(page.get_by_label(language.text("Password"))).to_be_visible()
    assert page.url.startswith(f"{url}/login")
    assert "cough" not in page.content()


def test_no_page_and_no_answer_is_kept_by_a_browser(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        assert client.get("/login").headers["cache-control"] == "no-store"
        assert client.get("/").headers["cache-control"] == "no-store"  # sent to the log-in
        client.post("/login", data={"name": "ann", "password": PASSWORD})
        for path in ("/", "/reader", "/gradio_api/x", "/config", "/docs", "/shelves/x/0"):
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
        page.evaluate(
            """() => addEventListener("pageshow", () => {
                sessionStorage.seen = document.body.innerText.includes("cough");
            })"""
        )
        page.goto(f"{served.url}/healthz")
        page.request.post(f"{served.url}/logout")
        go_back(page)
        assert_gone(page, served.url)
        assert page.evaluate("sessionStorage.seen") != "true"  # not for a moment


def client_of(page: Page, url: str) -> httpx.Client:
    """Make a program that is whom a browser is."""
    cookies = {str(c["name"]): str(c["value"]) for c in page.context.cookies()}
    return httpx.Client(base_url=url, cookies=cookies, timeout=20)


def ask_anew(client: httpx.Client, asked: dict[str, Any]) -> str:
    """Ask once more for what a page asked for, and give all that is answered."""
    assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
    name = {"session_hash": asked["session_hash"]}
    with client.stream("GET", "/gradio_api/queue/data", params=name) as told:
        lines = []
        for line in told.iter_lines():
            lines.append(line)
            if "process_completed" in line:
                break
    return "\n".join(lines)


@pytest.mark.parametrize("asks", [True, False], ids=["accounts", "no accounts"])
def test_the_name_of_a_session_opens_it_to_its_own_reader_alone(
    asks: bool,
    browser: Browser,
    predictor: Predictor,
    known: Accounts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medfuse_serving.page.mount.CLOSED_S", 0.2)
    sent: list[dict[str, Any]] = []
    with (
        serve(predictor, Guard(known) if asks else None, tmp_path) as url,
        open_page(browser, f"{url}/") as page,
        open_page(browser, f"{url}/") as other,
    ):
        if asks:
            log_in(page, "ann")
            log_in(other, "bob")
        open_study(page)
        expect(other.get_by_role("button", name="Predict")).to_be_visible()
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .mf-bars").first).to_be_visible()
        page.on(
            "request",
            lambda r: sent.append(json.loads(r.post_data or "")) if "/join" in r.url else None,
        )
        page.get_by_role("button", name="Make a PDF report").click()
        expect(page.get_by_role("link", name="Download the report")).to_be_visible()
        frames = f"/shelves/{page.locator('#image mf-viewer').get_attribute('data-shelf')}/0"
        if not asks:  # or a link from elsewhere would make the page another's
            (cookie,) = [c for c in page.context.cookies() if c["name"] == owning.COOKIE]
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
        own, foreign = client_of(page, url), client_of(other, url)
        with own, foreign:
            (asked,) = sent
            name = asked["session_hash"]
            assert "shelves/" in ask_anew(own, asked)  # or this would be no way to look
            told = ask_anew(foreign, asked)
            assert "shelves/" not in told
            assert "no longer has the study that the page shows" in told
            called = {**asked, "event_id": None}
            assert "shelves/" in own.post("/gradio_api/run/predict", json=called).text
            assert "shelves/" not in foreign.post("/gradio_api/run/predict", json=called).text
            with foreign.stream("GET", f"/gradio_api/heartbeat/{name}") as beating:
                next(beating.iter_lines())
            time.sleep(1)  # the study would be let go of, as if its page had been closed
            assert own.get(frames).status_code == 200
            assert foreign.get(frames).status_code == 403
            assert httpx.get(f"{url}{frames}").status_code == (401 if asks else 403)
            for path in (
                "deep_link",
                "file=x",
                "component_server",
                f"stream/{name}/1/1/playlist.m3u8",
            ):
                unused = own.get(f"/gradio_api/{path}", params={"session_hash": name})
                assert (unused.status_code, unused.json()["error"]) == (404, "NotFound")
        assert page.locator("#answer .mf-bars").count() > 0


def test_what_a_page_asks_by_itself_keeps_nobody_logged_in(served: Served) -> None:
    quietly = {UNATTENDED: "1"}
    with httpx.Client(base_url=served.url) as client:
        client.post("/login", data={"name": "ann", "password": PASSWORD})
        for _ in range(4):  # a quarter of an hour each, as it is asked for by a page that is used
            served.clock.now_s += IDLE_S / 4
            assert client.get("/reader").status_code == 200
        for _ in range(3):
            served.clock.now_s += IDLE_S / 4
            assert client.get("/reader", headers=quietly).status_code == 200
            assert client.post("/worklist/rows", json={}, headers=quietly).status_code == 200
            with client.stream("GET", "/gradio_api/heartbeat/x") as beating:
                assert beating.status_code == 200
        served.clock.now_s += IDLE_S / 4
        assert client.get("/reader", headers=quietly).status_code == 401
        sent = client.get("/", headers={"accept": "text/html"})
        assert sent.headers["location"] == "/login?ended"


def test_a_page_that_nobody_uses_is_emptied_once_its_log_in_ends(
    browser: Browser, served: Served
) -> None:
    asked: list[str] = []
    with open_page(browser, f"{served.url}/login?language=zh") as page:
        page.clock.install()
        log_in(page, "ann", find_language("zh"))
        page.locator("mf-worklist .mf-row").first.click()
        expect(page.locator("#note")).to_contain_text("cough and fever")
        served.clock.now_s += IDLE_S * 2 / 3
        page.keyboard.press("Shift")  # a reader who looks at what is there
        page.clock.run_for(16_000)
        page.on("response", lambda r: asked.append(urlparse(r.url).path))
        expect(page.locator("mf-reader")).to_contain_text("ann")
        page.wait_for_timeout(500)
        for _ in range(2):  # and who has left
            served.clock.now_s += IDLE_S / 3
            page.clock.run_for(16_000)
            page.wait_for_timeout(500)
        assert {"/reader", "/worklist/rows"} <= set(asked)
        expect(page.locator("#note")).to_contain_text("cough and fever")
        served.clock.now_s += IDLE_S / 3
        page.clock.run_for(16_000)
        assert_gone(page, served.url, find_language("zh"))
        expect(page.get_by_role("alert")).to_contain_text("请重新登录后继续")
        assert_accessible(page, "a log-in that has ended", fewest=8)
        log_in(page, "ann", find_language("zh"))
        expect(page.locator("mf-worklist .mf-row").first).to_be_visible()


@pytest.mark.parametrize("does", ["Predict", "gives a file"])
def test_what_is_done_after_a_log_in_ended_elsewhere_leads_to_logging_in_again(
    does: str, browser: Browser, served: Served
) -> None:
    toasts: list[str] = []
    with open_page(browser, f"{served.url}/") as page:
        log_in(page, "ann")
        open_study(page)
        page.on("console", lambda m: toasts.append(m.text))
        page.evaluate(
            """() => new MutationObserver(() => {
                for (const at of document.querySelectorAll("[data-testid=toast-body]"))
                    console.log(at.innerText);
            }).observe(document.body, { childList: true, subtree: true })"""
        )
        page.request.post(f"{served.url}/logout")
        page.context.add_cookies([{"name": COOKIE, "value": "ended", "url": served.url}])
        if does == "Predict":
            page.get_by_role("button", name="Predict").click()
        else:
            upload = FilePayload(name="x", mimeType="", buffer=make_study().images[0])
            page.locator("input[type=file]").nth(0).set_input_files(upload)
        assert_gone(page, served.url)
        expect(page.get_by_role("alert")).to_contain_text("You are no longer logged in")
        assert not [said for said in toasts if "rror" in said and "401" not in said]
