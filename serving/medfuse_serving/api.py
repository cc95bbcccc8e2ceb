"""The HTTP door: a study in as multipart, its answer or why it is so out; errors with a status."""

import logging
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from http import HTTPStatus
from typing import IO

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.datastructures import FormData, Headers
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medfuse.attribution.record import ExplanationRecord
from medfuse.attribution.report import describe, write_archive
from medfuse.attribution.settings import AttributionSettings
from medfuse.bundle import NOTICE
from medfuse.errors import BundleError, InputError, LimitError, MedfuseError, SettingsError
from medfuse_serving.answer import Answer, Failure, to_answer, to_failure, to_json
from medfuse_serving.explainer import Explained, Explainer, GoneError
from medfuse_serving.forms import OPTIONS, describe_form, read_form, read_options
from medfuse_serving.headers import SecurityHeaders
from medfuse_serving.predictor import Predictor

STATUS: dict[type[MedfuseError], HTTPStatus] = {
    LimitError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SettingsError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BundleError: HTTPStatus.SERVICE_UNAVAILABLE,
    MedfuseError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""HTTP's word for each error; an error takes that of its nearest parent."""

UPLOAD_BYTES = 2**30
CONCURRENT = 2
"""Studies decoded and answered at once; more wait, so that memory is bounded."""

LOOK_S = 0.5
"""How often it is seen to whether the client of an explanation still waits."""

SPOOL_BYTES = 16 * 2**20
"""An archive larger than this is written to a temporary file, not kept in memory."""

CLIENT_GONE = 499
"""What the log says of a request whose client hung up; nobody receives it."""

_ARCHIVE: dict[str, object] = {
    "description": "The record, or with `format` zip an archive of it with its arrays and overlays",
    "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
}

logger = logging.getLogger(__name__)


def build_api(explainer: Explainer, upload_bytes: int = UPLOAD_BYTES) -> FastAPI:
    """Make the app with its routes: prediction, explanation, health, readiness, documentation.

    Args:
        explainer: What explains, and by its predictor answers; it is called from several threads.
        upload_bytes: Most bytes of one request's body, counted while it arrives.
    """
    predictor = explainer.predictor
    app: FastAPI = FastAPIOffline(
        title="medfuse",
        description=NOTICE,
        version=predictor.bundle.digest[:12],
        redoc_url=None,
        static_url="/docs-assets",
    )
    app.add_middleware(BodyLimit, most_bytes=upload_bytes)
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(HTTPException, _answer_http_error)
    workers = anyio.CapacityLimiter(CONCURRENT)
    explaining = anyio.CapacityLimiter(1)  # by itself, so that predictions need not wait for it
    limits = predictor.bundle.manifest.prepare.limits
    failures: dict[int | str, dict[str, object]] = {
        int(status): {"model": Failure, "description": status.phrase}
        for status in (HTTPStatus.BAD_REQUEST, *STATUS.values())
    }

    form_limits = {
        "max_files": limits.instances + 2,
        "max_fields": 16,
        "max_part_size": limits.note_bytes,
    }

    @app.post(
        "/v1/predict",
        response_model=Answer,
        responses=failures,
        openapi_extra=describe_form(explain=False),
    )
    async def predict(request: Request) -> Response:
        """Answer one study; any of its three parts may be left out."""
        if not _is_form(request):
            return _refuse_body()
        started = time.monotonic()
        async with request.form(**form_limits) as parts:
            response = await anyio.to_thread.run_sync(_answer, predictor, parts, limiter=workers)
        logger.info("predict %d in %.2f s", response.status_code, time.monotonic() - started)
        return response

    @app.post(
        "/v1/explain",
        response_model=ExplanationRecord,
        responses=failures | {200: _ARCHIVE},
        openapi_extra=describe_form(explain=True),
    )
    async def explain(request: Request) -> Response:
        """Explain one target of one study's answer; one study at a time.

        When the badge fails, `withheld` is true, `reasons` says why, and there are no maps.
        """
        if not _is_form(request):
            return _refuse_body()
        started = time.monotonic()
        gone = threading.Event()
        async with request.form(**form_limits) as parts, anyio.create_task_group() as group:
            group.start_soon(_wait_until_gone, request, gone)
            response = await anyio.to_thread.run_sync(
                _explain, explainer, parts, gone, limiter=explaining
            )
            group.cancel_scope.cancel()
        logger.info("explain %d in %.2f s", response.status_code, time.monotonic() - started)
        return response

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"model": Failure}})
    async def readyz() -> Response:
        """Answer the golden study; 503 when its answer isn't the one that export recorded."""
        return await anyio.to_thread.run_sync(_check, predictor, limiter=workers)

    return app


def _answer(predictor: Predictor, form: FormData) -> Response:
    try:
        study = read_form(form, predictor.bundle.manifest.prepare.limits)
        (prediction,) = predictor.predict([study])
    except MedfuseError as error:
        return _fail(status_of(error), to_failure(error))
    except Exception as error:  # noqa: BLE001 - an unforeseen error's text may quote the study
        log_unforeseen(error)
        return _fail(HTTPStatus.INTERNAL_SERVER_ERROR, UNFORESEEN)
    return _json(HTTPStatus.OK, to_json(to_answer(prediction)))


def _explain(explainer: Explainer, form: FormData, gone: threading.Event) -> Response:
    def go_on(done: int, wanted: int) -> None:
        if gone.is_set():
            raise GoneError

    prepare = explainer.predictor.bundle.manifest.prepare
    try:
        options = read_options(form)
        study = read_form(form, prepare.limits, OPTIONS)
        settings = AttributionSettings(method=options.method, baseline=options.baseline)
        explained = explainer.explain(
            study, options.target, settings, band=options.band, progress=go_on
        )
        if options.format == "zip":
            return _stream(explainer, explained)
        record = describe(explained.prepared, explained.explanation, prepare, explainer.scales)
    except GoneError:
        return Response(status_code=CLIENT_GONE)
    except MedfuseError as error:
        return _fail(status_of(error), to_failure(error))
    except Exception as error:  # noqa: BLE001 - an unforeseen error's text may quote the study
        log_unforeseen(error)
        return _fail(HTTPStatus.INTERNAL_SERVER_ERROR, UNFORESEEN)
    return _json(HTTPStatus.OK, to_json(record))


def _stream(explainer: Explainer, explained: Explained) -> Response:
    """Write the archive and send it piece by piece."""
    file = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - closed once it is sent
    prepare = explainer.predictor.bundle.manifest.prepare
    write_archive(file, explained.prepared, explained.explanation, prepare, explainer.scales)
    size = file.tell()
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": 'attachment; filename="explanation.zip"',
    }
    return StreamingResponse(_read_pieces(file), media_type="application/zip", headers=headers)


def _read_pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while piece := file.read(2**20):
            yield piece


async def _wait_until_gone(request: Request, gone: threading.Event) -> None:
    """Say when the client hangs up, so that nothing is explained for nobody."""
    while not await request.is_disconnected():
        await anyio.sleep(LOOK_S)
    gone.set()


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


def _refuse_body() -> Response:
    wrong = InputError("expected multipart/form-data with images, note or voice")
    return _fail(status_of(wrong), to_failure(wrong))


def _check(predictor: Predictor) -> Response:
    try:
        worst = predictor.check_golden()
    except MedfuseError as error:
        return _fail(HTTPStatus.SERVICE_UNAVAILABLE, to_failure(error))
    return _json(
        HTTPStatus.OK,
        f'{{"status":"ready","model_digest":"{predictor.bundle.digest}",'
        f'"provider":"{predictor.provider}","golden_difference":{worst!r}}}',
    )


def status_of(error: MedfuseError) -> HTTPStatus:
    """Give an error's HTTP status, that of its nearest parent in `STATUS`."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


UNFORESEEN = Failure(
    error="InternalError",
    message="an unforeseen error; the server's log has its place, without the study's content",
)


def log_unforeseen(error: Exception) -> None:
    """Log where an unforeseen error arose, and not its text, which may quote the study."""
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unforeseen %s\n%s", type(error).__name__, places)


class BodyLimit:
    """Refuses a request's body beyond a size: by its declared length, or else as it arrives."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body bounded."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > self.most_bytes:
            await _answer_too_large(self.most_bytes)(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most_bytes:
                raise HTTPException(413, _too_large(self.most_bytes), _CLOSE)
            return message

        await self.app(scope, bounded, send)


_CLOSE = {"Connection": "close"}  # or the server would read on, and throw away, the rest


def _too_large(most_bytes: int) -> str:
    return f"the request has more than {most_bytes} bytes"


def _answer_too_large(most_bytes: int) -> Response:
    response = _fail(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Failure(error=LimitError.__name__, message=_too_large(most_bytes)),
    )
    response.headers.update(_CLOSE)
    return response


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    name = LimitError.__name__ if status == 413 else status.phrase.title().replace(" ", "")
    response = _fail(status, Failure(error=name, message=error.detail))
    response.headers.update(error.headers or {})
    return response


def _fail(status: HTTPStatus, failure: Failure) -> Response:
    return _json(status, to_json(failure))


def _json(status: HTTPStatus, text: str) -> Response:
    return Response(text, status_code=status, media_type="application/json")
