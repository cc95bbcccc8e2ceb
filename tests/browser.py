"""A headless Chromium for tests, and what a page in it must never do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse

import numpy as np
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium."""
    chromium = shutil.which("chromium")
    assert chromium, "the page is tested in chromium; 'make test' installs it"
    expect.set_options(timeout=8_000)  # a loaded machine is slow, not wrong
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, url: str) -> Iterator[Page]:
    """Open a page; it must send nothing to another host and make no fault of its own."""
    page = browser.new_page()
    hosts: set[str] = set()
    faults: list[str] = []
    page.on("request", lambda request: hosts.add(urlparse(request.url).netloc))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if "Security Policy" in m.text else None)
    try:
        page.goto(url)
        yield page
    finally:  # an open page would keep the server from ending
        page.close()
    assert hosts <= {urlparse(url).netloc, ""}, "a request left the machine"  # "" is data: or blob:
    assert faults == [], faults


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
