"""Take a picture of each screen of the page: pictures.py [FOLDER].

Serves the demo's bundle, as `make demo` left it: with a log-in, read-first and a worklist for a
reader's whole way, and then plain for what that way does not come past.
"""

import argparse
import io
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, ViewportSize, expect, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from medfuse.data.studies import find_studies  # noqa: E402
from medfuse_serving.language import LANGUAGES, find_language  # noqa: E402
from medfuse_serving.login.accounts import Accounts, make_account, write_accounts  # noqa: E402
from tests.browser import CHROMIUM  # noqa: E402
from tests.journey import EXPLAIN_MS, START_MS, Traveller, travel  # noqa: E402

WIDTH, HEIGHT = 1440, 1000
STUDIES = 30
"""Of the worklist, and of the others that may stand in for what is missing."""

COLOURS = 255
"""Of a picture, so that the repository stays small."""

OVERVIEW = 2960
"""Rows of the page with its evidence that the README shows."""

MEDFUSE = (sys.executable, "-m", "medfuse")


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


def say(text: str) -> None:
    """Write a line to whoever runs this."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def save(page: Page, path: Path) -> None:
    """Take a picture of a whole page, from its top."""
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")  # what sticks would lie where it is scrolled to
    page.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(picture, path)


def write(picture: Image.Image, path: Path) -> None:
    """Write a picture in few colours."""
    picture.quantize(COLOURS).save(path, optimize=True)
    say(f"{path}: {path.stat().st_size} bytes")


def go_whole_way(browser: Browser, demo: Path, out: Path, code: str, study: str) -> None:
    """Go a reader's way once, from log-in to a study that is given by hand."""
    password = secrets.token_urlsafe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_accounts(folder / "a.json", Accounts({"reader": make_account("reader", password)}))
        studies = link_studies(demo, study, folder / "studies")
        run_medfuse("worklist", "add", str(folder / "w.sqlite"), str(studies))
        options = ["--accounts", str(folder / "a.json"), "--worklist", str(folder / "w.sqlite")]
        options.append("--read-first")
        with (
            serve(demo / "bundle", options) as url,
            browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}) as page,
        ):

            def see(screen: str) -> None:
                save(page, out / f"{screen.replace(' ', '-')}-{code}.png")

            given = find_studies(studies)[0]
            language = find_language(code)
            travel(page, url, Traveller("reader", password, language, None, given, see))


def link_studies(demo: Path, first: str, folder: Path) -> Path:
    """Make a folder of some of the demo's studies."""
    folder.mkdir()
    paths = [path for path in (demo / "cohort" / "studies").iterdir() if path.name >= first]
    for path in sorted(paths)[:STUDIES]:
        (folder / path.name).symlink_to(path.resolve())
    return folder


LOOKS: Mapping[str, tuple[str, Literal["active", "none"], int]] = {
    "dark": ("?__theme=dark", "none", 1),
    "high-contrast": ("?__theme=light", "active", 1),
    "zoomed-200": ("?__theme=light", "none", 2),
}
"""Of what the whole way is seen in light alone: theme, forced colours, and zoom."""


def look_around(browser: Browser, demo: Path, out: Path, study: str) -> None:
    """See what the whole way does not come past, in English."""
    with tempfile.TemporaryDirectory() as name:
        others = link_studies(demo, study, Path(name) / "others")
        options = ["--examples", str(demo / "cohort"), "--background", str(others)]
        with serve(demo / "bundle", options) as url:
            for look, (theme, colours, zoom) in LOOKS.items():
                size = ViewportSize(width=WIDTH // zoom, height=HEIGHT // zoom)
                with browser.new_page(viewport=size, device_scale_factor=zoom) as page:
                    page.emulate_media(forced_colors=colours)
                    page.goto(f"{url}/{theme}")
                    open_example(page, study)
                    ask(page)
                    expect(page.locator("#answer")).to_contain_text("%")
                    save(page, out / f"{look}-en.png")
            with browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}) as page:
                page.goto(f"{url}/?__theme=light")
                see_parts(page, demo / "cohort" / "studies", study, out)


def see_parts(page: Page, studies: Path, study: str, out: Path) -> None:
    """Give a prior, then a note alone, then one that no model knows, then what is no image."""
    open_example(page, study)
    another = next(path for path in sorted(studies.iterdir()) if path.name > study)
    page.locator("input[type=file]").nth(1).set_input_files(next(another.glob("*.dcm")))
    expect(page.locator("#prior mf-viewer")).to_be_visible()
    save(page, out / "prior-en.png")

    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#image")).to_contain_text("No image given.")
    note = page.get_by_label("Note", exact=True)
    note.fill((studies / study / "note.txt").read_bytes().decode("cp1252"))
    ask(page)
    expect(page.locator("#answer")).to_contain_text("%")
    page.locator("#reach-ask").click()
    expect(page.locator(".mf-reach").first).to_be_visible(timeout=EXPLAIN_MS)
    save(page, out / "missing-part-en.png")

    note.fill(Path(__file__).read_text(encoding="utf-8")[:1500])
    ask(page)
    expect(page.locator("#answer .mf-refer").first).to_be_visible()
    save(page, out / "referral-en.png")

    page.get_by_role("button", name="Clear all").click()
    expect(note).to_have_value("")
    page.wait_for_timeout(500)
    page.locator("input[type=file]").first.set_input_files(Path(__file__))
    expect(page.locator("#image .mf-problem")).to_be_visible()
    silence = FilePayload(name="x.wav", mimeType="audio/wav", buffer=make_silence())
    page.get_by_test_id("Write down a dictation-upload-button").set_input_files(silence)
    expect(page.locator("#given-told .mf-problem")).to_be_visible()
    save(page, out / "refusal-en.png")


def make_silence() -> bytes:
    """Make a recording (WAV) of two seconds in which nothing is said."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(2 * 2 * 16_000))
    return file.getvalue()


def open_example(page: Page, name: str) -> None:
    """Open an example study."""
    box = page.get_by_label("Example study")
    box.click(timeout=START_MS)
    box.fill(name)  # leaves one option
    box.press("Enter")
    expect(page.locator("#image .mf-what")).to_contain_text("pixels")


def ask(page: Page) -> None:
    """Have what lies on the page answered."""
    page.get_by_role("button", name="Predict").click()


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "pictures" / "page")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo", help="what `make demo` made")
    parser.add_argument("--language", choices=list(LANGUAGES), default="en")
    parser.add_argument("--study", default="S000000", help="the first of the worklist")
    arguments = parser.parse_args()
    expect.set_options(timeout=60_000)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        demo, out, study = arguments.demo, arguments.out, arguments.study
        go_whole_way(browser, demo, out, arguments.language, study)
        if arguments.language == "en":
            evidence = Image.open(out / "linked-evidence-en.png").convert("RGB")
            write(evidence.crop((0, 0, evidence.width, OVERVIEW)), out / "overview-en.png")
            look_around(browser, demo, out, study)
        browser.close()


if __name__ == "__main__":
    main()
