"""The worklist's routes: a study in for machines, rows of the list out for the page."""

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.datastructures import FormData

from medfuse.config import Limits, Settings
from medfuse.errors import InputError, MedfuseError
from medfuse_serving.answer import to_failure, to_json
from medfuse_serving.api import (
    FAILURES,
    UNFORESEEN,
    is_form,
    log_unforeseen,
    refuse_body,
    status_of,
)
from medfuse_serving.forms import LABEL, describe_study_form, limit_form, read_form, read_label
from medfuse_serving.worklist.records import NextQuery, PageQuery, StudyAdded
from medfuse_serving.worklist.store import Store

CONCURRENT = 4
"""Requests that the database answers at once; more wait."""

QUERY_BYTES = 4096

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked", PageQuery, NextQuery)


def mount_worklist(app: FastAPI, store: Store, limits: Limits) -> None:
    """Add the routes by which studies arrive and the page asks for its rows.

    A query comes as a request's body, not in its address, since what is searched for may be a
    patient's name.
    """
    workers = anyio.CapacityLimiter(CONCURRENT)

    @app.post(
        "/v1/studies",
        response_model=StudyAdded,
        status_code=HTTPStatus.CREATED,
        responses=FAILURES,
        openapi_extra=describe_study_form(),
    )
    async def add(request: Request) -> Response:
        """Put one study on the worklist; any of its three parts may be left out."""
        if not is_form(request):
            return refuse_body()
        started = time.monotonic()
        async with request.form(**limit_form(limits)) as form:
            response = await anyio.to_thread.run_sync(
                _answer, lambda: _add(store, form, limits), HTTPStatus.CREATED, limiter=workers
            )
        logger.info("study %d in %.2f s", response.status_code, time.monotonic() - started)
        return response

    @app.post("/worklist/rows", include_in_schema=False)
    async def list_rows(request: Request) -> Response:
        body = await _read_query(request)
        return await anyio.to_thread.run_sync(
            _answer, lambda: store.list_rows(_parse(body, PageQuery)), limiter=workers
        )

    @app.post("/worklist/next", include_in_schema=False)
    async def find_next(request: Request) -> Response:
        body = await _read_query(request)
        return await anyio.to_thread.run_sync(
            _answer, lambda: store.find_next(_parse(body, NextQuery)), limiter=workers
        )


def _add(store: Store, form: FormData, limits: Limits) -> StudyAdded:
    label = read_label(form)
    return StudyAdded(id=store.add(label, read_form(form, limits, (LABEL,))))


def _answer(make: Callable[[], Settings], status: HTTPStatus = HTTPStatus.OK) -> Response:
    try:
        text = to_json(make())
    except MedfuseError as error:
        status, text = status_of(error), to_json(to_failure(error))
    except Exception as error:  # noqa: BLE001 - an unforeseen error's text may quote the study
        log_unforeseen(error)
        status, text = HTTPStatus.INTERNAL_SERVER_ERROR, to_json(UNFORESEEN)
    headers = {"Cache-Control": "no-store"}
    return Response(text, status_code=status, headers=headers, media_type="application/json")


async def _read_query(request: Request) -> bytes:
    """Read a query as far as one may be long; what is longer is then none."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > QUERY_BYTES:
            break
    return body


def _parse(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:  # its text would quote the query
        fields = ", ".join(kind.model_fields)
        raise InputError(f"not a query of the worklist; expected JSON with {fields}") from error
