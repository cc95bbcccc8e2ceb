"""The HTTP door: a study in as multipart, its answer out as JSON; every error with its status."""

import logging
import time
import traceback
from http import HTTPStatus

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medfuse.bundle import NOTICE
from medfuse.config import Limits
from medfuse.errors import BundleError, InputError, LimitError, MedfuseError
from medfuse.types import Study
from medfuse_serving.answer import Answer, Failure, to_answer, to_failure, to_json
from medfuse_serving.predictor import Predictor

STATUS: dict[type[MedfuseError], HTTPStatus] = {
    LimitError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BundleError: HTTPStatus.SERVICE_UNAVAILABLE,
    MedfuseError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""HTTP's word for each error; an error takes that of its nearest parent."""

UPLOAD_BYTES = 2**30
CONCURRENT = 2
"""Studies decoded and answered at once; more wait, so that memory is bounded."""

FIELDS = ("images", "note", "voice")

# Gradio's page needs inline scripts and styles; nothing may come from, or go to, another host.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "DICOM files of one study, in any order",
                        },
                        "note": {"type": "string", "description": "a text, or a text file"},
                        "voice": {
                            "type": "string",
                            "format": "binary",
                            "description": "WAV, FLAC, OGG, MP3 or a DICOM waveform object",
                        },
                    },
                }
            }
        },
    }
}

logger = logging.getLogger(__name__)


def build_api(predictor: Predictor, upload_bytes: int = UPLOAD_BYTES) -> FastAPI:
    """Make the app with its routes: prediction, health, readiness and documentation.

    Args:
        predictor: What answers; it is called from several threads.
        upload_bytes: Most bytes of one request's body, counted while it arrives.
    """
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
    limits = predictor.bundle.manifest.prepare.limits

    @app.post(
        "/v1/predict",
        response_model=Answer,
        responses={
            int(status): {"model": Failure, "description": status.phrase}
            for status in (HTTPStatus.BAD_REQUEST, *STATUS.values())
        },
        openapi_extra=_FORM,
    )
    async def predict(request: Request) -> Response:
        """Answer one study; any of its three parts may be left out."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            wrong = InputError("expected multipart/form-data with images, note or voice")
            return _fail(status_of(wrong), to_failure(wrong))
        form = request.form(
            max_files=limits.instances + 2, max_fields=16, max_part_size=limits.note_bytes
        )

        started = time.monotonic()
        async with form as parts:
            response = await anyio.to_thread.run_sync(_answer, predictor, parts, limiter=workers)
        logger.info("predict %d in %.2f s", response.status_code, time.monotonic() - started)
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


def read_form(form: FormData, limits: Limits) -> Study:
    """Make a study of a form's parts; an empty text or an unnamed empty file is not given.

    Raises:
        InputError: A part has another name, is of the wrong kind, or comes twice.
        LimitError: A file is larger than the limits allow.
    """
    unknown = sorted(set(form) - set(FIELDS))
    if unknown:
        raise InputError(f"{len(unknown)} unknown form field(s); expected {', '.join(FIELDS)}")
    parts: dict[str, list[bytes]] = {name: [] for name in FIELDS}
    for name, part in form.multi_items():
        most = limits.note_bytes if name == "note" else limits.file_bytes
        if isinstance(part, UploadFile):
            data = part.file.read(most + 1)
            if not data and not part.filename:
                continue
        elif name == "note" or not part:
            data = part.encode("utf-8")
            if not data:
                continue
        else:
            raise InputError(f"form field {name!r} is text; expected a file")
        if len(data) > most:
            raise LimitError(f"a file in {name!r} has more than {most} bytes")
        parts[name].append(data)
    for name in ("note", "voice"):
        if len(parts[name]) > 1:
            raise InputError(f"form field {name!r} is given {len(parts[name])} times; expected one")
    return Study(
        images=tuple(parts["images"]),
        note=next(iter(parts["note"]), None),
        voice=next(iter(parts["voice"]), None),
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


class SecurityHeaders:
    """Adds `SECURITY_HEADERS` to every response, so that no page loads from another host."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = [(k.lower().encode(), v.encode()) for k, v in SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and add to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        await self.app(scope, receive, send_with_headers)


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
