"""A search's record, the same as Markdown, and the settings file of its best trial."""

from collections.abc import Iterator
from typing import Literal

import tomlkit

from medfuse.config import Settings
from medfuse.leaks.report import LeakRecord, describe_overrides
from medfuse.training.report import table_head, table_row
from medfuse.training.search.settings import Scalar
from medfuse.training.settings import TrainSettings

State = Literal["complete", "pruned", "failed", "interrupted"]

SHOWN = 10


class TrialRecord(Settings):
    """One trial.

    Attributes:
        number: From 0.
        values: Of the settings searched.
        value: The objective; of a pruned trial, when it was pruned.
        epochs: How many were run.
        error: Why it failed.
        leaks: What the check for leaks said of what it is trained on; None where that was refused.
    """

    number: int
    state: State
    values: dict[str, Scalar]
    value: float | None
    epochs: int | None = None
    seconds: float | None = None
    error: str | None = None
    leaks: LeakRecord | None = None


class SearchReport(Settings):
    """All of it.

    Attributes:
        objective: What was measured, on validation studies.
        higher_is_better: Whether the best trial has the highest.
        best: The best complete trial's number.
        importances: How much of what the objective does each setting explains; they sum to 1.
    """

    objective: str
    higher_is_better: bool
    best: int | None
    importances: dict[str, float]
    trials: tuple[TrialRecord, ...]

    def complete(self) -> list[TrialRecord]:
        """Give the complete trials, the best first."""
        sign = -1 if self.higher_is_better else 1
        done = [t for t in self.trials if t.state == "complete" and t.value is not None]
        return sorted(done, key=lambda t: sign * (t.value or 0.0))


def format_search(report: SearchReport) -> str:
    """Write it as Markdown."""
    return "\n".join(_lines(report)) + "\n"


def write_toml(settings: TrainSettings, comment: str) -> str:
    """Write a settings file that has every setting, defaults included."""
    document = tomlkit.document()
    document.add(tomlkit.comment(comment))
    document.update(settings.model_dump(mode="json", exclude_none=True))
    return tomlkit.dumps(document)


def _lines(report: SearchReport) -> Iterator[str]:
    states = [t.state for t in report.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield "# Search"
    yield ""
    better = "highest" if report.higher_is_better else "lowest"
    yield f"{report.objective} on validation studies, the {better} first. Trials: {counts}."
    yield ""
    best = report.complete()[:SHOWN]
    names = list(report.trials[0].values) if report.trials else []
    yield from table_head(("trial", report.objective, "epochs", "s", *names))
    for t in best:
        values = (_show(t.values.get(name)) for name in names)
        yield table_row((str(t.number), _show(t.value), str(t.epochs), _show(t.seconds), *values))
    checked = {f"trial {t.number}": t.leaks for t in report.trials if t.leaks is not None}
    for line in describe_overrides(checked):
        yield ""
        yield line
    failed = [t for t in report.trials if t.error is not None]
    if failed:
        yield ""
        yield from table_head(("failed trial", "why"))
        for t in failed:
            yield table_row((str(t.number), str(t.error)))
    if report.importances:
        yield ""
        yield from table_head(("setting", "importance"))
        for name, share in report.importances.items():
            yield table_row((name, f"{share:.2f}"))


def _show(value: Scalar | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
