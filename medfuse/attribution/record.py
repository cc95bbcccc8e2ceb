"""An explanation in; the JSON record of it out that files, the HTTP door and the page share."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from medfuse.attribution.scale import DisplayScale
from medfuse.bundle import NOTICE
from medfuse.config import PrepareSettings, Settings
from medfuse.overlay import mel_centres_hz, sum_words
from medfuse.types import (
    MODALITIES,
    Explanation,
    Modality,
    ModalityShares,
    Prepared,
    subset_name,
)

SCHEMA: Final = "medfuse.explanation/1"
VOICE_OVERLAY = "voice_overlay.png"


def frame_overlay(number: int) -> str:
    """Name the file of a frame's overlay; frames count from 0 in the study's order."""
    return f"image_{number}_overlay.png"


class CheckRecord(Settings):
    """One test that the explanation had to pass."""

    name: str
    value: float = Field(description="the figure")
    limit: float = Field(description="what it was held to")
    passed: bool
    message: str


class BadgeRecord(Settings):
    """Whether the maps can be relied on."""

    passed: bool
    checks: tuple[CheckRecord, ...]


class SharesRecord(Settings):
    """What each modality, and each pair of them, contributes to the output."""

    baseline: str = Field(
        description="what stood in the place of a modality taken away; `absent`: nothing did"
    )
    outputs: dict[str, float] = Field(
        description="the output from every subset, such as `image+note`; `none` is the empty one"
    )
    shares: dict[Modality, float] = Field(description="Shapley values; they add up to all - none")
    interactions: dict[str, float] = Field(
        description="of each pair: above 0, the two together say more than each by itself"
    )


class BandRecord(Settings):
    """The least and the greatest share of a modality over all baselines."""

    lowest: float
    highest: float


class WordRecord(Settings):
    """A word that the model read, by its characters in the decoded note."""

    start: int
    end: int
    text: str
    value: float = Field(description="signed, in the units of `scale`")


class FrameRecord(Settings):
    """Where a frame's map lies in the native pixels of its instance, and its picture."""

    instance: int = Field(description="which of the images that were sent, from 0")
    frame: int = Field(description="which frame of that instance, from 0")
    rows: int
    columns: int
    size: int = Field(description="side of the model's square, in its pixels")
    top: int = Field(description="first row of the square that shows the frame")
    left: int = Field(description="first column of it")
    height: int = Field(description="rows of the square that show it")
    width: int = Field(description="columns of the square that show it")
    spacing_mm: tuple[float, float] | None
    overlay: str = Field(description="PNG of the map alone, see-through, in native pixels")


class VoiceRecord(Settings):
    """Which seconds and hertz the recording's map is over, and its picture."""

    start_s: float = Field(description="centre of the first mel frame")
    step_s: float = Field(description="from one mel frame to the next")
    duration_s: float
    hz: tuple[float, ...] = Field(description="centre of each mel band")
    overlay: str = Field(
        description="PNG of the map alone: a column per mel frame, a row per band, highest first"
    )


class ScaleRecord(Settings):
    """How the pictures of one modality are scaled, the same for every study."""

    full: float = Field(description="value of the smoothed map from which on the colour is full")
    unit: str
    measured: bool = Field(description="on the model's own maps; else it is a general default")


class ArrayRecord(Settings):
    """One array: the member of the archive that holds it, and what it is."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    unit: str


class RemarkRecord(Settings):
    """Something the reader must know about the input."""

    modality: Modality
    code: str
    message: str


class ExplanationRecord(Settings):
    """Why a model gave one answer for one study; the maps themselves are in `arrays`."""

    schema_name: Literal["medfuse.explanation/1"] = Field(default=SCHEMA, alias="schema")
    model_digest: str = Field(description="SHA-256 that names the model, as hex")
    target: str = Field(description="the finding, or the weighting of several")
    method: str
    baseline: str = Field(description="what the maps are measured against; `none` for gradients")
    output: float = Field(description="the target's logit for this study")
    baseline_output: float | None
    completeness_gap: float | None = Field(
        description="how far the maps' sum is from output - baseline_output, relative to that"
    )
    steps: int | None = Field(description="points of the integral")
    details: dict[str, float] = Field(description="further numbers of the method")
    shares: SharesRecord
    shares_by_baseline: tuple[SharesRecord, ...] = Field(
        description="the same against other baselines, where the band was asked for"
    )
    band: dict[Modality, BandRecord] = Field(description="empty where it was not asked for")
    badge: BadgeRecord
    withheld: bool = Field(description="true: the badge failed, and there is no map")
    reasons: tuple[str, ...] = Field(description="why it failed")
    sums: dict[Modality, float] = Field(description="each map's sum; empty when withheld")
    words: tuple[WordRecord, ...] | None = Field(description="null without a note's map")
    frames: tuple[FrameRecord, ...] | None = Field(description="null without an image's map")
    voice: VoiceRecord | None = Field(description="null without a recording's map")
    frame_attention: tuple[float, ...] = Field(
        default=(),
        description="how much of the image's embedding comes from each frame; empty without one",
    )
    scale: dict[Modality, ScaleRecord]
    arrays: dict[str, ArrayRecord]
    files: tuple[str, ...] = Field(description="all that the archive or the folder holds beside")
    remarks: tuple[RemarkRecord, ...]
    notice: str = NOTICE


def to_shares_record(shares: ModalityShares) -> SharesRecord:
    """Give shares their JSON form."""
    return SharesRecord(
        baseline=shares.baseline,
        outputs={subset_name(s) or "none": value for s, value in shares.outputs.items()},
        shares={m: shares.shares[m] for m in MODALITIES if m in shares.shares},
        interactions={subset_name(pair): value for pair, value in shares.interactions.items()},
    )


def find_band(explanation: Explanation) -> dict[Modality, BandRecord]:
    """Find how far each modality's share moves over the baselines; empty where there is but one."""
    every = (explanation.shares, *explanation.shares_by_baseline)
    if len(every) == 1:
        return {}
    values = {m: [s.shares[m] for s in every] for m in MODALITIES if m in every[0].shares}
    return {m: BandRecord(lowest=min(v), highest=max(v)) for m, v in values.items()}


def to_badge_record(explanation: Explanation) -> BadgeRecord:
    """Give a badge its JSON form."""
    return BadgeRecord(
        passed=explanation.badge.passed,
        checks=tuple(
            CheckRecord(
                name=check.name,
                value=check.value,
                limit=check.limit,
                passed=check.passed,
                message=check.message,
            )
            for check in explanation.badge.checks
        ),
    )


def to_record(
    prepared: Prepared,
    explanation: Explanation,
    prepare: PrepareSettings,
    scale: DisplayScale,
    arrays: Mapping[str, ArrayRecord],
    files: tuple[str, ...],
    *,
    withheld: bool,
) -> ExplanationRecord:
    """Give an explanation its JSON form.

    Args:
        prepared: The study that is explained.
        explanation: Of it.
        prepare: The model's.
        scale: Of the pictures.
        arrays: What the archive or folder holds of it; nothing where it is withheld.
        files: Likewise.
        withheld: Whether everything that a map says is left out.
    """
    attribution = explanation.attribution
    details = dict(attribution.details)
    steps = details.pop("steps", None)
    maps = {} if withheld else attribution.values
    return ExplanationRecord(
        schema=SCHEMA,
        model_digest=explanation.model_digest,
        target=attribution.target,
        method=attribution.method,
        baseline=attribution.baseline,
        output=details.pop("output"),
        baseline_output=details.pop("baseline_output", None),
        completeness_gap=attribution.completeness_gap,
        steps=None if steps is None else int(steps),
        details=details,
        shares=to_shares_record(explanation.shares),
        shares_by_baseline=tuple(map(to_shares_record, explanation.shares_by_baseline)),
        band=find_band(explanation),
        badge=to_badge_record(explanation),
        withheld=withheld,
        reasons=tuple(c.message for c in explanation.badge.checks if not c.passed),
        sums={m: float(maps[m].sum(dtype=np.float64)) for m in MODALITIES if m in maps},
        words=_to_words(prepared, maps[Modality.NOTE]) if Modality.NOTE in maps else None,
        frames=_to_frames(prepared) if Modality.IMAGE in maps else None,
        voice=_to_voice(prepared, prepare) if Modality.VOICE in maps else None,
        frame_attention=explanation.frame_attention,
        scale={
            m: ScaleRecord(full=part.full, unit=part.unit, measured=scale.measured)
            for m, part in scale.parts.items()
            if m in maps
        },
        arrays=dict(arrays),
        files=files,
        remarks=tuple(
            RemarkRecord(modality=r.modality, code=r.code, message=r.message)
            for r in prepared.remarks
        ),
    )


def _to_words(prepared: Prepared, values: Float[np.ndarray, " l"]) -> tuple[WordRecord, ...]:
    assert prepared.note is not None
    text = prepared.note.text
    return tuple(
        WordRecord(start=w.start, end=w.end, text=text[w.start : w.end], value=w.value)
        for w in sum_words(text, prepared.note.spans, values)
    )


def _to_frames(prepared: Prepared) -> tuple[FrameRecord, ...]:
    assert prepared.image is not None
    return tuple(
        FrameRecord(**asdict(geometry), overlay=frame_overlay(i))
        for i, geometry in enumerate(prepared.image.geometry)
    )


def _to_voice(prepared: Prepared, prepare: PrepareSettings) -> VoiceRecord:
    assert prepared.voice is not None
    return VoiceRecord(
        start_s=prepared.voice.start_s,
        step_s=prepared.voice.step_s,
        duration_s=prepared.voice.duration_s,
        hz=tuple(mel_centres_hz(prepare.voice).tolist()),
        overlay=VOICE_OVERLAY,
    )
