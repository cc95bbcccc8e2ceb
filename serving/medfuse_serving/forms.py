"""A request's form in, a study and what is asked about it out; and the same for OpenAPI."""

from collections.abc import Mapping
from typing import Literal, TypedDict

from pydantic import Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from medfuse.attribution.settings import BASELINE_NAMES, METHODS, BaselineName, Method
from medfuse.config import Limits, Settings
from medfuse.errors import InputError, LimitError, SettingsError
from medfuse.types import Study
from medfuse_serving.worklist.records import LABEL_CHARACTERS

FIELDS = ("images", "note", "voice")

_PARTS: dict[str, object] = {
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
}

_CHOICES: Mapping[str, object] = {
    "target": {
        "type": "string",
        "description": "what to explain: a name of the answer's `logits`, such as "
        "`findings.nodule`; or a weighting, such as `findings.nodule=1,findings.embolism=-0.5`",
    },
    "method": {"type": "string", "enum": list(METHODS), "default": METHODS[0]},
    "baseline": {
        "type": "string",
        "enum": list(BASELINE_NAMES),
        "description": "the first of them for which the bundle brings what it needs by default",
    },
    "band": {
        "type": "boolean",
        "default": False,
        "description": "share the output out against every other baseline, too",
    },
    "format": {
        "type": "string",
        "enum": ["json", "zip"],
        "default": "json",
        "description": "`json`: the record alone; `zip`: the record, the arrays and the overlays",
    },
}


class ExplainOptions(Settings):
    """What is asked about a study's answer."""

    target: str = Field(min_length=1, max_length=2000)
    method: Method = METHODS[0]
    baseline: BaselineName | None = None
    band: bool = False
    format: Literal["json", "zip"] = "json"


OPTIONS = tuple(ExplainOptions.model_fields)


LABEL = "label"

_LABEL = {
    "type": "string",
    "minLength": 1,
    "maxLength": LABEL_CHARACTERS,
    "description": "what the study is called on the worklist, such as a pseudonym",
}


class FormLimits(TypedDict):
    """How much of a form is taken up."""

    max_files: int
    max_fields: int
    max_part_size: int


def limit_form(limits: Limits) -> FormLimits:
    """Bound a form by the limits of the study that it brings."""
    return FormLimits(
        max_files=limits.instances + 2, max_fields=16, max_part_size=limits.note_bytes
    )


def describe_form(*, explain: bool) -> dict[str, object]:
    """Describe the form of a prediction or of an explanation for OpenAPI."""
    return _describe(_CHOICES, ("target",)) if explain else _describe({}, ())


def describe_study_form() -> dict[str, object]:
    """Describe the form by which a study is put on the worklist for OpenAPI."""
    return _describe({LABEL: _LABEL}, (LABEL,))


def _describe(more: Mapping[str, object], required: tuple[str, ...]) -> dict[str, object]:
    schema: dict[str, object] = {"type": "object", "properties": _PARTS | dict(more)}
    if required:
        schema["required"] = list(required)
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def read_form(form: FormData, limits: Limits, options: tuple[str, ...] = ()) -> Study:
    """Make a study of a form's parts; an empty text or an unnamed empty file is not given.

    Args:
        form: As it was sent.
        limits: Of the bundle.
        options: Further fields that are no part of the study.

    Raises:
        InputError: A part has another name, is of the wrong kind, or comes twice.
        LimitError: A file is larger than the limits allow.
    """
    unknown = sorted(set(form) - set(FIELDS) - set(options))
    if unknown:
        known = ", ".join((*FIELDS, *options))
        raise InputError(f"{len(unknown)} unknown form field(s); expected {known}")
    parts: dict[str, list[bytes]] = {name: [] for name in FIELDS}
    for name, part in form.multi_items():
        if name in options:
            continue
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


def read_options(form: FormData) -> ExplainOptions:
    """Read what is asked about a study; an empty field is not given.

    Raises:
        InputError: A field is a file or comes twice.
        SettingsError: A field is missing or has a value that it cannot have.
    """
    values: dict[str, str] = {}
    for name, part in form.multi_items():
        if name not in OPTIONS or not part:
            continue
        if isinstance(part, UploadFile):
            raise InputError(f"form field {name!r} is a file; expected text")
        if name in values:
            raise InputError(f"form field {name!r} is given twice; expected it once")
        values[name] = part
    try:
        return ExplainOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise SettingsError(f"form field {field!r}: {first['msg']}") from error


def read_label(form: FormData) -> str:
    """Read what a study is to be called on the worklist.

    Raises:
        InputError: It is missing, a file, or comes twice.
    """
    given = form.getlist(LABEL)
    if len(given) != 1:
        raise InputError(f"form field {LABEL!r} is given {len(given)} times; expected it once")
    if not isinstance(given[0], str):
        raise InputError(f"form field {LABEL!r} is a file; expected text")
    return given[0]
