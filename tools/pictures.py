"""Take a picture of each screen of a reader's way through the page: pictures.py [FOLDER].

Serves the demo's bundle, as `make demo` left it, with a log-in, read-first and a worklist.
"""

import argparse
import io
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from screenshot import run_medfuse, say, serve  # noqa: E402

from medfuse.data.studies import find_studies  # noqa: E402
from medfuse_serving.language import LANGUAGES, find_language  # noqa: E402
from medfuse_serving.login.accounts import Accounts, make_account, write_accounts  # noqa: E402
from tests.browser import CHROMIUM  # noqa: E402
from tests.journey import Traveller, travel  # noqa: E402

WIDTH, HEIGHT = 1440, 1000
COLOURS = 255
"""Of a picture, so that the repository stays small."""


def take(demo: Path, out: Path, code: str, study: str) -> None:
    """Go the way once and write a picture of each screen."""
    password = secrets.token_urlsafe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_accounts(folder / "a.json", Accounts({"reader": make_account("reader", password)}))
        studies = folder / "studies"
        studies.mkdir()
        for path in sorted((demo / "cohort" / "studies").iterdir()):
            if path.name >= study and len(list(studies.iterdir())) < 30:
                (studies / path.name).symlink_to(path)
        run_medfuse("worklist", "add", str(folder / "w.sqlite"), str(studies))
        options = ["--accounts", str(folder / "a.json"), "--worklist", str(folder / "w.sqlite")]
        options.append("--read-first")
        with serve(demo / "bundle", options) as url, sync_playwright() as started:
            expect.set_options(timeout=60_000)
            browser = started.chromium.launch(
                executable_path=shutil.which("chromium"), args=CHROMIUM
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})

            def see(screen: str) -> None:
                page.mouse.move(0, 0)
                page.evaluate("scrollTo(0, 0)")  # what sticks would lie where it is scrolled to
                page.wait_for_timeout(1500)
                picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
                path = out / f"{screen.replace(' ', '-')}-{code}.png"
                picture.quantize(COLOURS).save(path, optimize=True)
                say(f"{path}: {path.stat().st_size} bytes")

            out.mkdir(parents=True, exist_ok=True)
            given = find_studies(studies)[0]
            language = find_language(code)
            travel(page, url, Traveller("reader", password, language, None, given, see))
            browser.close()


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "pictures" / "page")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo", help="what `make demo` made")
    parser.add_argument("--language", choices=list(LANGUAGES), default="en")
    parser.add_argument("--study", default="S000000", help="the first of the worklist")
    arguments = parser.parse_args()
    take(arguments.demo, arguments.out, arguments.language, arguments.study)


if __name__ == "__main__":
    main()
