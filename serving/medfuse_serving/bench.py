"""A bundle in; how soon a large film is answered, shown and explained out, without torch."""

import io
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom

from medfuse.attribution.settings import AttributionSettings
from medfuse.config import Settings
from medfuse.runtime import usable_cores
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.types import Study
from medfuse_serving.answer import to_answer, to_json
from medfuse_serving.explainer import Explained, Explainer, Glance
from medfuse_serving.explanation_view import make_view, shelve_glance, shelve_maps
from medfuse_serving.language import ENGLISH
from medfuse_serving.predictor import Predictor
from medfuse_serving.shelves import Shelves
from medfuse_serving.viewer import shelve_frames

UNSEEN = 1_000_000
"""Number of the first synthetic study; no cohort has it."""


class ServeRow(Settings):
    """How long one thing takes."""

    what: str
    median_s: float
    worst_s: float
    rounds: int


class ServeReport(Settings):
    """What `medfuse bench-serve` measured."""

    model_digest: str
    threads: int
    rows: int
    columns: int
    measured: tuple[ServeRow, ...]


def measure_serving(
    bundle: Path, side: int, rounds: int, progress: Callable[[int, int], None]
) -> ServeReport:
    """Time what a clinician waits for, on films of about a side, each time from the file's bytes.

    Raises:
        BundleError: The bundle cannot be opened, or explains nothing.
    """
    predictor = Predictor(bundle)
    explainer = Explainer(predictor)
    made = (make_study(CohortOptions(), UNSEEN + i).study for i in range(min(rounds, 4)))
    studies = [enlarge(study, side) for study in made]
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, seconds in _time_round(explainer, studies[number % len(studies)]):
            if number:  # the first round opens the graphs
                times.setdefault(name, []).append(seconds)
        progress(number + 1, rounds + 1)
    return ServeReport(
        model_digest=predictor.bundle.digest,
        threads=usable_cores(),
        rows=side,
        columns=side,
        measured=tuple(
            ServeRow(what=name, median_s=statistics.median(t), worst_s=max(t), rounds=len(t))
            for name, t in times.items()
        ),
    )


def _time_round(explainer: Explainer, study: Study) -> Iterator[tuple[str, float]]:
    predictor, shelves = explainer.predictor, Shelves()
    settings = predictor.bundle.manifest.prepare
    started = time.perf_counter()
    (prediction,) = predictor.predict([study])
    to_json(to_answer(prediction))
    yield "answer", time.perf_counter() - started

    started = time.perf_counter()
    frames = shelve_frames(ENGLISH, study.images, settings, shelves)
    frames.shelf.make(0)
    yield "first frame for the viewer", time.perf_counter() - started

    started = time.perf_counter()
    steps = explainer.follow(study, explainer.targets[0], AttributionSettings())
    for step in steps:
        if isinstance(step, Glance):
            shelve_glance(ENGLISH, step, explainer.scales, settings, shelves).make(0)
            yield "first coarse map", time.perf_counter() - started
        elif isinstance(step, Explained):
            view = make_view(step, settings, explainer.scales)
            if view.values:
                shelve_maps(ENGLISH, view, shelves).make(0)
            yield "whole explanation with its checks", time.perf_counter() - started


def enlarge(study: Study, side: int) -> Study:
    """Keep a study's first film, each of its pixels repeated and the rest cut off."""
    ds = pydicom.dcmread(io.BytesIO(study.images[0]))
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        ds.decompress()
    pixels = ds.pixel_array
    times = -(-side // min(pixels.shape))
    large = pixels.repeat(times, axis=0).repeat(times, axis=1)[:side, :side]
    ds.Rows = ds.Columns = side
    ds.PixelData = np.ascontiguousarray(large).tobytes()
    film = io.BytesIO()
    ds.save_as(film, enforce_file_format=True)
    return Study(images=(film.getvalue(),), note=study.note, voice=study.voice)
