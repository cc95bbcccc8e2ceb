"""Take the page's picture in headless Chromium: screenshot.py [--url URL] [--example STUDY] [OUT].

Without a URL it serves the demo's bundle with the demo's cohort, as `make demo` left them.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 1440, 1000
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
def serve_demo(demo: Path) -> Iterator[str]:
    """Serve a demo's bundle on a free port and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "medfuse", "serve", str(demo / "bundle")]
    command += ["--port", str(port), "--examples", str(demo / "cohort")]
    with subprocess.Popen(command) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            while not is_ready(url):
                if server.poll() is not None:
                    raise SystemExit("the server did not start; has `make demo` been run?")
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()


def is_ready(url: str) -> bool:
    """Ask the server whether it answers its golden study."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=30):
            return True
    except urllib.error.URLError:
        return False


def take(url: str, out: Path, example: str | None) -> None:
    """Open an example study, ask for its answer and take the whole page's picture."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        page.get_by_label("Example study").click()
        if example:
            page.get_by_role("option", name=example, exact=True).click()
        else:
            page.get_by_role("option").first.click()
        expect(page.locator("#image img")).to_be_visible()
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("%")
        page.wait_for_function(
            "[...document.querySelectorAll('audio')].every(a => a.readyState > 0)"
        )
        page.mouse.move(0, 0)
        time.sleep(1)  # until the button's and the spinner's transitions are over
        out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=out, full_page=True)
        browser.close()


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "page.png")
    parser.add_argument("--url", help="a page that is being served")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo", help="what `make demo` made")
    parser.add_argument("--example", help="the example study to open; the first by default")
    arguments = parser.parse_args()
    if arguments.url:
        take(arguments.url, arguments.out, arguments.example)
        return
    with serve_demo(arguments.demo) as url:
        take(url, arguments.out, arguments.example)


if __name__ == "__main__":
    main()
