"""The benchmarks' run: names and options in; figures as JSON and Markdown in one folder out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from medfuse.errors import SettingsError
from medfuse.training.benchmark.benchmark import Benchmark, Setting
from medfuse.training.benchmark.covid import COVID
from medfuse.training.benchmark.indication import INDICATION
from medfuse.training.benchmark.lung_sounds import LUNG_SOUNDS
from medfuse.training.benchmark.options import BenchmarkOptions
from medfuse.training.benchmark.pneumonia import PNEUMONIA
from medfuse.training.benchmark.report import (
    BenchmarkRecord,
    BenchmarkReport,
    format_benchmarks,
)
from medfuse.training.benchmark.synthetic_patients import SYNTHETIC_PATIENTS

BENCHMARKS: Mapping[str, Benchmark] = {
    "covid": COVID,
    "lung-sounds": LUNG_SOUNDS,
    "indication": INDICATION,
    "pneumonia": PNEUMONIA,
    "synthetic-patients": SYNTHETIC_PATIENTS,
}

RECORD = "benchmark.json"
PAGE = "benchmark.md"


def run_benchmarks(
    names: Sequence[str], options: BenchmarkOptions, console: Console | None = None
) -> BenchmarkReport:
    """Run benchmarks one after another; one whose data are missing is passed over, and said so.

    Args:
        names: In `BENCHMARKS`; all where none is named.
        options: What with.
        console: Where progress is shown; nowhere without one.

    Raises:
        SettingsError: There is no such benchmark, or weights are missing.
        CohortError: Data that are there cannot be used.
        SourceError: Likewise, of data that are imported.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SettingsError(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    records, skipped = [], {}
    for name in names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        missing = benchmark.find_missing(options)
        if missing is not None:
            skipped[name] = missing
            continue
        if console is not None:
            console.print(f"{name}: {benchmark.question}", highlight=False)
        with _progress(console) as begin:
            tables = benchmark.run(Setting(options, console, begin))
        records.append(
            BenchmarkRecord(
                name=name,
                question=benchmark.question,
                command=write_command(name, benchmark, options),
                synthetic_patients=benchmark.synthetic_patients,
                tables=tables,
                published=benchmark.published,
                not_shown=benchmark.not_shown,
            )
        )
    report = BenchmarkReport(records=tuple(records), skipped=skipped)
    if records:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / PAGE).write_text(format_benchmarks(report), encoding="utf-8")
        (options.out / RECORD).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def write_command(name: str, benchmark: Benchmark, options: BenchmarkOptions) -> str:
    """Write the command that makes one benchmark's figures."""
    said = f"medfuse benchmark {name} --data {options.data} --out {options.out}"
    if benchmark.needs_open_i:
        said += f" --open-i {options.open_i}"
    return (
        f"{said} --repeats {options.repeats} --network-repeats {options.network_repeats} "
        f"--seed {options.seed}"
    )


@contextmanager
def _progress(
    console: Console | None,
) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Give what opens a bar for some work; the bars are cleared at the end."""
    if console is None:
        yield lambda what, steps: lambda: None
        return
    columns = (*RichProgress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    bar = RichProgress(*columns, console=console, transient=True)

    def begin(what: str, steps: int) -> Callable[[], None]:
        bar.start()
        task = bar.add_task(what, total=steps)

        def advance() -> None:
            bar.advance(task)
            if bar.finished:  # another bar may open now: a console has one at a time
                bar.stop()

        return advance

    try:
        yield begin
    finally:
        bar.stop()
