"""A headless Chromium for tests, and what a page in it must never do."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    APIResponse,
    Browser,
    Locator,
    Page,
    Route,
    expect,
    sync_playwright,
)

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

STORED = "cookies,indexeddb,local_storage,service_workers,cache_storage"
"""What a site can keep of a visit; not the browser's copies of its files."""

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}

REPORT = Path(__file__).parent.parent / "build" / "axe.json"
"""What axe-core found on each screen, by the test that showed it; `make test-page` begins anew."""


@contextmanager
def open_browser(*, whole: bool = False) -> Iterator[Browser]:
    """Start Chromium.

    Args:
        whole: Whether it is the browser that people use, which keeps pages that were left, for the
            button Back, as it does by itself (Playwright turns that off); not the smaller build
            without windows, in which a page opens in half the time.
    """
    name = "chromium" if whole else "chromium-headless-shell"
    chromium = shutil.which(name)
    assert chromium, f"the page is tested in {name}; 'make test-page' installs it"
    expect.set_options(timeout=8_000)  # a loaded machine is slow, not wrong
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=CHROMIUM,
            ignore_default_args=["--disable-back-forward-cache"] if whole else None,
        )
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, url: str) -> Iterator[Page]:
    """Open a page; it must send nothing to another host and make no fault of its own.

    It has what a browser keeps of files from a page that was closed before it, and nothing else of
    it; nor anything of one that is open.
    """
    idle = [context for context in browser.contexts if not context.pages]
    context = idle[0] if idle else browser.new_context()
    page = context.new_page()
    hosts: set[str] = set()
    faults: list[str] = []
    page.on("request", lambda request: hosts.add(urlparse(request.url).netloc))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if "Security Policy" in m.text else None)
    try:
        page.goto(url)
        yield page
    finally:  # an open page would keep the server from ending
        context.new_cdp_session(page).send(
            "Storage.clearDataForOrigin", {"origin": url, "storageTypes": STORED}
        )
        page.close()
    assert hosts <= {urlparse(url).netloc, ""}, "a request left the machine"  # "" is data: or blob:
    assert faults == [], faults


def hold(page: Page, address: str, most: int = 99) -> list[tuple[Route, APIResponse]]:
    """Hold back what the server answers to an address.

    Args:
        page: Which asks for it.
        address: As a pattern.
        most: Later answers come at once.

    Returns:
        Where it is kept.
    """
    held: list[tuple[Route, APIResponse]] = []
    asked = 0

    def take(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked <= most:
            held.append((route, route.fetch()))
        else:
            route.continue_()

    page.route(address, take)
    return held


def release(held: list[tuple[Route, APIResponse]]) -> None:
    """Let the browser have what was held back, in the order in which it was asked for."""
    for route, response in held:
        route.fulfill(response=response)
    held.clear()


def wait_until(page: Page, is_so: Callable[[], bool]) -> None:
    """Wait for what Playwright's own thread does meanwhile, as it answers requests."""
    for _ in range(80):
        if is_so():
            return
        page.wait_for_timeout(100)
    pytest.fail("waited in vain")


def read_greys(place: Page | Locator) -> np.ndarray:
    """Read every pixel of the viewer's canvas back.

    Args:
        place: The page with the viewer, or one viewer of several.
    """
    rows, columns, grey, greys = place.locator(".mf-pixels").evaluate(
        """canvas => {
            const { width, height } = canvas;
            const all = canvas.getContext("2d").getImageData(0, 0, width, height).data;
            let grey = true, greys = "";
            for (let i = 0; i < all.length; i += 4) {
                grey &&= all[i] === all[i + 1] && all[i] === all[i + 2] && all[i + 3] === 255;
                greys += String.fromCharCode(all[i]);
            }
            return [height, width, grey, greys];
        }"""
    )
    assert grey, "a pixel has a colour or is see-through"
    return np.frombuffer(greys.encode("latin-1"), np.uint8).reshape(rows, columns).astype(int)


def listen(audio: Locator) -> None:
    """Keep the times at which a player is heard."""
    audio.evaluate(
        """audio => {
            window.heard = [];
            const keep = () => { if (!audio.paused) heard.push(audio.currentTime); };
            audio.addEventListener("timeupdate", keep);
            setInterval(keep, 5);
        }"""
    )


def assert_played(button: Locator, audio: Locator, start_s: float, end_s: float) -> None:
    """Wait until a button's span of a player that is listened to is over: it was all of it."""
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button).to_have_attribute("aria-pressed", "false")
    at, paused = audio.evaluate("a => [a.currentTime, a.paused]")
    assert paused
    assert abs(at - end_s) < 1e-3
    heard = audio.evaluate("() => heard.splice(0)")
    assert len(heard) > 5
    assert min(heard) >= start_s - 1e-3
    assert max(heard) <= end_s + 0.15  # a loaded machine's frame


def assert_accessible(page: Page, screen: str, fewest: int = 15, *, kept: bool = True) -> None:
    """Hold what is on the screen to every rule of WCAG 2.2 A and AA that axe-core tests.

    Args:
        page: Which shows it.
        screen: What it is called where it fails.
        fewest: Rules that find something to test on it, or it was not looked at.
        kept: Whether it goes into the report; not so where it was spoilt to see axe find that.
    """
    page.mouse.move(0, 0)
    # Colours that are still fading would be measured as they are on the way.
    page.wait_for_function("document.getAnimations().every(a => a.playState !== 'running')")
    found = Axe().run(page, options=RULES).response
    if kept:
        keep_found(screen, found)
    violations = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]]
    assert violations == [], f"{screen}: {violations}"
    # Nothing was left out: the viewer's parts lie in a shadow tree, which axe looks into.
    assert len(found["passes"]) > fewest


def keep_found(screen: str, found: dict[str, Any]) -> None:
    """Put what axe-core found on a screen into the report, which tests side by side write."""
    test = os.environ["PYTEST_CURRENT_TEST"].partition(" (")[0]
    REPORT.parent.mkdir(exist_ok=True)
    with REPORT.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        report = json.loads(file.read() or "{}")
        screens = report.get("screens", {})
        screens[f"{test}: {screen}"] = {
            "violations": {v["id"]: [n["html"] for n in v["nodes"]] for v in found["violations"]},
            "undecided": {v["id"]: len(v["nodes"]) for v in found["incomplete"]},
            "passed": {v["id"]: len(v["nodes"]) for v in found["passes"]},
            "nothing to test": sorted(v["id"] for v in found["inapplicable"]),
        }
        report = {
            "axe-core": found["testEngine"]["version"],
            "rules": RULES["runOnly"],
            "screens": dict(sorted(screens.items())),
        }
        file.truncate(0)
        json.dump(report, file, indent=1)
