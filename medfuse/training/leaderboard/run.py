"""The leaderboard's run: settings and contenders in; figures, tables, plots in one folder out."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue, ValidationError
from rich.console import Console
from torch import nn

from medfuse.config import Settings
from medfuse.data.cohort import Cohort, Split
from medfuse.data.splits import fold_cohort
from medfuse.errors import SettingsError
from medfuse.training.check import check_each
from medfuse.training.checkpoint import library_versions
from medfuse.training.features import Features
from medfuse.training.fit import ask_fitted, choose_device, find_split, fit_model
from medfuse.training.gather import describe_features, gather, thin
from medfuse.training.leaderboard.kept import Cost, Kept, load_kept, save_kept
from medfuse.training.leaderboard.measure import measure_board
from medfuse.training.leaderboard.plot import plot_by_subset, plot_leaderboard
from medfuse.training.leaderboard.report import Leaderboard, format_leaderboard
from medfuse.training.processes import require_one
from medfuse.training.settings import TrainSettings

RECORD = "leaderboard.json"
TABLE = "leaderboard.md"


class BoardOptions(Settings):
    """What is compared, and how often.

    Attributes:
        contenders: By name, what of the settings is otherwise; each is fitted ``repeats * folds``
            times.
        baseline: The one of them that all others are compared with, beside the best.
    """

    contenders: dict[str, dict[str, JsonValue]]
    baseline: str
    repeats: int
    folds: int


def run_leaderboard(
    settings: TrainSettings, options: BoardOptions, out: Path, console: Console | None = None
) -> Leaderboard:
    """Cross-validate every contender on the same folds, measure and compare them.

    A fit that is kept in ``out`` from before, of the same settings and studies, is used again.
    Test studies of the table's own split are held back, for the one that is chosen.

    Args:
        settings: The whole run; each contender changes some of it.
        options: What to compare.
        out: Gets ``leaderboard.json``, ``leaderboard.md``, two plots, and ``fits/``.
        console: Where progress is shown; nowhere without one.

    Raises:
        CohortError: The table cannot be used, has too few patients, or gives labels away to any
            contender.
        SettingsError: A contender's settings are not valid, or the model's weights are missing.
        TrainingError: Several processes are asked for, or a study or a kept fit cannot be used.
    """
    contenders = {name: vary(settings, name, own) for name, own in options.contenders.items()}
    if options.baseline not in contenders:
        raise SettingsError(f"the baseline {options.baseline} is not among those compared")
    for own in contenders.values():
        require_one(own.fit)
    leaks = check_each(contenders, out, console)
    device = choose_device(settings)
    gathered: dict[str, tuple[Cohort, Features]] = {}
    known: dict[str, tuple[Cohort, Features]] = {}
    for name, own in contenders.items():
        described = describe_features(own)
        if described not in known:
            known[described] = gather(own, out, device, console, hold_back_test=True)
        gathered[name] = known[described]
    cohort, features = gathered[options.baseline]
    if any(other.digest != cohort.digest for other, _ in gathered.values()):
        raise SettingsError("the contenders' settings leave out different studies; compare by one")
    cohort = replace(cohort, rows=tuple(replace(row, split=None) for row in cohort.rows))
    fitter = _Fitter(out / "fits", device, console)
    fits: dict[str, list[list[Kept]]] = {name: [] for name in contenders}
    done, total = 0, len(contenders) * options.repeats * options.folds
    # Repeats outside, so that a run stopped early has every contender equally often.
    for repeat in range(options.repeats):
        split = settings.split.model_copy(
            update={"folds": options.folds, "seed": settings.split.seed + repeat}
        )
        folds = fold_cohort(cohort, split)
        for name, own in contenders.items():
            seeded = own.model_copy(
                update={"fit": own.fit.model_copy(update={"seed": own.fit.seed + repeat})}
            )
            fits[name].append([])
            for fold, part in enumerate(folds):
                done += 1
                where = f"{name}, repeat {repeat + 1}, fold {fold + 1} ({done} of {total})"
                kept = fitter.fit(name, seeded, part, gathered[name][1], where)
                fits[name][repeat].append(kept)
    if console is not None:
        console.print("Comparing")
    board = measure_board(settings, cohort, fits, options.baseline, features.left_out)
    board = board.model_copy(update={"leaks": leaks})
    plot_leaderboard(out / "leaderboard.png", board)
    plot_by_subset(out / "subsets.png", board)
    (out / TABLE).write_text(format_leaderboard(board), encoding="utf-8")
    (out / RECORD).write_text(board.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return board


def vary(settings: TrainSettings, name: str, changes: Mapping[str, object]) -> TrainSettings:
    """Change some of a run's settings.

    Args:
        settings: The run's.
        name: Of the contender, for the message.
        changes: Tables within tables, as in the settings' file; what they do not name stays.

    Raises:
        SettingsError: They are not settings, or what comes of them is not valid.
    """
    whole = _merge(settings.model_dump(exclude_unset=True), changes)
    try:
        return TrainSettings.model_validate(whole)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{name}: {where}: {first['msg']}") from error


def _merge(settings: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    merged = dict(settings)
    for key, value in changes.items():
        own = merged.get(key)
        both = isinstance(own, dict) and isinstance(value, dict)
        merged[key] = _merge(own, value) if both else value  # type: ignore[arg-type]
    return merged


@dataclass(frozen=True, slots=True)
class _Fitter:
    """Fits one contender on one fold, or finds that it was fitted before."""

    folder: Path
    device: torch.device
    console: Console | None

    def fit(
        self, name: str, settings: TrainSettings, cohort: Cohort, features: Features, where: str
    ) -> Kept:
        """Give the answers to the fold's test studies."""
        folder = self.folder / f"{name}-{_sign(settings, cohort, features)[:16]}"
        path = folder / "answers.safetensors"
        if path.is_file():
            return load_kept(path)
        if self.console is not None:
            self.console.print(where, highlight=False)
        started = time.monotonic()
        cohort, features = thin(settings, cohort, features)
        fitted = fit_model(settings, cohort, features, folder, self.device, self.console)
        seconds = time.monotonic() - started
        answers = ask_fitted(settings, fitted, cohort, features, Split.TEST)
        kept = Kept(
            studies=np.array(find_split(cohort, Split.TEST), dtype=np.int64),
            train=len(cohort.part(Split.TRAIN)),
            present=answers.present,
            logits=answers.logits,
            cost=Cost(
                seconds=round(seconds, 2),
                epochs=len(fitted.history.train),
                parameters=_count(fitted.model),
                fusion_parameters=_count(fitted.model.fusion),
            ),
        )
        save_kept(path, kept)
        shutil.rmtree(folder / "resume")
        return kept


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _sign(settings: TrainSettings, cohort: Cohort, features: Features) -> str:
    """Hash all that a fit's answers depend on."""
    aside = {"cohort", "split", "features", "report"}
    said = {
        "settings": settings.model_dump(mode="json", exclude=aside),
        "dtype": settings.features.dtype,
        "cohort": cohort.digest,
        "features": features.digest,
        "versions": library_versions(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
