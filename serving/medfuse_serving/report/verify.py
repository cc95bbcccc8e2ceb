"""A report's PDF in; whether it is as it was made, of a bundle and of a study's files, out."""

import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from fpdf.errors import FPDFException
from PIL import Image
from pydantic.main import IncEx
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from medfuse.data.prepare import collate
from medfuse.errors import ReportError
from medfuse.golden import read_golden
from medfuse.trust.calibration import answer as answer_logits
from medfuse.trust.judging import judge_answers
from medfuse.types import Study, subset_name
from medfuse_serving.answer import Answer, to_answer
from medfuse_serving.predictor import Predictor
from medfuse_serving.report import pictures
from medfuse_serving.report.inputs import list_inputs
from medfuse_serving.report.paper import MOST_PAGES
from medfuse_serving.report.record import (
    ATTACHMENT,
    MOST_BYTES,
    MOST_FRAMES,
    EvidenceRecord,
    FrameEvidence,
    ReportRecord,
    VoiceEvidence,
    find_digest,
    from_bytes,
    to_code,
)
from medfuse_serving.report.render import draw_report
from medfuse_serving.report.seal import ATTACHMENT as SEAL
from medfuse_serving.report.seal import check_seal, unseal
from medfuse_serving.report.versions import find_versions
from medfuse_serving.report.withhold import find_referrals, withhold

CLOSE = 1e-6
"""How far numbers that are worked out anew from the same logits may be apart."""

NEAR = 0.02
"""How far shares and p-values may be apart that another machine's rounding moves."""

_PNG: IncEx = {"png"}
_EACH_PNG: IncEx = {"__all__": _PNG}
PICTURES: Mapping[str, IncEx] = {"frames": _EACH_PNG, "voice": _PNG}

PDF_FAULTS = (
    PyPdfError,
    zlib.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What pypdf raises at files that are no PDFs, or were made to harm."""

OURS = frozenset({ATTACHMENT, SEAL})

GREYS = 2
"""How far a picture's greys may be apart, since decoders round differently."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A report whose pages are its record's.

    Attributes:
        record: What it says.
        digest: Of the record.
        seal: Whether it has a seal, and whether that was checked: every byte is then as the key's
            holder made it.
        exact: Whether the file is, byte for byte, what the record gives here.
        others: Where not, the versions that drew it; without a checked seal the text of its pages
            was then compared, and nothing else.
    """

    record: ReportRecord
    digest: str
    seal: Literal["none", "unchecked", "checked"]
    exact: bool
    others: str = ""

    @property
    def whole(self) -> bool:
        """Whether a change of any byte would have been found."""
        return self.exact or self.seal == "checked"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is read of a PDF that may be anything."""

    record: bytes
    seal: bytes | None
    text: str


def open_report(path: Path, key: bytes | None = None) -> Opened:
    """Read a report and check that its pages are drawn from its record, and who sealed it.

    Args:
        path: The PDF.
        key: What it must be sealed with, if that is asked.

    Raises:
        ReportError: It cannot be read, is no report, was changed, or has another seal.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ReportError(f"{path}: the report cannot be read ({error.strerror})") from error
    return check_report(data, key)


def check_report(data: bytes, key: bytes | None = None) -> Opened:
    """Check the bytes of a report, as `open_report` does.

    Raises:
        ReportError: As there.
    """
    if len(data) > MOST_BYTES:
        raise ReportError(f"the report has more than {MOST_BYTES} bytes, and none is so large")
    parts = _read_parts(data)
    record, digest = from_bytes(parts.record), find_digest(parts.record)
    if to_code(digest) not in parts.text:
        raise ReportError(
            "the report's record does not have the digest that its pages state: it was changed, or "
            "exchanged for another's"
        )
    blank = data if parts.seal is None else unseal(data, parts.seal)
    seal: Literal["none", "unchecked", "checked"] = "none" if parts.seal is None else "unchecked"
    if key is not None:
        if parts.seal is None:
            raise ReportError("the report has no seal; ask for one that was made with --key-file")
        if not check_seal(blank, key, parts.seal):
            raise ReportError("the report was not sealed with this key, or changed since")
        seal = "checked"
    drawn = _draw_again(parts)
    if drawn == blank:
        return Opened(record, digest, seal, exact=True)
    here = find_versions()
    if record.versions == here:
        raise ReportError(
            "the report's pages are not what its record gives: a number, a word or a picture was "
            "changed, or the file was saved again by another program"
        )
    if seal != "checked" and _read_parts(drawn).text != parts.text:
        raise ReportError(
            "the text of the report's pages is not what its record gives; other versions drew it, "
            "and if nobody changed it, check it where they are installed"
        )
    others = ", ".join(
        f"{name} {version}"
        for name, version in sorted(record.versions.items())
        if here.get(name) != version
    )
    return Opened(record, digest, seal, exact=False, others=others)


def check_model(record: ReportRecord, digest: str) -> None:
    """Check that a report names a bundle.

    Raises:
        ReportError: It names another.
    """
    if not record.model.digest == record.answer.model_digest == digest:
        raise ReportError(
            f"the report is of model {record.model.digest}, and this bundle is {digest}"
        )


def check_inputs(record: ReportRecord, study: Study) -> None:
    """Check that a report names the files of a study, images in any order.

    Raises:
        ReportError: It names others, more or fewer.
    """
    stated, given = (
        sorted((part.modality, part.sha256) for part in parts)
        for parts in (record.inputs, list_inputs(study))
    )
    if stated != given:
        both = len([part for part in given if part in stated])
        raise ReportError(
            f"the report is of {len(stated)} files, and of the {len(given)} that were given {both} "
            "have a SHA-256 that it states; give the very files that were answered, all of them"
        )


def check_answer(record: ReportRecord, predictor: Predictor, study: Study) -> float:
    """Check that a bundle answers a study as a report says, and that the report shows that study.

    Logits are compared within the tolerance of the bundle's golden study. Everything else is
    worked out again from the report's own logits, and must be the same.

    Args:
        record: Whose model and inputs were checked.
        predictor: The bundle.
        study: The files.

    Returns:
        The largest difference of a logit, relative to the logits' scale.

    Raises:
        ReportError: It does not.
        InputError: The study cannot be decoded.
    """
    ordered = _order(record, study)
    (prediction,) = predictor.predict([ordered])
    (prepared,) = predictor.prepare([ordered])
    manifest, golden = predictor.bundle.manifest, read_golden(predictor.bundle).answer
    (logits,) = predictor.run(collate([prepared], manifest.prepare))
    stated = {t: value for task in record.answer.tasks for t, value in task.logits.items()}
    targets = [target for task in manifest.tasks for target in task.targets]
    if set(stated) - set(targets):
        raise ReportError("the report answers what the bundle's model is not asked")
    differences = [
        abs(stated[target] - float(logit)) / golden.scale
        for target, logit in zip(targets, logits, strict=True)
        if target in stated
    ]
    worst = max(differences, default=0.0)
    if not worst <= golden.tolerance:
        raise ReportError(
            f"the bundle's answer is {worst:.1e} of the logits' scale off the report's, and "
            f"{golden.tolerance:.0e} is allowed"
        )
    merged = np.array(
        [stated.get(target, float(logit)) for target, logit in zip(targets, logits, strict=True)],
        dtype=np.float32,
    )
    subset = subset_name(prediction.used)
    tasks = answer_logits(manifest.tasks, merged, manifest.calibration, subset)
    if manifest.trust is not None:
        tasks = judge_answers(tasks, subset, manifest.trust)
    again = to_answer(replace(prediction, tasks=tasks))
    novel = [referral for referral in record.referrals if referral.reason == "novel"]
    if tuple(novel) != find_referrals(again, ()):
        raise ReportError(
            "the report leaves other answers to a human for an unusual input than the bundle does"
        )
    _compare_answers(record.answer, withhold(again, record.referrals))
    numbers = [frame.number - 1 for frame in record.evidence.frames]
    frames = 0 if prepared.image is None else len(prepared.image.geometry)
    distinct = {number for number in numbers if 0 <= number < frames}
    if not len(distinct) == len(numbers) == min(frames, MOST_FRAMES):
        raise ReportError("the report does not show the frames that are of these files")
    _compare_evidence(
        record.evidence, pictures.draw_evidence(ordered, prepared, manifest.prepare, numbers)
    )
    return worst


def _order(record: ReportRecord, study: Study) -> Study:
    """Put a study's images in the order in which the report names them."""
    found = {
        part.sha256: image for part, image in zip(list_inputs(study), study.images, strict=False)
    }
    named = [part.sha256 for part in record.inputs if part.sha256 in found]
    return replace(study, images=tuple(found[digest] for digest in named))


def _compare_answers(stated: Answer, again: Answer) -> None:
    """Hold a report's answer to one that was worked out again."""
    parts = (
        ("tasks", {"tasks"}, CLOSE),
        ("modalities", {"used", "remarks", "promises"}, CLOSE),
        ("novelty", {"novelty"}, NEAR),
        ("findings in words", {"findings_text"}, NEAR),
    )
    for name, fields, tolerance in parts:
        one, other = (_dump(answer, fields) for answer in (stated, again))
        if not _is_close(one, other, tolerance):
            raise ReportError(
                f"the report's answer is not the bundle's: its {name} do not follow from what the "
                "bundle makes of these files"
            )


def _dump(answer: Answer, fields: set[str]) -> object:
    """Give some of an answer as JSON, without the places of findings text, which no page shows."""
    places: Mapping[str, set[str]] = {"__all__": {"image", "note", "voice"}}
    return answer.model_dump(
        mode="json", include=fields, exclude={"findings_text": {"sentences": places}}
    )


def _compare_evidence(stated: EvidenceRecord, again: EvidenceRecord) -> None:
    """Hold what a report shows of a study to the study; pictures by their pixels."""
    one, other = (
        evidence.model_dump(mode="json", exclude=PICTURES) for evidence in (stated, again)
    )
    same = _is_close(one, other, CLOSE) and all(
        _is_same_picture(a.png, b.png)
        for a, b in zip(_list_pictures(stated), _list_pictures(again), strict=True)
    )
    if not same:
        raise ReportError("what the report shows of the study is not of these files")


def _list_pictures(evidence: EvidenceRecord) -> list[FrameEvidence | VoiceEvidence]:
    return [*evidence.frames, *([evidence.voice] if evidence.voice else [])]


def _is_same_picture(a: bytes, b: bytes) -> bool:
    with Image.open(io.BytesIO(a)) as one, Image.open(io.BytesIO(b)) as other:
        if (one.mode, one.size) != (other.mode, other.size):
            return False
        greys = (np.asarray(picture).astype(np.int16) for picture in (one, other))
        return bool(np.abs(next(greys) - next(greys)).max() <= GREYS)


def _is_close(one: object, other: object, tolerance: float) -> bool:
    """Compare JSON, numbers within a tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _is_close(value, other[key], tolerance) for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            map(partial(_is_close, tolerance=tolerance), one, other)
        )
    if type(one) is float and type(other) is float:
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return one == other


def _draw_again(parts: _Parts) -> bytes:
    """Draw a record that may be anything of a record's form.

    Raises:
        ReportError: Nothing can be drawn of it.
    """
    try:
        return draw_report(parts.record, sealed=parts.seal is not None)
    except (
        FPDFException,
        ArithmeticError,
        AssertionError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        raise ReportError("the report's record says what no report has; it was made up") from error


def _read_parts(data: bytes) -> _Parts:
    """Read what a report has of its own from a PDF that may be anything.

    Raises:
        ReportError: It is damaged, encrypted, too long, or no report.
    """
    try:
        reader = PdfReader(io.BytesIO(data), strict=True)
        if reader.is_encrypted:
            raise ReportError("the report is encrypted; ask for it as it was made")
        if len(reader.pages) > MOST_PAGES:
            raise ReportError(f"the report has more than {MOST_PAGES} pages")
        attached = {name: contents for name, contents in reader.attachments.items() if name in OURS}
        text = "".join(page.extract_text() for page in reader.pages)
    except PDF_FAULTS as error:
        raise ReportError("the file is no PDF, or a damaged one") from error
    if any(len(contents) != 1 for contents in attached.values()) or ATTACHMENT not in attached:
        raise ReportError(
            f"the PDF has no record of a report ({ATTACHMENT}); `medfuse report` makes one that has"
        )
    (record,) = attached[ATTACHMENT]
    if len(record) > MOST_BYTES:
        raise ReportError(f"the report's record has more than {MOST_BYTES} bytes")
    sealed = attached[SEAL][0] if SEAL in attached else None
    # pypdf reads the two-byte codes of an embedded font one by one, and a nought for each first.
    return _Parts(record, sealed, "".join(text.replace("\0", "").split()))
