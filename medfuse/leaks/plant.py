"""A clean cohort in; the same cohort with one leak planted, out.

Leaks of files are planted in files: marks, words and hum are written into the bytes, recordings are
resampled, copies are made darker, cropped and compressed; and facts are read from what results.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image

from medfuse.config import SAMPLE_RATE, PrepareSettings
from medfuse.data.cohort import Cohort, CohortRow, Split, WholeTable
from medfuse.data.dicom import decode_frames
from medfuse.data.voice import decode_voice
from medfuse.leaks.facts import StudyFacts, study_facts
from medfuse.leaks.image_facts import ImageFacts, read_image_facts
from medfuse.leaks.voice_facts import VoiceFacts, read_voice_facts
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import SyntheticStudy, make_study
from medfuse.synthetic.world import TARGETS, TASKS
from medfuse.types import MODALITIES, Study

PREPARE = PrepareSettings()

FEW = (4, 8)
"""Copies, torn patients or contradictions in a cohort, at least and at most."""

FRAMED = (0.03, 0.10)
"""Share of each side that a planted frame takes, at least and at most."""

NARROW_HZ = 4_000
"""Rate that a narrow recording is resampled to, and back."""

LICENCES = ("CC BY 4.0", "CC BY-NC 4.0", "CC0")
WEBSITES = ("https://one.example/", "https://two.example/", "https://three.example/")
SITES = ("north", "south", "east")


@dataclass(frozen=True, slots=True)
class PoolStudy:
    """A study of the pool that cohorts are drawn from.

    Attributes:
        index: Its number, by which it can be made again.
        row: Its line of the table.
        facts: Of its files.
        marked: Of its files with a bar in the image, a place in the note and hum in the voice.
    """

    index: int
    row: CohortRow
    facts: StudyFacts
    marked: StudyFacts


@dataclass(frozen=True, slots=True)
class Drawn:
    """A cohort drawn from the pool, and what is known of its files.

    Attributes:
        options: Of the pool.
        studies: Of the pool, in the order of the rows.
        rows: The table.
        others: Its other columns.
        facts: Of each study.
        copies: Pairs of studies of which the second has a part of the first.
    """

    options: CohortOptions
    studies: tuple[PoolStudy, ...]
    rows: tuple[CohortRow, ...]
    others: Mapping[str, tuple[str, ...]]
    facts: tuple[StudyFacts, ...]
    copies: tuple[tuple[int, int], ...] = ()

    @property
    def table(self) -> WholeTable:
        """The cohort as a check reads it."""
        return WholeTable(Cohort(TASKS, self.rows), self.others)


def make_pool_study(options: CohortOptions, index: int) -> PoolStudy:
    """Make one study of the pool, without and with marks, and read the facts of both."""
    made = make_study(options, index)
    marked = make_study(options, index, frozenset(MODALITIES))
    row = CohortRow(
        number=index + 1,
        labels=tuple(float(label) for label in made.truth.labels),
        patient_id=made.patient.patient_id,
        study_id=made.study_id,
        images=tuple(Path(f"image_{i}.dcm") for i in range(len(made.study.images))),
        note=Path("note.txt"),
        voice=Path("voice.wav"),
        sex=made.patient.sex,
        age=str(made.age),
        site=made.patient.site,
        date=made.day.isoformat(),
        split=Split(made.patient.split),
    )
    return PoolStudy(index, row, *(study_facts(_bare(m), PREPARE) for m in (made, marked)))


def draw_cohort(
    options: CohortOptions, pool: list[PoolStudy], size: int, rng: np.random.Generator
) -> Drawn:
    """Draw patients until there are about ``size`` studies, with columns that tell nothing."""
    by_patient: dict[str, list[PoolStudy]] = {}
    for study in pool:
        by_patient.setdefault(study.row.patient_id, []).append(study)
    patients = sorted(by_patient)
    chosen: list[PoolStudy] = []
    others: dict[str, list[str]] = {"licence": [], "source_url": [], "device": [], "crp": []}
    for k in rng.permutation(len(patients)).tolist():
        if len(chosen) >= size:
            break
        own = by_patient[patients[k]]
        chosen += own
        others["licence"] += [str(rng.choice(LICENCES))] * len(own)
        others["source_url"] += [f"{rng.choice(WEBSITES)}{study.index}" for study in own]
        others["device"] += [f"model {rng.integers(1, 5)}"] * len(own)
        others["crp"] += [f"{rng.lognormal(2, 1):.1f}" for _ in own]
    return Drawn(
        options,
        tuple(chosen),
        tuple(study.row for study in chosen),
        {name: tuple(cells) for name, cells in others.items()},
        tuple(study.facts for study in chosen),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is planted.

    Attributes:
        target: The label that is given away, by its place in `TARGETS`.
        strength: The trait is there with chance (1 + strength) / 2 when the label is, and with
            (1 - strength) / 2 when it is not.
        rng: Owned by the caller and consumed.
    """

    target: int
    strength: float
    rng: np.random.Generator

    def draw(self, drawn: Drawn) -> list[int]:
        """Draw the studies that have the trait."""
        labels = np.array([row.labels[self.target] for row in drawn.rows])
        chance = np.where(labels == 1, 1 + self.strength, 1 - self.strength) / 2
        return np.flatnonzero(self.rng.random(len(labels)) < chance).tolist()

    def pairs(self, drawn: Drawn) -> tuple[tuple[int, int], ...]:
        """Draw a few pairs of studies of different patients in different splits."""
        n = len(drawn.rows)
        wanted = int(self.rng.integers(*FEW, endpoint=True))
        found: list[tuple[int, int]] = []
        used: set[int] = set()
        for i, j in zip(self.rng.permutation(n), self.rng.permutation(n), strict=True):
            one, other = drawn.rows[i], drawn.rows[j]
            apart = one.patient_id != other.patient_id and one.split != other.split
            if apart and not used & {int(i), int(j)} and len(found) < wanted:
                found.append((int(i), int(j)))
                used |= {int(i), int(j)}
        return tuple(found)


def plant_column(name: str, cell: Callable[[int, bool], str]) -> Callable[[Drawn, Plan], Drawn]:
    """Plant a trait in a column: ``cell`` writes it for a study that has it, or has not."""

    def plant(drawn: Drawn, plan: Plan) -> Drawn:
        those = set(plan.draw(drawn))
        cells = tuple(cell(i, i in those) for i in range(len(drawn.rows)))
        return replace(drawn, others={**drawn.others, name: cells})

    return plant


def plant_site(drawn: Drawn, plan: Plan) -> Drawn:
    """Let the label's studies be of one site."""
    those = set(plan.draw(drawn))
    rows = tuple(
        replace(row, site=SITES[0] if i in those else str(plan.rng.choice(SITES[1:])))
        for i, row in enumerate(drawn.rows)
    )
    return replace(drawn, rows=rows)


def plant_date(drawn: Drawn, plan: Plan) -> Drawn:
    """Let the label's studies be of one half year."""
    those = set(plan.draw(drawn))
    rows = tuple(
        replace(row, date=_some_day(plan.rng, first=i in those)) for i, row in enumerate(drawn.rows)
    )
    return replace(drawn, rows=rows)


def plant_scanner(drawn: Drawn, plan: Plan) -> Drawn:
    """Let the label's images come from one machine."""
    return _change_images(
        drawn, plan, lambda image: replace(image, made={**image.made, "StationName": "ROOM 2"})
    )


def plant_format(drawn: Drawn, plan: Plan) -> Drawn:
    """Let the label's images be in one transfer syntax."""
    jpeg = "1.2.840.10008.1.2.4.50"
    return _change_images(
        drawn, plan, lambda image: replace(image, stored={**image.stored, "transfer syntax": jpeg})
    )


def plant_size(drawn: Drawn, plan: Plan) -> Drawn:
    """Let the label's images be of one size."""
    size = {"rows": 512.0, "columns": 480.0, "aspect": 0.938}
    return _change_images(
        drawn, plan, lambda image: replace(image, numbers={**image.numbers, **size})
    )


def plant_marks(drawn: Drawn, plan: Plan) -> Drawn:
    """Burn a bar into the label's images."""
    return _take(drawn, plan, lambda study: replace(study.facts, image=study.marked.image))


def plant_border(drawn: Drawn, plan: Plan) -> Drawn:
    """Put a black frame around the label's images, as a screen or a light box leaves one."""

    def framed(study: PoolStudy) -> StudyFacts:
        images = _make(drawn, study).images
        shown = decode_frames(images[:1], PREPARE.image, PREPARE.limits)[0].image
        seen = read_image_facts([frame_image(shown, plan.rng)], PREPARE.image, PREPARE.limits)
        own = study.facts.image
        assert own is not None
        borders = {key: n for key, n in seen.numbers.items() if key.startswith("flat border")}
        changed = replace(
            own,
            numbers={**own.numbers, **borders},
            thumbnails=np.concatenate([seen.thumbnails, own.thumbnails[1:]]),
            edges=np.maximum(own.edges, seen.edges),
        )
        return replace(study.facts, image=changed)

    return _take(drawn, plan, framed)


def plant_source(drawn: Drawn, plan: Plan) -> Drawn:
    """Name the site in the label's notes."""
    return _take(drawn, plan, lambda study: replace(study.facts, note=study.marked.note))


def plant_hum(drawn: Drawn, plan: Plan) -> Drawn:
    """Let mains hum in the label's recordings."""
    return _take(drawn, plan, lambda study: replace(study.facts, voice=study.marked.voice))


def plant_bandwidth(drawn: Drawn, plan: Plan) -> Drawn:
    """Resample the label's recordings down and up again."""

    def narrow(study: PoolStudy) -> StudyFacts:
        return replace(study.facts, voice=_hear(_make(drawn, study), narrow_band))

    return _take(drawn, plan, narrow)


def plant_label_words(drawn: Drawn, plan: Plan) -> Drawn:
    """Write the label's name into some of its notes."""
    name = TARGETS[plan.target].replace("_", " ")

    def write(study: PoolStudy) -> StudyFacts:
        return replace(study.facts, note=f"{study.facts.note}\nKnown {name}.\n")

    return _take(drawn, plan, write)


def plant_absence(drawn: Drawn, plan: Plan) -> Drawn:
    """Take the recording from the label's studies."""
    those = set(plan.draw(drawn))
    rows = tuple(replace(r, voice=None) if i in those else r for i, r in enumerate(drawn.rows))
    facts = tuple(replace(f, voice=None) if i in those else f for i, f in enumerate(drawn.facts))
    return replace(drawn, rows=rows, facts=facts)


def plant_torn(drawn: Drawn, plan: Plan) -> Drawn:
    """Put studies of a few patients with several into another split."""
    rows = list(drawn.rows)
    several = [
        i
        for i, row in enumerate(rows)
        if sum(other.patient_id == row.patient_id for other in rows) > 1
    ]
    wanted = int(plan.rng.integers(*FEW, endpoint=True))
    for i in plan.rng.permutation(several)[:wanted].tolist():
        rows[i] = replace(
            rows[i], split=Split.TEST if rows[i].split is Split.TRAIN else Split.TRAIN
        )
    return replace(drawn, rows=tuple(rows))


def plant_same_images(drawn: Drawn, plan: Plan) -> Drawn:
    """Give a few patients a changed copy of another's image."""
    facts, copies = list(drawn.facts), plan.pairs(drawn)
    for i, j in copies:
        study = _make(drawn, drawn.studies[i])
        frame = decode_frames(study.images[:1], PREPARE.image, PREPARE.limits)[0].image
        copied = read_image_facts(
            [copy_image(frame, plan.rng)], PREPARE.image, PREPARE.limits
        ).thumbnails
        own = facts[j].image
        assert own is not None
        facts[j] = replace(facts[j], image=replace(own, thumbnails=copied))
    return replace(drawn, facts=tuple(facts), copies=copies)


def plant_same_notes(drawn: Drawn, plan: Plan) -> Drawn:
    """Give a few patients a copy of another's note with one word in twenty left out."""
    facts, copies = list(drawn.facts), plan.pairs(drawn)
    for i, j in copies:
        words = (facts[i].note or "").split(" ")
        kept = [word for word in words if plan.rng.random() >= 0.05]
        facts[j] = replace(facts[j], note=" ".join(kept))
    return replace(drawn, facts=tuple(facts), copies=copies)


def plant_same_recordings(drawn: Drawn, plan: Plan) -> Drawn:
    """Give a few patients a louder or softer copy of another's recording, with some noise."""
    facts, copies = list(drawn.facts), plan.pairs(drawn)
    for i, j in copies:
        gain, noise = plan.rng.uniform(0.4, 1.4), plan.rng.standard_normal(SAMPLE_RATE * 20)

        def change(
            waveform: np.ndarray, gain: float = gain, noise: np.ndarray = noise
        ) -> np.ndarray:
            return gain * waveform + 0.001 * noise[: len(waveform)]

        copied = _hear(_make(drawn, drawn.studies[i]), change).fingerprint
        own = facts[j].voice
        assert own is not None
        facts[j] = replace(facts[j], voice=replace(own, fingerprint=copied))
    return replace(drawn, facts=tuple(facts), copies=copies)


def plant_conflicts(drawn: Drawn, plan: Plan) -> Drawn:
    """Enter a few studies twice, of one day, with the label turned."""
    rows, facts, studies = list(drawn.rows), list(drawn.facts), list(drawn.studies)
    others = {name: list(cells) for name, cells in drawn.others.items()}
    wanted = int(plan.rng.integers(*FEW, endpoint=True))
    for i in plan.rng.permutation(len(rows))[:wanted].tolist():
        labels = list(rows[i].labels)
        labels[plan.target] = 1 - labels[plan.target]
        again = {"study_id": f"{rows[i].study_id}-2", "labels": tuple(labels)}
        rows.append(replace(rows[i], **again))
        facts.append(facts[i])
        studies.append(studies[i])
        for cells in others.values():
            cells.append(cells[i])
    return Drawn(
        drawn.options,
        tuple(studies),
        tuple(rows),
        {name: tuple(cells) for name, cells in others.items()},
        tuple(facts),
    )


def plant_marker(drawn: Drawn, plan: Plan) -> Drawn:
    """Let a laboratory value lie two and a half standard deviations higher with the label."""
    labels = np.array([row.labels[plan.target] for row in drawn.rows])
    values = plan.rng.standard_normal(len(labels)) + 2.5 * labels
    return replace(drawn, others={**drawn.others, "crp": tuple(f"{v:.3f}" for v in values)})


PLANTS: dict[str, Callable[[Drawn, Plan], Drawn]] = {
    "patient-in-splits": plant_torn,
    "duplicate-image": plant_same_images,
    "duplicate-note": plant_same_notes,
    "duplicate-recording": plant_same_recordings,
    "label-conflict": plant_conflicts,
    "label-in-note": plant_label_words,
    "source-in-note": plant_source,
    "site": plant_site,
    "date": plant_date,
    "licence": plant_column("licence", lambda _, has: LICENCES[0] if has else LICENCES[1]),
    "source": plant_column("source_url", lambda i, has: f"{WEBSITES[0 if has else 1]}{i}"),
    "scanner": plant_scanner,
    "format": plant_format,
    "size": plant_size,
    "sampling-rate": plant_bandwidth,
    "marks": plant_marks,
    "border": plant_border,
    "background": plant_hum,
    "absence": plant_absence,
    "column": plant_marker,
}
"""How each kind of finding is planted."""

COUNTED = frozenset(
    {
        *("patient-in-splits", "duplicate-image", "duplicate-note", "duplicate-recording"),
        *("label-conflict", "column"),
    }
)
"""Kinds whose strength is a number of studies, or its own."""


def copy_image(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """Copy an image a little cropped, brightened, shrunk and compressed, as copies are."""
    rows, columns = image.shape
    cut = rng.uniform(0, 0.02, size=4)
    top, bottom, left, right = (int(share * min(rows, columns)) for share in cut)
    cropped = image[top : rows - bottom, left : columns - right]
    changed = np.clip(cropped ** rng.uniform(0.85, 1.2) * rng.uniform(0.85, 1.0), 0, 1)
    picture = Image.fromarray(np.round(255 * changed).astype(np.uint8))
    scale = rng.uniform(0.6, 1.0)
    size = (round(picture.width * scale), round(picture.height * scale))
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(
        file, "JPEG", quality=int(rng.integers(50, 95))
    )
    return file.getvalue()


def frame_image(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """Blacken 3 to 10 % of each side of an image, and keep it as PNG."""
    framed = image.copy()
    for k, share in enumerate(rng.uniform(*FRAMED, size=4).tolist()):
        turned = np.rot90(framed, k)  # a view, so the frame itself is blackened
        turned[: round(share * len(turned))] = 0
    file = io.BytesIO()
    Image.fromarray(np.round(255 * framed).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def narrow_band(waveform: np.ndarray) -> np.ndarray:
    """Resample to `NARROW_HZ` and back."""
    narrow = soxr.resample(waveform, SAMPLE_RATE, NARROW_HZ)
    return np.asarray(soxr.resample(narrow, NARROW_HZ, SAMPLE_RATE))


def _bare(made: SyntheticStudy) -> Study:
    """Give a study's files without its identifiers."""
    return replace(made.study, patient_id=None, study_uid=None)


def _make(drawn: Drawn, study: PoolStudy) -> Study:
    return _bare(make_study(drawn.options, study.index))


def _hear(study: Study, change: Callable[[np.ndarray], np.ndarray]) -> VoiceFacts:
    """Change a study's recording, write it as WAV, and read the facts of that."""
    assert study.voice is not None
    waveform = decode_voice(study.voice, PREPARE.limits).waveform
    file = io.BytesIO()
    changed = np.clip(change(waveform), -1, 1)
    soundfile.write(file, changed, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return read_voice_facts(file.getvalue(), PREPARE.voice, PREPARE.limits)


def _take(drawn: Drawn, plan: Plan, facts: Callable[[PoolStudy], StudyFacts]) -> Drawn:
    """Replace the facts of the studies that have the trait."""
    own = list(drawn.facts)
    for i in plan.draw(drawn):
        own[i] = facts(drawn.studies[i])
    return replace(drawn, facts=tuple(own))


def _change_images(drawn: Drawn, plan: Plan, change: Callable[[ImageFacts], ImageFacts]) -> Drawn:
    def changed(study: PoolStudy) -> StudyFacts:
        assert study.facts.image is not None
        return replace(study.facts, image=change(study.facts.image))

    return _take(drawn, plan, changed)


def _some_day(rng: np.random.Generator, *, first: bool) -> str:
    start = date(2024, 1, 1) if first else date(2024, 7, 1)
    return (start + timedelta(days=int(rng.integers(0, 181)))).isoformat()
