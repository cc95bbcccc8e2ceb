"""Handlers of the page in, the same handlers that show an error in its place out."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import cast, no_type_check

from medfuse.errors import MedfuseError
from medfuse_serving.api import UNFORESEEN, log_unforeseen

Shown = dict[object, object]
"""New content by component."""


Refuse = Callable[[str, tuple[object, ...]], object]
"""Gives an error's message the form that its place shows, from what the handler was given."""


def tell_in(
    place: object, refuse: Refuse
) -> Callable[[Callable[..., Shown]], Callable[..., Shown]]:
    """Make a decorator that shows a handler's error in a component, its text kept out of the log.

    Args:
        place: The component.
        refuse: Gives its message the place's form.
    """

    def decorate(function: Callable[..., Shown]) -> Callable[..., Shown]:
        @wraps(function)
        def told(*values: object) -> Shown:
            try:
                return function(*values)
            except Exception as error:  # noqa: BLE001 - its text may quote the study
                return {place: refuse(message_of(error), values)}

        return told

    return decorate


def tell_steps_in(
    place: object, refuse: Refuse, emptied: Sequence[object] = ()
) -> Callable[[Callable[..., Iterator[Shown]]], Callable[..., Iterator[Shown]]]:
    """Make the same for a handler that shows one thing after another.

    Args:
        place: The component.
        refuse: Gives its message the place's form.
        emptied: What is taken off the page, since it was shown before the error and may not stay.
    """

    def decorate(function: Callable[..., Iterator[Shown]]) -> Callable[..., Iterator[Shown]]:
        @no_type_check  # or a checked run would hide from Gradio that this is a generator
        @wraps(function)
        def told(*values: object) -> Iterator[Shown]:
            try:
                yield from function(*values)
            except Exception as error:  # noqa: BLE001 - its text may quote the study
                yield dict.fromkeys(emptied, "") | {place: refuse(message_of(error), values)}

        return cast(Callable[..., Iterator[Shown]], told)

    return decorate


def message_of(error: Exception) -> str:
    """Give the text that may be shown; what was not foreseen is logged by its place alone."""
    if isinstance(error, MedfuseError):
        return str(error)
    log_unforeseen(error)
    return UNFORESEEN.message
