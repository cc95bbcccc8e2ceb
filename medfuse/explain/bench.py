"""A bundle and its checkpoint in; how fast each explains the same studies, side by side, out."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.integrated_gradients import integrated_gradients
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject, take_up
from medfuse.attribution.target import Target, parse_target
from medfuse.bundle import open_bundle
from medfuse.config import Settings
from medfuse.data.prepare import prepare
from medfuse.errors import BundleError
from medfuse.explain.integrated_gradients import INTERNAL_BATCH_SIZE
from medfuse.explain.integrated_gradients import integrated_gradients as by_captum
from medfuse.memory import measure_growth
from medfuse.models.fused import FusedModel
from medfuse.runtime import ROWS, OnnxNetwork, open_network, usable_cores
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse.training.checkpoint import Checkpoint, load_checkpoint

UNSEEN = 1_000_000
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Points in one of Captum's passes, of which the fastest is reported beside the default."""

ROUNDS = 3


class BenchRow(Settings):
    """One contender.

    Attributes:
        name: What explained.
        rows: Points of the integral in one pass (of one core, for the bundle).
        seconds: For one study, the median over studies and rounds.
        peak_mib: Most memory that explaining one study takes, beyond what was loaded before.
    """

    name: str
    rows: int
    seconds: float
    peak_mib: float | None


class BenchReport(Settings):
    """All contenders on the same studies; the bundle comes first."""

    steps: int
    studies: int
    threads: int
    rows: tuple[BenchRow, ...]


def bench_explain(
    bundle: Path, checkpoint: Path, studies: int, steps: int, progress: Callable[[float], None]
) -> BenchReport:
    """Time integrated gradients of all three modalities, the contenders taking turns.

    Raises:
        BundleError: The bundle cannot be opened, has no explanations, or is of another checkpoint.
        TrainingError: The checkpoint cannot be loaded.
    """
    network, loaded, work = _open(bundle, checkpoint, studies, steps)
    torch.set_num_threads(usable_cores())
    settings = AttributionSettings(steps=steps, most_steps=steps)
    ours = partial(integrated_gradients, network, settings=settings)
    captum = {
        size: partial(by_captum, loaded.model, settings=settings, internal_batch_size=size)
        for size in BATCH_SIZES
    }
    subject, baseline, target = work[0]
    done, total = 0, 2 * len(BATCH_SIZES) + 1 + 3 * ROUNDS * studies + 2

    def time_one(explain: Callable[..., object], case: tuple[Subject, Baseline, Target]) -> float:
        nonlocal done
        started = time.perf_counter()
        explain(subject=case[0], baseline=case[1], target=case[2])
        done += 1
        progress(done / total)
        return time.perf_counter() - started

    time_one(ours, work[0])  # loads the graph
    case = (subject, baseline, target)
    # The first pass of a size is slower than the next ones, so the better of two counts.
    tried = {n: min(time_one(captum[n], case), time_one(captum[n], case)) for n in BATCH_SIZES}
    best = min(tried, key=tried.__getitem__)
    contenders = {"ours": ours, "default": captum[INTERNAL_BATCH_SIZE], "best": captum[best]}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for case in work:
            for name, explain in contenders.items():
                seconds[name].append(time_one(explain, case))
    peaks = []
    for side in ("bundle", "captum"):
        peaks.append(_measure_peak(side, bundle, checkpoint, steps))
        done += 1
        progress(done / total)
    named = (
        ("this bundle", "ours", ROWS["cpu"], peaks[0]),
        ("Captum, default", "default", INTERNAL_BATCH_SIZE, peaks[1]),
        ("Captum, fastest", "best", best, None),
    )
    return BenchReport(
        steps=steps,
        studies=studies,
        threads=usable_cores(),
        rows=tuple(
            BenchRow(name=n, rows=rows, seconds=statistics.median(seconds[key]), peak_mib=peak)
            for n, key, rows, peak in named
        ),
    )


def _open(
    bundle: Path, checkpoint: Path, studies: int, steps: int
) -> tuple[OnnxNetwork, Checkpoint, list[tuple[Subject, Baseline, Target]]]:
    opened, loaded = open_bundle(bundle), load_checkpoint(checkpoint)
    if opened.manifest.checkpoint != loaded.digest:
        raise BundleError(f"{bundle}: exported from another checkpoint than {checkpoint}")
    network = open_network(opened, "cpu")
    work = []
    for number in range(UNSEEN, UNSEEN + studies):
        study = make_study(CohortOptions(), number).study
        prepared = prepare(study, loaded.prepare, loaded.tokenizer)
        subject = take_up(network, prepared, loaded.prepare)
        baseline = make_baseline(None, subject, network, loaded.tokenizer, loaded.background, ())
        name = network.targets[number % len(network.targets)]
        work.append((subject, baseline, parse_target(name, network.targets)))
    return network, loaded, work


def _measure_peak(side: str, bundle: Path, checkpoint: Path, steps: int) -> float:
    """Explain one study in a process of its own and give the most memory it had, in MiB."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_run_alone, side, bundle, checkpoint, steps).result()


def _run_alone(side: str, bundle: Path, checkpoint: Path, steps: int) -> float:
    network, loaded, ((subject, baseline, target),) = _open(bundle, checkpoint, 1, steps)
    settings = AttributionSettings(steps=steps, most_steps=steps)
    model: FusedModel = loaded.model
    explain: Callable[[], object]
    if side == "bundle":
        explain = partial(integrated_gradients, network, subject, baseline, target, settings)
    else:
        explain = partial(by_captum, model, subject, baseline, target, settings)
    return measure_growth(explain)  # what loading both sides took is not the explaining's
