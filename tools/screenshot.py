"""Take the picture of the page with an explanation, in headless Chromium: screenshot.py [OUT].

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import CHROMIUM  # noqa: E402

WIDTH, HEIGHT = 1440, 1000

TRIED = 20
"""Examples to look through for one whose maps pass their checks."""

MEDFUSE = (sys.executable, "-m", "medfuse")
OPEN_MS = 5_000
EXPLAIN_MS = 900_000


@contextmanager
def serve(bundle: Path, options: Sequence[str]) -> Iterator[str]:
    """Serve a bundle on a free port and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*MEDFUSE, "serve", str(bundle), "--port", str(port), *options]
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


def run_medfuse(*arguments: str) -> None:
    """Run a command of medfuse to its end."""
    subprocess.run([*MEDFUSE, *arguments], check=True)


def is_ready(url: str) -> bool:
    """Ask the server whether it answers its golden study."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=30):
            return True
    except urllib.error.URLError:
        return False


def take(url: str, out: Path, example: str | None, finding: str | None) -> None:
    """Have an example study answered and explained, and take the whole page's picture.

    Without a named example it is the first that has an image, a note and a recording and whose maps
    pass their checks.
    """
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        page.get_by_label("Example study").click()
        names = [example] if example else page.get_by_role("option").all_text_contents()[:TRIED]
        page.keyboard.press("Escape")
        for name in names:
            if explain(page, name.strip().removeprefix("\u2713").strip(), finding):
                break
            say(f"{name}: not shown, since a part is missing or the maps are withheld")
        else:
            raise SystemExit("no example's maps were shown; try another --finding")
        page.wait_for_function(
            "[...document.querySelectorAll('audio')].every(a => a.readyState > 0)"
        )
        page.mouse.move(0, 0)
        time.sleep(1)  # until the button's and the spinner's transitions are over
        out.parent.mkdir(parents=True, exist_ok=True)
        page.evaluate("scrollTo(0, 0)")  # what sticks would lie where it is scrolled to
        page.screenshot(path=out, full_page=True)
        browser.close()
    say(f"{name}: {out}")


def say(text: str) -> None:
    """Write a line to whoever runs this."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def explain(page: Page, example: str, finding: str | None) -> bool:
    """Open an example, have it answered and explained, and say whether there are three maps."""
    box = page.get_by_label("Example study")
    box.fill(example)  # leaves one option
    box.press("Enter")
    expect(page.locator("#answer")).not_to_contain_text("%")
    page.wait_for_timeout(OPEN_MS)
    whole = page.locator("mf-viewer").count() and page.locator("#voice audio").count()
    if not whole or "No note" in page.locator("#note").inner_text():
        return False
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer")).to_contain_text("%")
    if finding:
        page.get_by_label("Finding to explain").click()
        page.get_by_role("option", name=finding, exact=True).click()
    page.get_by_role("button", name="Explain this answer").click()
    expect(page.locator("#explanation h2")).to_be_visible(timeout=EXPLAIN_MS)
    if not page.locator("#explanation .mf-passed").count():
        return False
    page.get_by_label("Show what spoke for and against").check()
    return True


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "page.png")
    parser.add_argument("--url", help="a page that is being served")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo", help="what `make demo` made")
    parser.add_argument("--example", help="the example study to open")
    parser.add_argument("--finding", help="what to explain; the most probable by default")
    arguments = parser.parse_args()
    if arguments.url:
        take(arguments.url, arguments.out, arguments.example, arguments.finding)
        return
    demo = arguments.demo
    with serve(demo / "bundle", ["--examples", str(demo / "cohort")]) as url:
        take(url, arguments.out, arguments.example, arguments.finding)


if __name__ == "__main__":
    main()
