"""A study, its answer and its explanations in; the record of all that a report says out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from medfuse.attribution.scale import DisplayScale
from medfuse.errors import SettingsError
from medfuse.types import Modality, Prepared, Study
from medfuse_serving.answer import Answer
from medfuse_serving.explanation_view import View
from medfuse_serving.language import find_language
from medfuse_serving.predictor import Predictor
from medfuse_serving.report import pictures
from medfuse_serving.report.inputs import list_inputs
from medfuse_serving.report.record import (
    SCHEMA,
    EvidenceRecord,
    ExplainedRecord,
    LayerRecord,
    ModelRecord,
    Reading,
    ReportRecord,
)
from medfuse_serving.report.versions import find_versions
from medfuse_serving.report.withhold import (
    concerned,
    find_referrals,
    list_withheld,
    withhold,
)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report says beside what the model does.

    Attributes:
        language: A key of `medfuse_serving.language.LANGUAGES`.
        study_id: A pseudonym of the study that may be shown; at most 128 characters.
        reading: What a reader made of it.
        made_at: When.
    """

    language: str = "en"
    study_id: str | None = None
    reading: Reading | None = None
    made_at: datetime = field(default_factory=_now)


def make_record(
    predictor: Predictor,
    study: Study,
    answer: Answer,
    views: Sequence[View],
    options: ReportOptions | None = None,
) -> ReportRecord:
    """Gather what a report says; what is left to a human has no score in it.

    Args:
        predictor: That answered.
        study: The very bytes.
        answer: To it.
        views: Its explanations, as many as there are.
        options: What else it says.

    Raises:
        InputError: The study cannot be decoded.
        SettingsError: The language is not known, or the study's name is too long.
    """
    options = options or ReportOptions()
    find_language(options.language)
    (prepared,) = predictor.prepare([study])
    settings = predictor.bundle.manifest.prepare
    referrals = find_referrals(answer, [view.record for view in views])
    withheld = list_withheld(referrals)
    shown = [view for view in views if not withheld & set(concerned(answer, view.record.target))]
    numbers = pictures.choose_numbers(prepared, [view.values for view in shown])
    evidence = pictures.draw_evidence(study, prepared, settings, numbers)
    manifest = predictor.bundle.manifest
    try:
        return ReportRecord(
            schema=SCHEMA,
            language=options.language,
            made_at=options.made_at,
            study_id=options.study_id,
            model=ModelRecord(
                digest=answer.model_digest,
                created=manifest.created,
                provider=predictor.provider,
                exported_with=manifest.exported_with,
            ),
            inputs=list_inputs(study),
            answer=withhold(answer, referrals),
            referrals=referrals,
            evidence=evidence,
            explanations=tuple(_show(view, prepared, evidence) for view in shown),
            reading=options.reading,
            versions=find_versions(),
        )
    except ValidationError as error:
        fields = sorted({str(e["loc"][0]) for e in error.errors() if e["loc"]})
        raise SettingsError(
            f"a report cannot hold this: {', '.join(fields)}; a study's name has at most 128 "
            "characters"
        ) from error


def _show(view: View, prepared: Prepared, evidence: EvidenceRecord) -> ExplainedRecord:
    """Draw an explanation's maps over what is shown of the study."""
    values, scale = view.values, view.scale
    record = view.record.model_copy(update={"arrays": {}, "files": ()})
    image, voice = values.get(Modality.IMAGE), values.get(Modality.VOICE)
    frames: tuple[LayerRecord, ...] = ()
    layer: LayerRecord | None = None
    if image is not None:
        assert prepared.image is not None
        part = scale.parts[Modality.IMAGE]
        geometry = prepared.image.geometry
        frames = pictures.lay_frames(image, geometry, part, evidence)
    if voice is not None:
        assert prepared.voice is not None
        part = scale.parts[Modality.VOICE]
        layer = pictures.lay_recording(voice, part)
    return ExplainedRecord(
        record=record,
        additive=_is_additive(scale),
        pieces=view.pieces,
        frames=frames,
        voice=layer,
    )


def _is_additive(scale: DisplayScale) -> bool:
    return all(part.additive for part in scale.parts.values())
