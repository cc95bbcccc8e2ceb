"""A request in; the name of the reader who sent it out, empty where nobody has to log in."""

from typing import TYPE_CHECKING, Union

from starlette.requests import Request

if TYPE_CHECKING:
    import gradio

SCOPE = "medfuse.reader"
"""Key of a request's scope that holds the name, once the log-in has let it through."""

OWNER = "medfuse.owner"
"""Key of a request's scope that says whose it is: a reader's, or else a browser's."""


def reader_of(request: Union[Request, "gradio.Request"]) -> str:
    """Name the reader who sent a request."""
    asked = request if isinstance(request, Request) else request.request
    return "" if asked is None else str(asked.scope.get(SCOPE, ""))
