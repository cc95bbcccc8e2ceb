"""Preparation settings in; synthetic studies that no training has seen, and can be read, out."""

from collections.abc import Iterator
from dataclasses import replace

from tokenizers import Tokenizer

from medfuse.config import PrepareSettings
from medfuse.data.note import decode_note, find_sections
from medfuse.data.prepare import prepare
from medfuse.errors import ExportError
from medfuse.headings import SECTION_HEADINGS
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.types import MODALITIES, Prepared, Study

UNSEEN = 1_000_000
"""The first number of a synthetic study that no cohort can hold, whatever its seed: the most that
`CohortOptions.studies` allows."""


def make_unseen(
    count: int, settings: PrepareSettings, tokenizer: Tokenizer
) -> tuple[list[Study], list[Prepared]]:
    """Make studies of which the settings leave every modality something to read.

    The synthetic notes have few sections; where the settings read none of those, the text is put
    under a heading that they do read.

    Raises:
        ExportError: The settings leave nothing of any note, or refuse an ordinary recording.
        InputError: The settings refuse what every synthetic study has.
    """
    studies, prepared = [], []
    for number in range(UNSEEN, UNSEEN + count):
        study = make_study(CohortOptions(), number).study
        for candidate in (study, *_other_headings(study, settings)):
            one = prepare(candidate, settings, tokenizer)
            if one.present.issuperset(MODALITIES):
                break
        else:
            reasons = " ".join(remark.message for remark in one.remarks)
            raise ExportError(
                "the preparation settings leave nothing of an ordinary study's note or recording, "
                f"so the graph can't be compared with the model: {reasons}"
            )
        studies.append(candidate)
        prepared.append(one)
    return studies, prepared


def _other_headings(study: Study, settings: PrepareSettings) -> Iterator[Study]:
    assert study.note is not None
    text = decode_note(study.note, settings.limits)
    parts = find_sections(text, settings.note.headings)
    body = " ".join(text[part.body : part.end].strip() for part in parts).strip()
    yield replace(study, note=body.encode())
    for heading in (
        *settings.note.include_sections,
        *settings.note.headings,
        *SECTION_HEADINGS,
    ):
        yield replace(study, note=f"{heading}: {body}\n".encode())
