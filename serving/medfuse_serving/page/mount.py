"""A FastAPI app in; the same with the page at its root out."""

import os
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from medfuse.data.studies import StudyFiles
from medfuse_serving import gradio_words
from medfuse_serving.explainer import Explainer
from medfuse_serving.page.answering import connect_answering
from medfuse_serving.page.explaining import connect_explaining
from medfuse_serving.page.giving import connect_giving
from medfuse_serving.page.owning import OwnSessions
from medfuse_serving.page.parts import lay_parts
from medfuse_serving.page.practice import Practice
from medfuse_serving.page.removing import connect_removing
from medfuse_serving.page.reporting import connect_reporting
from medfuse_serving.page.room import Room
from medfuse_serving.page.turning import connect_turning
from medfuse_serving.reader import reader_of
from medfuse_serving.shelves import Shelves
from medfuse_serving.uploads import OwnUploads, Sent

if TYPE_CHECKING:
    import gradio

FORGET_S = 600
"""Uploads that were never taken up are deleted after this; the rest are at once."""

CLOSED_S = 30
"""How long a study stays after its page was closed, since a lost connection looks the same."""

CONCURRENT = 8
"""Handlers of one kind that are at work at once: one may wait for its own user's."""

SCRIPTS = (
    "words",
    "viewer",
    "reader",
    "worklist",
    "impression",
    "evidence",
    "report",
    "telling",
)
"""The page's own modules, in `web`."""


def mount_page(
    app: FastAPI,
    explainer: Explainer,
    examples: Sequence[StudyFiles] = (),
    practice: Practice | None = None,
) -> FastAPI:
    """Put the page at the app's root; its other routes stay as they are."""
    # Read by Gradio as it is imported: no analytics, no look at its newest version.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio

    system = ("system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
    mono = ("ui-monospace", "Consolas", "monospace")
    shelves = Shelves()
    shelves.mount(app)

    @app.get("/reader", include_in_schema=False)
    async def tell_reader(request: Request) -> dict[str, str]:
        return {"name": reader_of(request)}

    # Innermost, so that it is known who is logged in.
    app.user_middleware.append(Middleware(OwnSessions))
    sent = Sent()
    app.user_middleware.append(Middleware(OwnUploads, sent=sent))
    web = str(files("medfuse_serving").joinpath("web"))
    app.mount("/web", StaticFiles(directory=web))
    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        build_page(explainer, examples, shelves, practice, sent),
        path="/",
        css=files("medfuse_serving").joinpath("page.css").read_text(encoding="utf-8"),
        head=_head_html(),
        theme=gradio.themes.Base(
            primary_hue="blue", neutral_hue="slate", font=system, font_mono=mono
        ).set(
            # Contrast of at least 4.5 to 1 everywhere (WCAG 2.2, 1.4.3).
            body_text_color_subdued="*neutral_600",
            body_text_color_subdued_dark="*neutral_300",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_hover="*primary_700",
        ),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=explainer.predictor.bundle.manifest.prepare.limits.file_bytes,
    )
    return mounted


def _head_html() -> str:
    modules = (f'<script type="module" src="web/{name}.js"></script>' for name in SCRIPTS)
    return "".join((gradio_words.script_html(), *modules))


def build_page(
    explainer: Explainer,
    examples: Sequence[StudyFiles],
    shelves: Shelves,
    practice: Practice | None = None,
    sent: Sent | None = None,
) -> "gradio.Blocks":
    """Lay out the page and connect its parts."""
    import gradio as gr

    practice, sent = practice or Practice(), sent or Sent()
    page: gr.Blocks
    with gr.Blocks(
        title="medfuse", fill_width=True, analytics_enabled=False, delete_cache=(FORGET_S, FORGET_S)
    ) as page:
        parts = lay_parts(explainer, examples, practice)
        room = Room(explainer, examples, shelves, practice, parts)
        connect_giving(room)
        connect_removing(room)
        connect_answering(room)
        connect_explaining(room)
        connect_reporting(room)
        connect_turning(room, page)
        page.queue(default_concurrency_limit=CONCURRENT)
        page.unload(_forget_soon(page, parts.states.desk, sent))
    return page


def _forget_soon(
    page: "gradio.Blocks", desk: "gradio.State", sent: Sent
) -> "Callable[[gradio.Request], None]":
    """Make the handler that lets go of a user's study once their page is closed.

    What is under way on it ends at once: nobody will see it, and others may wait.
    """
    import gradio as gr

    def forget(request: gr.Request) -> None:
        session = request.session_hash or ""
        if session in page.state_holder:
            page.state_holder[session][desk._id].end()
        closed = datetime.now()  # as Gradio counts, for which what was just done is a use

        def let_go() -> None:
            states = page.state_holder
            if states.time_last_used.get(session, closed) <= closed:  # not come back
                if session in states:
                    states[session][desk._id].close()
                states.delete_state(session)
                sent.forget(session)

        timer = threading.Timer(CLOSED_S, let_go)
        timer.daemon = True
        timer.start()

    return forget
