"""A cohort in; how fast training is, beside a plain loop over the same arrays in memory, out.

Both train the same network on the same batches with the same loss and optimiser, and take turns in
one process, so that whatever else the machine does slows both.
"""

import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from medfuse.config import Settings
from medfuse.data.cohort import Split
from medfuse.data.splits import split_cohort
from medfuse.errors import TrainingError
from medfuse.memory import measure_growth
from medfuse.training.dataset import Collator, Example, FeatureBatch, FeatureDataset
from medfuse.training.fit import Parts, assemble, choose_device, quiet_lightning
from medfuse.training.gather import gather, thin
from medfuse.training.processes import name_accelerator, require_one
from medfuse.training.settings import TrainSettings
from medfuse.types import MODALITIES, Modality

Side = Literal["medfuse", "plain"]
SIDES: tuple[Side, ...] = ("medfuse", "plain")

WARMUP = 3
"""Steps of each side that are not counted."""


class TrainBenchRow(Settings):
    """One side.

    Attributes:
        name: What trained.
        studies_per_s: In the median round.
        step_ms: One step, likewise.
        waiting: Share of a step in which the network had no batch yet, likewise.
        peak_mib: Most memory that training took in a process of its own, beyond what was loaded
            before; pages of the mapped cache count, which the system takes back when it needs them.
    """

    name: Side
    studies_per_s: float
    step_ms: float
    waiting: float
    peak_mib: float


class TrainBenchReport(Settings):
    """Both sides.

    Attributes:
        ratio: Studies per second of medfuse divided by the plain loop's, the median of the rounds.
    """

    batch_size: int
    steps: int
    rounds: int
    threads: int
    device: str
    ratio: float
    rows: tuple[TrainBenchRow, ...]


@dataclass(frozen=True, slots=True)
class _Round:
    """What one round took."""

    studies: int
    steps: int
    seconds: float
    waiting_s: float


def bench_training(
    settings: TrainSettings,
    features: Path,
    steps: int,
    rounds: int,
    progress: Callable[[float], None],
) -> TrainBenchReport:
    """Time training steps on a cohort, the two sides taking turns.

    Args:
        settings: The run.
        features: The cache, where the settings name none.
        steps: Of each side in a round.
        rounds: How often.
        progress: Told the share that is done.

    Raises:
        CohortError: The table cannot be used.
        TrainingError: There are fewer batches than `steps`, or a study cannot be used.
    """
    require_one(settings.fit)
    settings = _settle(settings, features)
    device = choose_device(settings)
    parts = _assemble(settings)
    loader = parts.loaders[Split.TRAIN]
    if len(loader) < steps:
        raise TrainingError(f"an epoch has {len(loader)} batches; measure at most so many steps")
    done, total = 0, 2 + 2 * rounds + 2

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done / total)

    found: dict[Side, list[_Round]] = {side: [] for side in SIDES}
    for counted in [False] + [True] * rounds:
        for side in SIDES:
            took = RUNS[side](settings, parts, steps if counted else WARMUP, device)
            if counted:
                found[side].append(took)
            tick()
    peaks = {}
    for side in SIDES:
        peaks[side] = _measure_peak(settings, side, steps)
        tick()
    ratios = [
        (ours.studies / ours.seconds) / (plain.studies / plain.seconds)
        for ours, plain in zip(found["medfuse"], found["plain"], strict=True)
    ]
    return TrainBenchReport(
        batch_size=settings.fit.batch_size,
        steps=steps,
        rounds=rounds,
        threads=torch.get_num_threads(),
        device=str(device),
        ratio=statistics.median(ratios),
        rows=tuple(
            TrainBenchRow(
                name=side,
                studies_per_s=statistics.median(r.studies / r.seconds for r in found[side]),
                step_ms=statistics.median(1000 * r.seconds / r.steps for r in found[side]),
                waiting=statistics.median(r.waiting_s / r.seconds for r in found[side]),
                peak_mib=peaks[side],
            )
            for side in SIDES
        ),
    )


def _settle(settings: TrainSettings, features: Path) -> TrainSettings:
    """Name the cache, so that a process of its own finds it too."""
    cache = settings.features.cache or features
    own = settings.features.model_copy(update={"cache": cache})
    return settings.model_copy(update={"features": own})


def _assemble(settings: TrainSettings) -> Parts:
    cohort, features = gather(settings, Path(), choose_device(settings), None)
    return assemble(settings, *thin(settings, split_cohort(cohort, settings.split), features))


class _Timed:
    """Gives a loader's batches and notes how long each was waited for, and how many studies."""

    def __init__(self, loader: DataLoader[Example], steps: int) -> None:
        self.batch_sampler = loader.batch_sampler  # Lightning tells it the epoch
        self.loader, self.steps = loader, steps
        self.waiting_s, self.studies = 0.0, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[FeatureBatch]:
        batches = iter(self.loader)
        for _ in range(self.steps):
            started = time.perf_counter()
            batch: FeatureBatch = next(batches)
            self.waiting_s += time.perf_counter() - started
            self.studies += len(batch.labels)
            yield batch


class _Clock(lightning.Callback):
    """Times the epoch, from before its first batch is asked for to after its last step."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, *rest: object) -> None:
        """Start."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *rest: object) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self._started


def _run_medfuse(settings: TrainSettings, parts: Parts, steps: int, device: torch.device) -> _Round:
    """Train as ``medfuse train`` does, for part of an epoch."""
    clock, timed = _Clock(), _Timed(parts.loaders[Split.TRAIN], steps)
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=name_accelerator(device),
            devices=1,
            max_epochs=1,
            gradient_clip_val=settings.fit.gradient_clip,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
        trainer.fit(copy.deepcopy(parts.module), timed)
    return _Round(timed.studies, steps, clock.seconds, timed.waiting_s)


def _run_plain(settings: TrainSettings, parts: Parts, steps: int, device: torch.device) -> _Round:
    """Train by a loop that anyone would write, over arrays that lie in memory."""
    dataset, padding = _load(parts.loaders[Split.TRAIN])
    batches = list(islice(parts.loaders[Split.TRAIN].batch_sampler or (), steps))
    module = copy.deepcopy(parts.module).to(device).train()
    module.log = lambda *arguments, **options: None  # type: ignore[method-assign]
    plan = module.configure_optimizers()
    optimizer, scheduler = plan["optimizer"], plan["lr_scheduler"]["scheduler"]  # type: ignore[index]
    waiting_s, studies = 0.0, 0
    started = time.perf_counter()
    for step, chosen in enumerate(batches):
        asked = time.perf_counter()
        batch = _stack([dataset[i] for i in chosen], padding)
        waiting_s += time.perf_counter() - asked
        studies += len(batch.labels)
        loss = module.training_step(batch.to(device), step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), settings.fit.gradient_clip)
        optimizer.step()
        scheduler.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return _Round(studies, steps, time.perf_counter() - started, waiting_s)


RUNS: Mapping[Side, Callable[[TrainSettings, Parts, int, torch.device], _Round]] = {
    "medfuse": _run_medfuse,
    "plain": _run_plain,
}


def _load(
    loader: DataLoader[Example],
) -> tuple[Sequence[tuple[dict[Modality, Tensor], Tensor]], Mapping[Modality, np.ndarray]]:
    """Read all arrays into memory, as tensors by modality and the labels."""
    dataset = loader.dataset
    assert isinstance(dataset, FeatureDataset)
    studies = []
    for i in range(len(dataset)):
        example = dataset[i]
        own = {m: torch.tensor(a) for m, a in example.features.items() if a is not None}
        studies.append((own, torch.tensor(example.labels, dtype=torch.float32)))
    collator = loader.collate_fn
    assert isinstance(collator, Collator)
    return studies, collator.padding


def _stack(
    studies: Sequence[tuple[dict[Modality, Tensor], Tensor]], padding: Mapping[Modality, np.ndarray]
) -> FeatureBatch:
    """Pad studies to one batch."""
    values, masks = {}, {}
    for m in MODALITIES:
        blank = torch.from_numpy(padding[m])
        rows = [own[m].to(blank.dtype) if m in own else blank[:0] for own, _ in studies]
        stacked = pad_sequence([*rows, blank], batch_first=True)[:-1]
        lengths = torch.tensor([len(row) for row in rows])
        values[m] = stacked
        masks[m] = torch.arange(stacked.shape[1]) < lengths[:, None]
    return FeatureBatch(values, masks, torch.stack([labels for _, labels in studies]))


def _measure_peak(settings: TrainSettings, side: Side, steps: int) -> float:
    """Train in a process of its own and give the most memory that it took, in MiB."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_run_alone, settings, side, steps).result()


def _run_alone(settings: TrainSettings, side: Side, steps: int) -> float:
    parts = _assemble(settings)
    device = choose_device(settings)
    return measure_growth(lambda: RUNS[side](settings, parts, steps, device))
