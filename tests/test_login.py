"""Log-in: what is kept of a password, who is let in, and who is locked out."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, expect
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect
from typer.testing import CliRunner

import medfuse_serving
from medfuse.errors import SettingsError
from medfuse_serving.headers import SecurityHeaders
from medfuse_serving.login import accounts as kept
from medfuse_serving.login.accounts import (
    Accounts,
    make_account,
    read_accounts,
    write_accounts,
)
from medfuse_serving.login.command import accounts as command
from medfuse_serving.login.door import COOKIE, Guard, mount_login
from medfuse_serving.login.form import choose_language
from medfuse_serving.login.lockout import (
    ADDRESS_TRIES,
    LOCKED_S,
    MOST_KEPT,
    TRIES,
    Lockout,
)
from medfuse_serving.login.sessions import IDLE_S, LONGEST_S, Sessions
from medfuse_serving.predictor import Predictor
from medfuse_serving.reader import reader_of
from medfuse_serving.server import build_app, run_server
from tests.browser import assert_accessible, open_browser, open_page
from tests.live import running

PASSWORD = "correct horse battery"
FORM = {"accept": "text/html"}


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1e6

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def known() -> Accounts:
    return Accounts({name: make_account(name, PASSWORD) for name in ("ann", "bob")})


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_app(guard: Guard) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SecurityHeaders)
    mount_login(app, guard)
    web = Path(medfuse_serving.__path__[0]) / "web"
    app.mount("/web", StaticFiles(directory=web))

    @app.get("/")
    @app.get("/v1/secret")
    async def tell(request: Request) -> str:
        return f"a secret for {reader_of(request)}"

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    return app


@pytest.fixture
def guard(known: Accounts, clock: Clock) -> Guard:
    return Guard(known, clock)


@pytest.fixture
def client(guard: Guard) -> Iterator[TestClient]:
    with TestClient(make_app(guard), follow_redirects=False) as client:
        yield client


def log_in(client: TestClient, name: str, password: str) -> int:
    return client.post("/login", data={"name": name, "password": password}).status_code


def test_a_file_of_accounts_holds_no_password_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    write_accounts(path, Accounts({"ann": make_account("ann", PASSWORD)}))
    assert PASSWORD not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["accounts.json"]
    read = read_accounts(path)
    assert read.check("ann", PASSWORD)
    assert not read.check("ann", PASSWORD + " ")
    assert not read.check("eve", PASSWORD)


def test_one_password_has_two_hashes(known: Accounts) -> None:
    assert known.by_name["ann"].hash != known.by_name["bob"].hash


def test_the_hash_is_that_of_rfc_7914(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its third test vector: N = 16384, r = 8, p = 1.
    monkeypatch.setattr(kept, "COST", 16384)
    monkeypatch.setattr(kept, "LANES", 1)
    made = kept._hash("pleaseletmein", b"SodiumChloride")
    assert made.hex() == "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not of the form"),
        ("{}", "not of the form"),
        ('{"schema": "medfuse.accounts/2", "accounts": []}', "not of the form"),
        ('{"schema": "medfuse.accounts/1", "accounts": [{"name": "ann"}]}', "not of the form"),
        (" " * (kept.MOST_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_file_of_accounts_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=problem):
        read_accounts(path)


def test_a_name_twice_or_no_file_is_refused(tmp_path: Path, known: Accounts) -> None:
    path = tmp_path / "accounts.json"
    with pytest.raises(SettingsError, match="cannot be read"):
        read_accounts(path)
    write_accounts(path, known)
    written = json.loads(path.read_text())
    written["accounts"].append(written["accounts"][0])
    path.write_text(json.dumps(written))
    with pytest.raises(SettingsError, match="twice"):
        read_accounts(path)


@pytest.mark.parametrize("name", ["", "a b", "ann\n", "-ann", "a" * 65, "änn"])
def test_a_name_that_is_not_fit_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="letters, digits"):
        make_account(name, PASSWORD)


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
def test_a_password_that_is_not_fit_is_refused_without_being_told(password: str) -> None:
    with pytest.raises(SettingsError, match="12 to 256 characters") as caught:
        make_account("ann", password)
    assert not password or password not in str(caught.value)


def test_the_command_adds_changes_lists_and_removes(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    run = CliRunner().invoke
    twice = f"{PASSWORD}\n{PASSWORD}\n"
    assert "added ann" in run(command, ["add", str(path), "ann"], input=twice).output
    new = "another good password"
    asked = run(command, ["add", str(path), "ann"], input=f"{new}\n{new}\n")
    assert "changed ann" in asked.output
    assert new not in asked.output
    assert not read_accounts(path).check("ann", PASSWORD)
    assert read_accounts(path).check("ann", new)
    assert run(command, ["list", str(path)]).output == "ann\n"
    assert "removed ann" in run(command, ["remove", str(path), "ann"]).output
    assert run(command, ["list", str(path)]).output == ""
    assert isinstance(run(command, ["remove", str(path), "ann"]).exception, SettingsError)


def test_who_is_not_logged_in_gets_nothing(client: TestClient) -> None:
    asked = client.get("/v1/secret")
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"].startswith("Basic")
    assert "secret for" not in asked.text
    assert "default-src 'none'" in asked.headers["content-security-policy"]
    sent = client.get("/", headers=FORM)
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    # A script of a page is told, not sent elsewhere, and no window of the browser's own pops up.
    script = client.get("/v1/secret", headers={"sec-fetch-mode": "cors"})
    assert script.status_code == 401
    assert "Basic" not in script.headers["www-authenticate"]
    assert client.get("/healthz").status_code == 200
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/"):
        pass
    assert closed.value.code == 1008


def test_a_right_password_lets_in_and_logging_out_shuts_again(client: TestClient) -> None:
    assert log_in(client, "ann", PASSWORD) == 303
    assert client.get("/v1/secret").json() == "a secret for ann"
    (cookie,) = [c for c in client.cookies.jar if c.name == COOKIE]
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert str(cookie.get_nonstandard_attr("SameSite")).lower() == "strict"
    token = str(client.cookies[COOKIE])
    assert client.post("/logout").status_code == 303
    client.cookies.clear()
    assert client.get("/v1/secret", headers={"cookie": f"{COOKIE}={token}"}).status_code == 401


def test_each_reader_is_told_apart(guard: Guard) -> None:
    app = make_app(guard)
    with TestClient(app) as one, TestClient(app) as other:
        log_in(one, "ann", PASSWORD)
        log_in(other, "bob", PASSWORD)
        assert one.get("/v1/secret").json() == "a secret for ann"
        assert other.get("/v1/secret").json() == "a secret for bob"


def test_a_program_logs_in_by_http_basic(client: TestClient) -> None:
    assert client.get("/v1/secret", auth=("ann", PASSWORD)).json() == "a secret for ann"
    assert client.get("/v1/secret", auth=("ann", "wrong password")).status_code == 401
    for broken in ("Basic", "Basic !!!", "Basic YW5u", "Bearer YW5uOmE="):
        assert client.get("/v1/secret", headers={"authorization": broken}).status_code == 401


@pytest.mark.parametrize("name", ["ann", "nobody-like-this"])
def test_after_five_wrong_passwords_the_right_one_is_refused_too(
    client: TestClient, clock: Clock, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(TRIES - 1):
        assert log_in(client, name, "a wrong password") == 401
    assert log_in(client, name, "a wrong password") == 429
    locked = client.post("/login", data={"name": name, "password": PASSWORD})
    assert locked.status_code == 429
    assert locked.headers["retry-after"] == f"{LOCKED_S:.0f}"
    assert "15 minutes" in locked.text
    assert client.get("/v1/secret", auth=(name, PASSWORD)).status_code == 429
    assert log_in(client, "bob", PASSWORD) == 303  # others are not
    clock.now_s += LOCKED_S
    assert log_in(client, name, PASSWORD) == (303 if name == "ann" else 401)
    assert "nobody-like-this" not in caplog.text  # it might have been a password
    assert "a wrong password" not in caplog.text


def test_a_wrong_password_leaves_the_name_and_asks_for_the_password_alone(
    client: TestClient,
) -> None:
    sent = client.post("/login", data={"name": 'a"><b>', "password": "a wrong password"})
    assert 'value="a&quot;&gt;&lt;b&gt;"' in sent.text
    assert "a wrong password" not in sent.text
    assert re.findall(r"<input id=\"(\w+)\"[^>]*autofocus", sent.text) == ["password"]
    assert re.findall(r"<input id=\"(\w+)\"[^>]*autofocus", client.get("/login").text) == ["name"]


def test_a_right_password_makes_the_count_start_anew(client: TestClient) -> None:
    for _ in range(3):
        for _ in range(TRIES - 1):
            assert log_in(client, "ann", "a wrong password") == 401
        assert log_in(client, "ann", PASSWORD) == 303


def test_a_session_ends_when_it_is_idle_and_after_its_longest(
    client: TestClient, clock: Clock
) -> None:
    log_in(client, "ann", PASSWORD)
    clock.now_s += IDLE_S - 1
    assert client.get("/v1/secret").status_code == 200
    clock.now_s += IDLE_S
    assert client.get("/v1/secret").status_code == 401
    log_in(client, "ann", PASSWORD)
    for _ in range(int(LONGEST_S / (IDLE_S / 2))):
        assert client.get("/v1/secret").status_code == 200
        clock.now_s += IDLE_S / 2
    assert client.get("/v1/secret").status_code == 401


def test_a_form_of_another_site_is_refused(client: TestClient) -> None:
    data = {"name": "ann", "password": PASSWORD}
    elsewhere = {"origin": "https://elsewhere.example"}
    assert client.post("/login", data=data, headers=elsewhere).status_code == 403
    sent = client.post("/login", data=data, headers={"origin": "http://testserver"})
    assert sent.status_code == 303
    assert client.post("/logout", headers=elsewhere).status_code == 403
    assert client.get("/v1/secret").status_code == 200


def test_a_large_form_is_refused_before_it_is_read(client: TestClient) -> None:
    assert log_in(client, "ann", "x" * 10_000) == 413


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 400)), max_size=40))
def test_a_lock_lasts_from_the_last_failure_and_holds_its_name_alone(
    failures: list[tuple[str, float]],
) -> None:
    lockout, now = Lockout(), 1e6
    counts = dict.fromkeys("abc", 0)
    last = dict.fromkeys("abc", 0.0)
    for name, gap in failures:
        now += gap
        if lockout.wait_s(name, f"at {name}", now) > 0:
            assert counts[name] >= TRIES
            assert now - last[name] < LOCKED_S
            continue
        counts[name] = 1 if now - last[name] >= LOCKED_S else counts[name] + 1
        last[name] = now
        lockout.fail(name, f"at {name}", now)
    for name in "abc":
        locked = counts[name] >= TRIES and now - last[name] < LOCKED_S
        assert (lockout.wait_s(name, f"at {name}", now) > 0) is locked


def test_an_address_that_tries_many_names_is_locked_out() -> None:
    lockout = Lockout()
    for i in range(ADDRESS_TRIES):
        assert lockout.wait_s(f"name {i}", "there", 1e6) <= 0
        lockout.fail(f"name {i}", "there", 1e6)
    assert lockout.wait_s("another", "there", 1e6) == LOCKED_S
    assert lockout.wait_s("another", "elsewhere", 1e6) <= 0


def test_what_is_kept_of_failures_and_sessions_is_bounded() -> None:
    lockout, sessions = Lockout(), Sessions()
    for i in range(MOST_KEPT + 10):
        lockout.fail(f"name {i}", f"address {i}", 1e6)
    assert len(lockout._failures) == MOST_KEPT
    tokens = [sessions.begin("ann", float(i)) for i in range(3)]
    assert len(set(tokens)) == 3
    assert not any(token.encode() in key for token in tokens for key in sessions._sessions)


@pytest.mark.parametrize(
    ("asked", "kept", "accepted", "code"),
    [
        (None, None, "", "en"),
        (None, None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, None, "fr-FR,zh;q=0.9", "en"),
        ("zh", "en", "en-US", "zh"),
        ("xx", None, "zh", "zh"),
        (None, "zh", "en", "zh"),
        (None, "xx", "zh", "zh"),
    ],
)
def test_the_page_speaks_the_language_that_was_chosen_or_else_the_browser_s(
    asked: str | None, kept: str | None, accepted: str, code: str
) -> None:
    assert choose_language(asked, kept, accepted).code == code


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def test_a_reader_logs_in_by_keyboard_in_either_language(browser: Browser, known: Accounts) -> None:
    with running(make_app(Guard(known))) as url, open_page(browser, f"{url}/") as page:
        expect(page).to_have_url(f"{url}/login")
        assert_accessible(page, "log-in", fewest=8)
        page.keyboard.type("ann")
        page.keyboard.press("Tab")
        page.keyboard.type("a wrong password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("is wrong")
        assert_accessible(page, "a wrong password", fewest=8)
        page.emulate_media(color_scheme="dark")
        assert_accessible(page, "log-in in the dark", fewest=8)
        page.get_by_role("link", name="简体中文").click()
        expect(page.get_by_role("heading", name="登录")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "zh-Hans"
        assert_accessible(page, "log-in in Chinese", fewest=8)
        page.keyboard.type("ann")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.locator("body")).to_contain_text("a secret for ann")


def test_the_page_names_its_reader_who_logs_out_again(
    browser: Browser, hand_bundle: Path, known: Accounts
) -> None:
    app = build_app(Predictor(hand_bundle), (), 2**20, None, known)
    with running(app) as url, open_page(browser, f"{url}/") as page:
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("mf-reader")).to_contain_text("ann")
        expect(page.get_by_role("button", name="Predict")).to_be_visible()
        assert_accessible(page, "logged in")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("Cannot be used")
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{url}/login")
        page.goto(f"{url}/")
        expect(page).to_have_url(f"{url}/login")


def test_serving_with_a_file_of_accounts_that_is_not_there_is_one_line(
    hand_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="medfuse accounts add"):
        run_server(
            hand_bundle,
            host="127.0.0.1",
            port=0,
            examples=None,
            background=None,
            upload_bytes=2**20,
            provider=None,
            strict=False,
            accounts=tmp_path / "none.json",
        )
