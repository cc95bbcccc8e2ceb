"""The search's run: settings with a section ``[search]`` in; the best of them, in a folder, out."""

import math
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from medfuse.data.cohort import Cohort, Split
from medfuse.data.splits import split_cohort
from medfuse.errors import MedfuseError, SettingsError, TrainingError
from medfuse.leaks.report import LeakRecord
from medfuse.training.check import check_each
from medfuse.training.features import Features
from medfuse.training.fit import ask_module, choose_device, fit_model
from medfuse.training.gather import describe_features, gather, thin
from medfuse.training.loop import TrainingModule
from medfuse.training.processes import require_one
from medfuse.training.search.plot import plot_search
from medfuse.training.search.report import (
    SearchReport,
    State,
    TrialRecord,
    format_search,
    write_toml,
)
from medfuse.training.search.settings import SearchSettings
from medfuse.training.search.space import check_space, list_preparations, put, suggest
from medfuse.training.search.watch import EpochReporter
from medfuse.training.settings import TrainSettings
from medfuse.trust.answers import AS_GIVEN, Answers
from medfuse.trust.measure import score
from medfuse.trust.metrics import headline

SETTINGS = "settings.json"
STORAGE = "journal.log"
RECORD = "search.json"
TABLE = "search.md"
BEST = "best.toml"

ERROR, EPOCHS, SECONDS, LEAKS = "error", "epochs", "seconds", "leaks"
"""What is kept beside a trial; one that failed without an error was interrupted."""


def run_search(
    settings: TrainSettings,
    out: Path,
    trials: int,
    timeout_s: float | None = None,
    console: Console | None = None,
) -> SearchReport:
    """Fit models of drawn settings until there are ``trials``, and write down the best.

    Each trial is fitted on training studies and judged on validation studies. Test studies are not
    asked about. A search that was begun in ``out`` goes on, and ends as if it had never stopped.

    Args:
        settings: The run, with what to search.
        out: Gets ``best.toml``, ``search.json``, ``search.md``, ``search.png``, the trials' logs
            and the search's memory.
        trials: In all, those of earlier calls included.
        timeout_s: After this long no further trial is begun.
        console: Where progress is shown; nowhere without one.

    Raises:
        CohortError: The table cannot be used, or gives labels away, as it is prepared or by any
            preparation that may be drawn: all choices and the ends of ranges are checked first.
            What lies between is checked before its trial, which fails.
        SettingsError: There is nothing to search, or a setting that is not there.
        TrainingError: ``out`` holds another search, several processes are asked for, or a study
            cannot be used.
    """
    if settings.search is None:
        raise SettingsError("the settings have no section [search]")
    check_space(settings.search.space)
    require_one(settings.fit)
    bench = _Bench(settings, out, choose_device(settings), console)
    bench.check(_name_preparations(settings, settings.search))
    _open(settings, out)
    study = _load(settings, out)
    for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
    started = time.monotonic()
    while (done := _count_done(study)) < trials:
        if timeout_s is not None and time.monotonic() - started >= timeout_s:
            break
        if console is not None:
            console.print(f"Trial {done + 1} of {trials}", highlight=False)
        # The sampler's state is the trials before and this seed, so a search can be resumed.
        seed = int(np.random.SeedSequence([settings.search.seed, done]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=settings.search.startup
        )
        _run_trial(study, settings.search, bench)
    return _write(study, settings, out)


def _name_preparations(settings: TrainSettings, search: SearchSettings) -> dict[str, TrainSettings]:
    """Give the settings at all choices of the preparation and at the ends of its ranges."""
    named = {}
    for values in list_preparations(search.space):
        name = ", ".join(f"{path} = {value}" for path, value in values.items())
        # Those that do not go together are never trained on; a trial that draws them says why.
        with suppress(SettingsError):
            named[name or "as they are"] = put(settings, values)
    return named


def _open(settings: TrainSettings, out: Path) -> None:
    text = settings.model_dump_json(indent=2) + "\n"
    begun = out / SETTINGS
    if begun.is_file():
        if begun.read_text(encoding="utf-8") != text:
            raise TrainingError(
                f"{out}: its search was begun with other settings ({SETTINGS}); go on with those, "
                "or start in another folder"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"{out}: not empty, and no search; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    begun.write_text(text, encoding="utf-8")


def _load(settings: TrainSettings, out: Path) -> optuna.Study:
    search = settings.search
    assert search is not None
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(search.startup, search.warmup),
        "hyperband": optuna.pruners.HyperbandPruner(1, settings.fit.epochs),
        "none": optuna.pruners.NopPruner(),
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / STORAGE))),
        study_name="search",
        load_if_exists=True,
        direction="minimize" if search.objective == "loss" else "maximize",
        pruner=pruners[search.pruner],
    )


def _count_done(study: optuna.Study) -> int:
    return sum(not _is_interrupted(trial) for trial in study.get_trials(deepcopy=False))


def _is_interrupted(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and ERROR not in trial.user_attrs


@dataclass(frozen=True, slots=True)
class _Bench:
    """What trials share: where they run, and the checks and features of those that ask alike."""

    settings: TrainSettings
    out: Path
    device: torch.device
    console: Console | None
    gathered: dict[str, tuple[Cohort, Features]] = field(default_factory=dict)
    checked: dict[str, LeakRecord] = field(default_factory=dict)

    def check(self, runs: Mapping[str, TrainSettings]) -> dict[str, LeakRecord]:
        """Check what runs are trained on for leaks."""
        return check_each(runs, self.out, self.console, self.checked)

    def gather(self, settings: TrainSettings) -> tuple[Cohort, Features]:
        """Give the cohort, divided and with what is missing on purpose gone, and its features."""
        described = describe_features(settings)
        if described not in self.gathered:
            self.gathered[described] = gather(settings, self.out, self.device, self.console)
        cohort, features = self.gathered[described]
        return thin(settings, split_cohort(cohort, settings.split), features)


def _run_trial(study: optuna.Study, search: SearchSettings, bench: _Bench) -> None:
    """Fit one model; what is wrong with its settings is recorded, not raised."""
    trial = study.ask()
    folder = bench.out / "trials" / f"{trial.number:04d}"
    started = time.monotonic()
    try:
        settings = put(bench.settings, suggest(trial, search.space))
        (leaks,) = bench.check({f"trial {trial.number}": settings}).values()
        trial.set_user_attr(LEAKS, leaks.model_dump(mode="json"))
        cohort, features = bench.gather(settings)
        measure = partial(_measure, settings, cohort, features)
        by_loss = search.objective == "loss"
        watch = EpochReporter(trial, None if by_loss else measure)
        fitted = fit_model(settings, cohort, features, folder, bench.device, bench.console, [watch])
        trial.set_user_attr(EPOCHS, len(fitted.history.train))
        trial.set_user_attr(SECONDS, round(time.monotonic() - started, 2))
        value = min(fitted.history.validation) if by_loss else _score(settings, fitted.validation)
        if not math.isfinite(value):
            raise TrainingError("the validation studies do not define the figure")
        study.tell(trial, value)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except MedfuseError as error:
        trial.set_user_attr(ERROR, str(error))
        study.tell(trial, state=TrialState.FAIL)
    finally:
        shutil.rmtree(folder / "resume", ignore_errors=True)


def _measure(
    settings: TrainSettings, cohort: Cohort, features: Features, module: TrainingModule
) -> float:
    return _score(settings, ask_module(settings, module, cohort, features, Split.VALIDATION))


def _score(settings: TrainSettings, answers: Answers) -> float:
    every = np.ones(len(answers.rows), bool)
    return float(score(settings.tasks, answers, AS_GIVEN, every, np.ones((1, len(every))))[0])


def _write(study: optuna.Study, settings: TrainSettings, out: Path) -> SearchReport:
    search = settings.search
    assert search is not None
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    task = settings.tasks[0]
    figure = f"{task.name}.{headline(task)}"
    report = SearchReport(
        objective="loss" if search.objective == "loss" else figure,
        higher_is_better=search.objective == "headline",
        best=study.best_trial.number if complete else None,
        importances=_weigh(study, search.startup),
        trials=tuple(_record(trial) for trial in study.get_trials(deepcopy=False)),
    )
    if complete:
        best = study.best_trial
        comment = f"Trial {best.number} of medfuse search: {report.objective} {best.value:.6g}"
        text = write_toml(put(settings, best.params), f"{comment} on validation studies.")
        (out / BEST).write_text(text, encoding="utf-8")
    plot_search(out / "search.png", report)
    (out / TABLE).write_text(format_search(report), encoding="utf-8")
    (out / RECORD).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def _weigh(study: optuna.Study, startup: int) -> dict[str, float]:
    """Weigh the settings by PED-ANOVA (Watanabe et al. 2023), which few trials do not allow."""
    values = {t.value for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(values) < max(4, startup):
        return {}
    return {k: float(v) for k, v in optuna.importance.get_param_importances(study).items()}


def _record(trial: FrozenTrial) -> TrialRecord:
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
    }
    failed: State = "interrupted" if _is_interrupted(trial) else "failed"
    steps = trial.intermediate_values
    leaks = trial.user_attrs.get(LEAKS)
    value = trial.value if trial.value is not None else steps[max(steps)] if steps else None
    return TrialRecord(
        number=trial.number,
        state=states.get(trial.state, failed),
        values=dict(trial.params),
        value=value,
        epochs=trial.user_attrs.get(EPOCHS, len(steps)),
        seconds=trial.user_attrs.get(SECONDS),
        error=trial.user_attrs.get(ERROR),
        leaks=None if leaks is None else LeakRecord.model_validate(leaks),
    )
