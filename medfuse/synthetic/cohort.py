"""Options in; a folder of studies as files, their table, their truth and the Bayes areas out."""

import csv
import io
import json
import logging
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from medfuse.data.sentences import SENTENCE_COLUMNS
from medfuse.errors import CohortError
from medfuse.synthetic.findings import write_findings
from medfuse.synthetic.network import cohort_auc
from medfuse.synthetic.options import SUMMARY, TRUTH, CohortOptions
from medfuse.synthetic.study import SyntheticStudy, make_study
from medfuse.synthetic.world import FINDINGS, TARGETS, TASKS, build_world
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name

COLUMNS = (
    *("patient_id", "study_id", "images", "note", "voice"),
    *TARGETS,
    *("sex", "age", "site", "date", "split"),
)
"""The columns of ``cohort.csv``."""

SENTENCES = "sentences.csv"

_OWN = (SUMMARY, "cohort.csv", SENTENCES, TRUTH, "studies", "truth")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BayesAreas:
    """The ROC areas that no reader can beat, on average or on the studies at hand.

    Attributes:
        studies: How many they are over; None for the whole population.
        subsets: From each subset's signs, in the order of `SUBSETS` and `TARGETS`; NaN where all
            studies have one label.
        delivered: From what each study delivers, its shortcuts and gaps included.
    """

    studies: int | None
    subsets: Float64[np.ndarray, "7 k"]
    delivered: Float64[np.ndarray, " k"]


@dataclass(frozen=True, slots=True)
class CohortSummary:
    """What was written.

    Attributes:
        options: What it was made from.
        prevalence: Of each target, in the order of `TARGETS`.
        missing: The share of studies that lack each of `MODALITIES`: of all that could have been
            drawn, of those that were, and of the test split (NaN when it is empty).
        population: The Bayes areas of all studies that could have been drawn, exactly.
        drawn: Those of the studies that were.
        test: Those of the test split.
    """

    options: CohortOptions
    prevalence: Float64[np.ndarray, " k"]
    missing: Float64[np.ndarray, "3 m"]
    population: BayesAreas
    drawn: BayesAreas
    test: BayesAreas


@dataclass(frozen=True, slots=True)
class _Written:
    """What one worker reports of one study."""

    row: tuple[str, ...]
    truth: str
    sentences: tuple[tuple[str, ...], ...]
    labels: Bool[np.ndarray, " k"]
    missing: Bool[np.ndarray, " m"]
    posterior: Float64[np.ndarray, "7 k"]
    delivered: Float64[np.ndarray, " k"]
    split: str


def write_cohort(
    folder: Path,
    options: CohortOptions,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> CohortSummary:
    """Write a cohort; the same options give the same bytes, however many workers there are.

    Args:
        folder: New or empty, or a cohort, which is replaced.
        options: What to make.
        progress: Called with the number of studies written so far.
        workers: Processes; as many as there are cores by default.

    Raises:
        CohortError: The folder holds something else, or the shortcuts do not fit the findings.
    """
    world = build_world(options)
    population = BayesAreas(None, world.clinical_auc(), world.delivered_auc())
    _clear(folder)
    # Written before anything else: an interrupted run leaves a folder that can be replaced.
    _write_json(folder / SUMMARY, {"complete": False, "options": options.model_dump(mode="json")})

    written: list[_Written] = []
    with (
        (folder / "cohort.csv").open("w", encoding="utf-8", newline="") as table,
        (folder / TRUTH).open("w", encoding="utf-8", newline="\n") as truths,
        (folder / SENTENCES).open("w", encoding="utf-8", newline="") as texts,
    ):
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(COLUMNS)
        sentences = csv.writer(texts, lineterminator="\n")
        sentences.writerow(SENTENCE_COLUMNS)
        for study in _write_studies(folder, options, workers or _count_cores()):
            rows.writerow(study.row)
            truths.write(study.truth + "\n")
            sentences.writerows(study.sentences)
            written.append(study)
            if progress is not None:
                progress(len(written))

    test = [study for study in written if study.split == "test"]
    summary = CohortSummary(
        options,
        prevalence=np.mean([study.labels for study in written], axis=0),
        missing=np.stack([world.absence(), _share_missing(written), _share_missing(test)]),
        population=population,
        drawn=_measure(written),
        test=_measure(test),
    )
    _write_json(folder / SUMMARY, describe_summary(summary))
    _LOG.info("wrote %s studies", len(written))
    return summary


def describe_summary(summary: CohortSummary) -> dict[str, object]:
    """Lay a summary out as ``cohort.json`` holds it; an area that does not exist is null."""
    return {
        "complete": True,
        "options": summary.options.model_dump(mode="json"),
        "tasks": {task.name: list(task.classes) for task in TASKS},
        "prevalence": by_target(summary.prevalence),
        "missing": {
            name: _by_modality(row)
            for name, row in zip(("population", "drawn", "test"), summary.missing, strict=True)
        },
        "bayes_auc": {
            name: {
                "studies": areas.studies,
                "subsets": {
                    subset_name(subset): by_target(row)
                    for subset, row in zip(SUBSETS, areas.subsets, strict=True)
                },
                "delivered": by_target(areas.delivered),
            }
            for name, areas in (
                ("population", summary.population),
                ("drawn", summary.drawn),
                ("test", summary.test),
            )
        },
    }


def _clear(folder: Path) -> None:
    """Make the folder, or empty it if it is a cohort.

    Raises:
        CohortError: It is something else.
    """
    if folder.is_file():
        raise CohortError(f"{folder}: is a file; expected a folder for the cohort")
    folder.mkdir(parents=True, exist_ok=True)
    held = {path.name for path in folder.iterdir()}
    if held and not (SUMMARY in held and held <= set(_OWN)):
        raise CohortError(
            f"{folder}: holds something that is not a cohort; choose a new or an empty folder"
        )
    for name in held - {SUMMARY}:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "studies").mkdir()
    (folder / "truth").mkdir()


def _write_studies(folder: Path, options: CohortOptions, workers: int) -> Iterator[_Written]:
    """Write every study, in order, in this process or in several."""
    write = partial(_write_study, folder, options)
    workers = min(workers, math.ceil(options.studies / 16))
    if workers == 1:
        yield from map(write, range(options.studies))
        return
    # Spawned, since a forked process inherits the locks of libraries' threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        yield from pool.map(write, range(options.studies), chunksize=8)


def _write_study(folder: Path, options: CohortOptions, index: int) -> _Written:
    """Make one study and write its files."""
    made = make_study(options, index)
    place = folder / "studies" / made.study_id
    place.mkdir()
    files: dict[str, bytes] = {f"image_{i}.dcm": image for i, image in enumerate(made.study.images)}
    images = [f"studies/{made.study_id}/{name}" for name in files]
    note = voice = ""
    if made.study.note is not None:
        files["note.txt"] = made.study.note
        note = f"studies/{made.study_id}/note.txt"
    if made.study.voice is not None:
        files["voice.wav"] = made.study.voice
        voice = f"studies/{made.study_id}/voice.wav"
    for name, content in files.items():
        (place / name).write_bytes(content)
    masks = {f"{e.sign}/{e.instance}": e.mask for e in made.truth.image}
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **masks)
    (folder / "truth" / f"{made.study_id}.npz").write_bytes(packed.getvalue())
    row = (
        *(made.patient.patient_id, made.study_id, ";".join(images), note, voice),
        *(str(int(label)) for label in made.truth.labels),
        *(made.patient.sex, str(made.age), made.patient.site, made.day.isoformat()),
        made.patient.split,
    )
    truth = made.truth
    line = json.dumps(_describe_truth(made))
    sentences = tuple(
        (made.study_id, each.finding, subset_name(each.modalities), each.text)
        for each in write_findings(options, index, truth)
    )
    missing = np.array([m not in truth.present for m in MODALITIES])
    return _Written(
        row,
        line,
        sentences,
        truth.labels,
        missing,
        truth.posterior,
        truth.delivered,
        made.patient.split,
    )


def _describe_truth(made: SyntheticStudy) -> dict[str, object]:
    """Lay a study's truth out as its line of ``truth.jsonl``; the masks are elsewhere."""
    truth = made.truth
    return {
        "study_id": made.study_id,
        "labels": {name: int(label) for name, label in zip(TARGETS, truth.labels, strict=True)},
        "signs": sorted(truth.signs),
        "shortcuts": _in_order(truth.shortcuts),
        "present": _in_order(truth.present),
        "posterior": {
            subset_name(subset): dict(zip(TARGETS, row.tolist(), strict=True))
            for subset, row in zip(SUBSETS, truth.posterior, strict=True)
        },
        "delivered": dict(zip(TARGETS, truth.delivered.tolist(), strict=True)),
        "image": [
            {"sign": e.sign, "instance": e.instance, "pixels": int(e.mask.sum())}
            for e in truth.image
        ],
        "note": [{"sign": e.sign, "start": e.start, "end": e.end} for e in truth.note],
        "voice": [
            {
                "sign": e.sign,
                "start_s": e.start_s,
                "end_s": e.end_s,
                "low_hz": e.low_hz,
                "high_hz": e.high_hz,
            }
            for e in truth.voice
        ],
    }


def _in_order(modalities: frozenset[Modality]) -> list[str]:
    return [m.value for m in MODALITIES if m in modalities]


def _share_missing(written: list[_Written]) -> Float64[np.ndarray, " m"]:
    if not written:
        return np.full(len(MODALITIES), np.nan)
    return np.asarray(np.mean([study.missing for study in written], axis=0))


def _measure(written: list[_Written]) -> BayesAreas:
    """Measure the Bayes areas on studies that were drawn."""
    k = len(TARGETS)
    labels = np.array([study.labels for study in written], dtype=bool).reshape(-1, k)
    posterior = np.array([study.posterior for study in written]).reshape(-1, len(SUBSETS), k)
    delivered = np.array([study.delivered for study in written]).reshape(-1, k)
    return BayesAreas(
        len(written),
        np.stack([cohort_auc(posterior[:, i], labels) for i in range(len(SUBSETS))]),
        cohort_auc(delivered, labels),
    )


def by_target(values: Float64[np.ndarray, " k"]) -> dict[str, float | None]:
    """Name the values, with the mean over the findings as ``macro``; None for what is undefined."""
    macro = float(values[: len(FINDINGS)].mean())
    named = dict(zip(TARGETS, values.tolist(), strict=True)) | {"macro": macro}
    return {name: None if math.isnan(value) else value for name, value in named.items()}


def _by_modality(shares: Float64[np.ndarray, " m"]) -> dict[str, float | None]:
    """Name the shares, with that of all modalities of all studies as ``all``."""
    named = {m.value: float(share) for m, share in zip(MODALITIES, shares, strict=True)}
    named["all"] = float(shares.mean())
    return {name: None if math.isnan(value) else value for name, value in named.items()}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _count_cores() -> int:
    """The cores this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
