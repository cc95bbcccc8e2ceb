"""Searched settings: a trial or its values in, whole settings out."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any

import optuna
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from medfuse.errors import SettingsError
from medfuse.training.search.settings import Choices, Range, Scalar
from medfuse.training.settings import TrainSettings

SECTIONS = ("fit", "model", "prepare")
"""What may be searched; other cohorts, splits or reports could not be compared."""


def check_space(space: Mapping[str, Range | Choices]) -> None:
    """Check every path, and every value that could be drawn by itself.

    Raises:
        SettingsError: There is no such setting, or it cannot have such a value.
    """
    for path, spec in space.items():
        field = _find(path)
        kind: Any = Annotated[field.annotation, field]
        for value in spec.choices if isinstance(spec, Choices) else (spec.low, spec.high):
            try:
                TypeAdapter(kind).validate_python(value)
            except ValidationError as error:
                raise SettingsError(
                    f"search.space.{path}: {value!r}: {error.errors()[0]['msg']}"
                ) from error
        if isinstance(spec, Range) and _is_whole(field):
            parts = (spec.low, spec.high, spec.step if spec.step is not None else 1)
            if any(isinstance(part, float) for part in parts):
                raise SettingsError(f"search.space.{path}: a whole number needs whole bounds")


def suggest(trial: optuna.Trial, space: Mapping[str, Range | Choices]) -> dict[str, Scalar]:
    """Draw a trial's values."""
    values: dict[str, Scalar] = {}
    for path, spec in space.items():
        if isinstance(spec, Choices):
            values[path] = trial.suggest_categorical(path, spec.choices)  # type: ignore[assignment]
        elif _is_whole(_find(path)):
            low, high = int(spec.low), int(spec.high)
            values[path] = trial.suggest_int(
                path, low, high, step=int(spec.step or 1), log=spec.log
            )
        else:
            values[path] = trial.suggest_float(
                path, spec.low, spec.high, step=spec.step, log=spec.log
            )
    return values


def list_preparations(space: Mapping[str, Range | Choices]) -> Iterator[dict[str, Scalar]]:
    """Give the searched settings of the preparation: all choices, and the ends of each range."""
    own = {path: spec for path, spec in space.items() if path.split(".")[0] == "prepare"}
    ends = (s.choices if isinstance(s, Choices) else (s.low, s.high) for s in own.values())
    for values in product(*ends):
        yield dict(zip(own, values, strict=True))


def put(settings: TrainSettings, values: Mapping[str, Scalar]) -> TrainSettings:
    """Give the settings with these values and without the section ``[search]``.

    Raises:
        SettingsError: They do not go together.
    """
    data = settings.model_dump(exclude={"search"})
    for path, value in values.items():
        *sections, name = path.split(".")
        place: dict[str, Any] = data
        for section in sections:
            place = place[section]
        place[name] = value
    try:
        return TrainSettings.model_validate(data)
    except ValidationError as error:
        reasons = "; ".join(e["msg"] for e in error.errors())
        raise SettingsError(f"these settings do not go together: {reasons}") from error


def _find(path: str) -> FieldInfo:
    """Find a setting by its path."""
    section, *names = path.split(".")
    field = TrainSettings.model_fields[section] if section in SECTIONS else None
    for name in names:
        kind: object = None if field is None else field.annotation
        fields = getattr(kind, "model_fields", {})  # none but a section of settings has any
        field = fields.get(name)
    if field is None or not names:
        raise SettingsError(
            f"search.space: no setting {path!r} that can be searched; expected such as "
            f"'fit.learning_rate', below {', '.join(SECTIONS)}"
        )
    return field


def _is_whole(field: FieldInfo) -> bool:
    return field.annotation is int
