"""A predictor and a cohort's rows in; each study's answers, and what kind of study it is, out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from pydantic import JsonValue

from medfuse.config import Limits, Settings, Task, read_settings
from medfuse.data.cohort import CohortRow, CohortSettings, load_study
from medfuse.data.dicom import read_acquisition
from medfuse.data.picture import is_picture
from medfuse.data.prepare import collate
from medfuse.errors import InputError
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.descriptors import describe
from medfuse.types import MODALITIES, SUBSETS, Modality, Prepared, Study, subset_name
from medfuse_serving.predictor import Predictor


class Source(Settings):
    """The parts of a run's settings that say where its cohort is and what is asked of it.

    Attributes:
        cohort: How it is read.
        tasks: What is asked; empty where the file does not say.
        fit: How the run's model is fitted; None where the file is not of a run.
    """

    cohort: CohortSettings
    tasks: tuple[Task, ...] = ()
    fit: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class AskedStudy:
    """One study of a cohort, asked.

    Attributes:
        row: Which one.
        present: The modalities that could be read.
        logits: By subset's name, of the subsets it has; and as given.
        descriptions: By which novelty is told.
        view, scanner: Of its first image.
        image: Its first frames as the model reads them; kept of a few studies alone.
        note: Its note's text, likewise.
    """

    row: CohortRow
    present: frozenset[Modality]
    logits: dict[str, Float32[np.ndarray, " k"]]
    descriptions: dict[Modality, np.ndarray]
    view: str = ""
    scanner: str = ""
    image: np.ndarray | None = field(default=None, repr=False)
    note: str | None = field(default=None, repr=False)


def read_source(path: Path) -> Source:
    """Read how a cohort is read.

    Args:
        path: A CSV or Parquet table in medfuse's own layout, or a TOML file with a ``[cohort]``,
            such as the settings of the run that made the model.

    Raises:
        SettingsError: The TOML file cannot be used.
    """
    if path.suffix != ".toml":
        return Source(cohort=CohortSettings(table=path))
    return read_settings(path, Source, Source.model_fields)


def ask_studies(
    predictor: Predictor, rows: Sequence[CohortRow], *, every_subset: bool, keep_inputs: int = 0
) -> Iterator[AskedStudy | str]:
    """Ask about one study after another; of one that cannot be used, give the kind of error.

    Args:
        predictor: Of the bundle.
        rows: Which studies.
        every_subset: Ask also from every subset of what a study has, the rest taken away.
        keep_inputs: Of how many studies to keep what the model reads.

    Raises:
        BundleError: The graph failed.
    """
    kept = 0
    for row in rows:
        try:
            study = load_study(row)
            (prepared,) = predictor.prepare([study])
        except InputError as error:
            yield type(error).__name__
            continue
        subsets = [s for s in SUBSETS if s < prepared.present] if every_subset else []
        versions = [prepared, *(only(prepared, subset) for subset in subsets)]
        logits = predictor.run(collate(versions, predictor.bundle.manifest.prepare))
        names = [AS_GIVEN, *map(subset_name, subsets)]
        answers = dict(zip(names, logits, strict=True))
        answers[subset_name(prepared.present)] = answers[AS_GIVEN]
        view, scanner = _read_origin(study, predictor.bundle.manifest.prepare.limits)
        asked = AskedStudy(
            row, prepared.present, answers, describe(prepared), view=view, scanner=scanner
        )
        if kept < keep_inputs:
            kept += 1
            asked = replace(
                asked,
                image=None if prepared.image is None else prepared.image.values,
                note=None if prepared.note is None else prepared.note.text,
            )
        yield asked


def only(prepared: Prepared, subset: frozenset[Modality]) -> Prepared:
    """Take modalities away from a prepared study, as if it had never had them."""
    return Prepared(
        image=prepared.image if Modality.IMAGE in subset else None,
        note=prepared.note if Modality.NOTE in subset else None,
        voice=prepared.voice if Modality.VOICE in subset else None,
    )


def gather_answers(asked: Sequence[AskedStudy]) -> Answers:
    """Put studies' raw answers together; NaN where a study lacks a subset."""
    width = len(next(iter(asked[0].logits.values())))
    nothing = np.full(width, np.nan)
    names = [AS_GIVEN, *(n for n in map(subset_name, SUBSETS) if any(n in a.logits for a in asked))]
    return Answers(
        rows=tuple(a.row for a in asked),
        present=np.array([[m in a.present for m in MODALITIES] for a in asked]),
        logits={
            n: np.stack([a.logits.get(n, nothing) for a in asked]).astype(np.float64) for n in names
        },
    )


def _read_origin(study: Study, limits: Limits) -> tuple[str, str]:
    """Give the view and the scanner of the first image; empty of a picture, and without any."""
    if not study.images or is_picture(study.images[0]):
        return "", ""
    found = read_acquisition(study.images[0], limits)
    return found.view, found.scanner
