"""The benchmark of serving: it times what it says, on a film of the size that was asked for."""

import io
from pathlib import Path

import pydicom
from typer import Typer
from typer.testing import CliRunner

from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import make_study
from medfuse_serving.bench import ServeReport, enlarge
from medfuse_serving.bench_command import bench_serve


def test_a_film_is_enlarged_to_what_was_asked_for_with_its_own_pixels() -> None:
    study = make_study(CohortOptions(), 1_000_000).study
    small = pydicom.dcmread(io.BytesIO(study.images[0])).pixel_array
    large = pydicom.dcmread(io.BytesIO(enlarge(study, 1000).images[0])).pixel_array
    assert large.shape == (1000, 1000)
    times = -(-1000 // min(small.shape))
    assert (large[::times, ::times] == small[: -(-1000 // times), : -(-1000 // times)]).all()
    repeated = large[1::times, 1::times]
    rows, columns = repeated.shape
    assert (repeated == large[::times, ::times][:rows, :columns]).all()


def test_each_wait_is_timed_and_written_down(least_bundle: Path, tmp_path: Path) -> None:
    app, out = Typer(), tmp_path / "bench.json"
    app.command()(bench_serve)
    done = CliRunner().invoke(
        app, [str(least_bundle), "--side", "512", "--rounds", "2", "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    report = ServeReport.model_validate_json(out.read_text())
    assert (report.rows, report.columns) == (512, 512)
    times = {row.what: row for row in report.measured}
    assert set(times) == {
        "answer",
        "first frame for the viewer",
        "first coarse map",
        "whole explanation with its checks",
    }
    for row in times.values():
        assert row.rounds == 2
        assert 0 < row.median_s <= row.worst_s
    coarse, whole = times["first coarse map"], times["whole explanation with its checks"]
    assert coarse.worst_s < whole.median_s
