"""A bundle in, a running server out: the page and the HTTP door on one port."""

import logging
import signal
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from rich.console import Console

from medfuse.data.studies import StudyFiles, find_studies
from medfuse_serving.api import build_api
from medfuse_serving.explainer import Explainer
from medfuse_serving.login.accounts import Accounts, read_accounts
from medfuse_serving.login.door import Guard, mount_login
from medfuse_serving.page.mount import mount_page
from medfuse_serving.page.practice import Practice
from medfuse_serving.predictor import Predictor
from medfuse_serving.uploads import keep_uploads
from medfuse_serving.worklist.routes import mount_worklist
from medfuse_serving.worklist.store import Store


def build_app(
    predictor: Predictor,
    examples: tuple[StudyFiles, ...],
    upload_bytes: int,
    background: Path | None = None,
    accounts: Accounts | None = None,
    practice: Practice | None = None,
) -> FastAPI:
    """Put the page and the HTTP door into one app.

    Raises:
        InputError: The background's folder has no studies.
    """
    explainer = Explainer(predictor, background)
    app = build_api(explainer, upload_bytes)
    if accounts is not None:
        mount_login(app, Guard(accounts))
    if practice is not None and practice.store is not None:
        mount_worklist(app, practice.store, predictor.bundle.manifest.prepare.limits)
    return mount_page(app, explainer, examples, practice)


def run_server(
    bundle: Path,
    *,
    host: str,
    port: int,
    examples: Path | None,
    background: Path | None,
    upload_bytes: int,
    provider: str | None,
    strict: bool,
    accounts: Path | None,
    worklist: str | None = None,
    read_first: bool = False,
) -> None:
    """Serve a bundle until interrupted, after it has answered its golden study.

    Raises:
        BundleError: The bundle or this machine isn't fit to answer.
        InputError: The folder of the examples or of the background has no studies.
        SettingsError: The file of accounts cannot be read.
        StoreError: The worklist cannot be opened.
    """
    readers = read_accounts(accounts) if accounts else None
    practice = Practice(Store(worklist) if worklist else None, read_first)
    found = find_studies(examples) if examples else ()
    predictor = Predictor(bundle, provider, strict)
    predictor.check_golden()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for library in ("pydicom", "httpx", "fontTools"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # they quote what they read
    # A service manager stops by SIGTERM, which would end the process before uploads are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with keep_uploads():
        app = build_app(predictor, found, upload_bytes, background, readers, practice)
        Console(highlight=False, soft_wrap=True).print(
            f"medfuse answers on {predictor.provider} at http://{host}:{port}/ "
            f"(documentation at /docs); Ctrl-C stops it"
        )
        # The access log would hold uploads' names, so api.py logs predictions itself.
        uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning")
