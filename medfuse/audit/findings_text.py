"""What a model wrote of studies whose truth is known in; precision and recall of it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from medfuse.audit.truth import TOLERANCE_S
from medfuse.config import Settings
from medfuse.overlay import find_words
from medfuse.synthetic.findings import (
    FindingSentence,
    name_sides,
    name_signs,
    shown_signs,
    write_findings,
)
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import SyntheticStudy, Truth
from medfuse.synthetic.world import TARGETS
from medfuse.trust.bootstrap import Figure, patient_weights, summarise
from medfuse.types import (
    FindingsText,
    ImagePlace,
    Modality,
    NotePlace,
    Prepared,
    Sentence,
    SentenceEvidence,
    VoicePlace,
)

ALL = "all findings"

FIGURES: Mapping[str, str] = {
    "finding stated": "the finding is there",
    "evidence modality": "a modality pointed to shows a planted sign of the finding",
    "evidence place": "the place pointed to lies on one",
    "sign named": "a sign named is planted, is one of the finding's and was delivered",
    "side named": "the sign named lies on that side",
    "sentence right": "all signs that are shown are named, no others, each on its side",
}
"""What is counted, and when it counts as right."""

Source = Literal["model", "another study's text", "random place"]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Tally:
    """What one study adds to one figure of one finding.

    Attributes:
        figure: A key of `FIGURES`.
        finding: Of which.
        source: Whose text it is.
        right: How many things were said rightly.
        said: How many were said.
        wanted: How many there were to say.
    """

    figure: str
    finding: str
    source: Source
    right: int
    said: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Written:
    """A study whose truth is known, and what a model wrote of it."""

    made: SyntheticStudy
    prepared: Prepared
    text: FindingsText


class TextFigure(Settings):
    """One figure of one finding, or of all of them.

    Attributes:
        figure: A key of `FIGURES`.
        finding: Or `ALL`.
        source: Whose text it is.
        precision: The share of what was said that is right.
        recall: The share of what there was to say that was said rightly.
        said: How many things were said.
        wanted: How many there were to say.
    """

    figure: str
    finding: str
    source: Source
    precision: Figure
    recall: Figure
    said: int
    wanted: int


class TextReport(Settings):
    """What `medfuse findings-text` measured."""

    schema_version: Literal[1] = 1
    model: str = Field(description="the bundle's digest")
    studies: int
    first: int
    missing_rate: float
    seed: int
    thresholds: dict[str, float | None]
    figures: tuple[TextFigure, ...]

    def find(self, figure: str, finding: str, source: Source) -> TextFigure | None:
        """Look up a figure."""
        wanted = (figure, finding, source)
        for each in self.figures:
            if (each.figure, each.finding, each.source) == wanted:
                return each
        return None


def measure(
    written: Sequence[Written], options: CohortOptions, findings: Sequence[str], seed: int
) -> tuple[TextFigure, ...]:
    """Score texts against the planted truth, each beside its control.

    The control of what is said is the text of the study before, which is another's; that of a
    place is one drawn at random in the same modality, as large.

    Args:
        written: The studies.
        options: They were made from.
        findings: What the model can state, by class.
        seed: Of the controls and the intervals.
    """
    tallies: list[list[Tally]] = []
    for i, each in enumerate(written):
        index = int(each.made.study_id[1:])
        expected = write_findings(options, index, each.made.truth)
        own = _tally(each.text, each, expected, findings, "model")
        other = written[i - 1].text
        own += [
            tally
            for tally in _tally(other, each, expected, findings, "another study's text")
            if tally.figure != "evidence place"
        ]
        moved = _move(each, np.random.default_rng([seed, index]))
        own += [
            tally
            for tally in _tally(moved, each, expected, findings, "random place")
            if tally.figure == "evidence place"
        ]
        tallies.append(own)
    patients = [str(each.made.patient.number) for each in written]
    return _summarise(tallies, patient_weights(patients, RESAMPLES, seed))


def lies_on(
    place: ImagePlace | NotePlace | VoicePlace, signs: frozenset[str], truth: Truth
) -> bool:
    """Whether a place is on a planted sign.

    A box when it holds a pixel of one, characters when they overlap one, a moment when its middle
    is in one, or within `TOLERANCE_S` of it.
    """
    match place:
        case ImagePlace():
            rows, columns = slice(place.top, place.bottom), slice(place.left, place.right)
            return any(
                bool(e.mask[rows, columns].any())
                for e in truth.image
                if e.sign in signs and e.instance == place.instance
            )
        case NotePlace():
            return any(
                e.start < place.end and place.start < e.end for e in truth.note if e.sign in signs
            )
        case VoicePlace():
            middle = (place.start_s + place.end_s) / 2
            return any(
                e.start_s - TOLERANCE_S <= middle <= e.end_s + TOLERANCE_S
                for e in truth.voice
                if e.sign in signs
            )


def _tally(
    text: FindingsText,
    study: Written,
    expected: Sequence[FindingSentence],
    findings: Sequence[str],
    source: Source,
) -> list[Tally]:
    truth = study.made.truth
    said = {sentence.target.partition(".")[2]: sentence for sentence in text.sentences}
    tallies = []
    for finding in findings:
        there = bool(truth.labels[TARGETS.index(finding)])
        shown = shown_signs(truth, finding)
        for figure, (right, given, wanted) in _count(
            said.get(finding), truth, finding, shown, there, expected
        ).items():
            tallies.append(Tally(figure, finding, source, right, given, wanted))
    return tallies


def _count(
    sentence: Sentence | None,
    truth: Truth,
    finding: str,
    shown: Mapping[Modality, tuple[str, ...]],
    there: bool,
    expected: Sequence[FindingSentence],
) -> dict[str, tuple[int, int, int]]:
    """Count what is right, what was said and what there was to say, by figure."""
    signs = frozenset(sign for own in shown.values() for sign in own)
    told = [each.text for each in expected if each.finding == finding]
    sides = frozenset(side for one in told for side in name_sides(one))
    wanted = (int(there), *([0] * 5))
    if there:
        wanted = (1, len(shown), len(shown), len(signs), len(sides), int(bool(signs)))
    right, given = [0] * 6, [0] * 6
    if sentence is not None:
        evidence = sentence.evidence
        named, named_sides = name_signs(sentence.text), name_sides(sentence.text)
        pointed = evidence.pointed
        hits = sum(lies_on(place, signs, truth) for place in places_of(evidence))
        whole = there and named == signs and named_sides == sides
        given = [1, len(pointed), len(pointed), len(named), len(named_sides), 1]
        right = [
            int(there),
            len(pointed & set(shown)) if there else 0,
            hits if there else 0,
            len(named & signs) if there else 0,
            len(named_sides & sides),
            int(whole),
        ]
    return {figure: (right[i], given[i], wanted[i]) for i, figure in enumerate(FIGURES)}


def places_of(evidence: SentenceEvidence) -> list[ImagePlace | NotePlace | VoicePlace]:
    """List the places that a sentence points to."""
    places = (evidence.image, evidence.note, evidence.voice)
    return [place for place in places if place is not None]


def _move(study: Written, rng: np.random.Generator) -> FindingsText:
    """Put every place of a text somewhere else in its modality, as large as it was."""
    moved = []
    for sentence in study.text.sentences:
        old = sentence.evidence
        evidence = SentenceEvidence(
            old.shares,
            None if old.image is None else _move_box(old.image, study.prepared, rng),
            None if old.note is None else _move_word(study.prepared, rng),
            None if old.voice is None else _move_moment(old.voice, study.prepared, rng),
        )
        moved.append(
            Sentence(
                sentence.target,
                sentence.probability,
                sentence.threshold,
                sentence.text,
                sentence.likelihood,
                evidence,
            )
        )
    return FindingsText(tuple(moved), study.text.left_out)


def _move_box(place: ImagePlace, prepared: Prepared, rng: np.random.Generator) -> ImagePlace:
    assert prepared.image is not None
    frame = prepared.image.geometry[int(rng.integers(len(prepared.image.geometry)))]
    tall, wide = place.bottom - place.top, place.right - place.left
    top = int(rng.integers(max(frame.rows - tall, 0) + 1))
    left = int(rng.integers(max(frame.columns - wide, 0) + 1))
    return ImagePlace(frame.instance, frame.frame, top, left, top + tall, left + wide)


def _move_word(prepared: Prepared, rng: np.random.Generator) -> NotePlace:
    assert prepared.note is not None
    words, _ = find_words(prepared.note.text, prepared.note.spans)
    return NotePlace(*words[int(rng.integers(len(words)))])


def _move_moment(place: VoicePlace, prepared: Prepared, rng: np.random.Generator) -> VoicePlace:
    assert prepared.voice is not None
    length = place.end_s - place.start_s
    start = float(rng.uniform(0, max(prepared.voice.duration_s - length, 0.0)))
    return VoicePlace(start, start + length)


def _summarise(tallies: Sequence[Sequence[Tally]], weights: np.ndarray) -> tuple[TextFigure, ...]:
    groups: dict[tuple[str, str, Source], np.ndarray] = {}
    for study, own in enumerate(tallies):
        for tally in own:
            for finding in (ALL, tally.finding):
                key = (tally.figure, finding, tally.source)
                counts = groups.setdefault(key, np.zeros((len(tallies), 3)))
                counts[study] += (tally.right, tally.said, tally.wanted)
    figures = []
    for (figure, finding, source), counts in groups.items():
        right, said, wanted = (weights @ counts).T
        figures.append(
            TextFigure(
                figure=figure,
                finding=finding,
                source=source,
                precision=_share(right, said),
                recall=_share(right, wanted),
                said=int(said[0]),
                wanted=int(wanted[0]),
            )
        )
    return tuple(figures)


def _share(right: np.ndarray, among: np.ndarray) -> Figure:
    shares = np.divide(right, among, out=np.full(len(among), np.nan), where=among > 0)
    return summarise(shares)
