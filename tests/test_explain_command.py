"""The command explain: files in; maps, a record and overlays that agree with each other out."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from medfuse.attribution.badge import BadgeSettings
from medfuse.cli import build_app
from medfuse.errors import BundleError, InputError, SettingsError
from medfuse.overlay import native_maps
from tests.hand_bundle import make_dicom, make_wav
from tests.tiny import make_checkpoint

NOTE = "FINDINGS: a nodule on the left.\nIMPRESSION: secret."


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    spot = np.zeros((90, 120), dtype=np.uint16)
    spot[20:40, 60:90] = 3000
    contents = {
        "image.dcm": make_dicom(spot),
        "second.dcm": make_dicom(spot[::-1, ::2]),
        "note.txt": NOTE.encode(),
        "voice.wav": make_wav(seconds=0.6),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name.partition(".")[0]: tmp_path / name for name in contents}


def hold_to(monkeypatch: pytest.MonkeyPatch, agreement: float = -1) -> None:
    """Hold explanations to no more than a correlation, with little work for it."""
    settings = BadgeSettings(
        gap=100.0,
        copies=1,
        points=2,
        stability=-1.0,
        faithfulness=0.0,
        agreement=float(agreement),
        patches=2,
        parts=4,
        least_change=0.0,
    )
    # They name the class, so they must see the real one.
    for name in ("medfuse.attribution.explain", "medfuse.explain.opened"):
        import_module(name)
    monkeypatch.setattr("medfuse.attribution.badge.BadgeSettings", lambda: settings)


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every explanation pass: an untrained network's are not to be relied on."""
    hold_to(monkeypatch)


def invoke(model: Path, *options: object) -> Result:
    steps = ("--steps", "4", "--most-steps", "4")
    arguments = [str(part) for part in ("explain", model, *options, *steps)]
    result = CliRunner().invoke(build_app(), arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "attribution.npz") as arrays:
        return dict(arrays)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_study_s_record_arrays_and_overlays_agree(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = invoke(
        tiny_checkpoint, "--dicom", files["image"], "--dicom", files["second"],
        "--note", files["note"], "--voice", files["voice"],
        "--target", "findings.nodule", "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0
    record = json.loads((out / "attribution.json").read_text())
    arrays = load_arrays(out)
    assert record["target"] == "findings.nodule"
    assert record["steps"] == 4
    assert record["details"]["internal_batch_size"] == 8  # by Captum
    assert not record["withheld"]
    assert set(record["files"]) == names(out) - {"attribution.json"}

    sums = {m: float(arrays[m].sum(dtype=np.float64)) for m in ("image", "note", "voice")}
    assert record["sums"] == pytest.approx(sums)
    change = record["output"] - record["baseline_output"]
    gap = abs(sum(sums.values()) - change) / max(abs(change), 0.01)
    assert record["completeness_gap"] == pytest.approx(gap, rel=1e-3)
    shares = record["shares"]
    outputs = shares["outputs"]
    total = record["output"] - outputs["none"]
    assert sum(shares["shares"].values()) == pytest.approx(total, abs=1e-5)
    shown = [record["output"], record["baseline_output"], outputs["none"]]
    for number in (*shown, *sums.values(), *shares["shares"].values()):
        assert f"{number:+.4f}" in done.stdout
    for pair, number in shares["interactions"].items():
        assert f"interaction of {pair.replace('+', ' and ')} {number:+.4f}" in done.stdout
    for check in record["badge"]["checks"]:
        assert check["name"] in done.stdout

    for word in record["words"]:
        assert NOTE[word["start"] : word["end"]] == word["text"]
    assert [w["text"] for w in record["words"]][-2:] == ["left", "."]
    assert sum(w["value"] for w in record["words"]) == pytest.approx(sums["note"], abs=1e-6)
    assert "secret" in (out / "note.html").read_text()

    assert arrays["image"].shape == (2, 64, 64)
    assert arrays["image_native_0"].shape == (90, 120)
    assert arrays["image_native_1"].shape == (90, 60)
    assert arrays["voice"].shape == (len(arrays["voice_times_s"]), len(arrays["voice_hz"]))
    for name in ("image_0.png", "image_1.png", "voice.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300


def test_a_note_alone_is_explained_and_the_rest_leaves_no_file(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    invoke(tiny_checkpoint, "--note", files["note"], "--target", "age.age", "--out", out)
    assert names(out) == {"attribution.json", "attribution.npz", "note.html"}
    assert set(load_arrays(out)) == {"note", "note_spans"}
    record = json.loads((out / "attribution.json").read_text())
    assert set(record["sums"]) == set(record["shares"]["shares"]) == {"note"}


def test_the_native_map_is_the_model_s_own_without_its_padding(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    from medfuse.config import ImageSettings, Limits
    from medfuse.data.image import prepare_images

    out = tmp_path / "out"
    invoke(tiny_checkpoint, "--dicom", files["image"], "--target", "age.age", "--out", out)
    arrays = load_arrays(out)
    data = files["image"].read_bytes()
    prepared, _ = prepare_images((data,), ImageSettings(size=64), Limits())
    (native,) = native_maps(arrays["image"], prepared.geometry)
    assert np.array_equal(arrays["image_native_0"], native)
    # 90 x 120 in a square of 64 leaves 8 rows above and below, which are black as the baseline is.
    assert arrays["image"].any()
    assert not arrays["image"][0, :8].any()
    assert not arrays["image"][0, 56:].any()


def test_maps_that_fail_their_checks_are_withheld_with_the_reasons(
    tiny_checkpoint: Path,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold_to(monkeypatch, agreement=1)
    out = tmp_path / "out"
    options = ("--note", files["note"], "--target", "age.age", "--baseline", "blank", "--out", out)
    done = invoke(tiny_checkpoint, *options)
    assert done.exit_code == 3
    assert names(out) == {"attribution.json"}
    record = json.loads((out / "attribution.json").read_text())
    assert record["withheld"]
    assert not record["badge"]["passed"]
    (reason,) = record["reasons"]
    assert "correlation" in reason
    assert not record["sums"]
    assert record["words"] is None
    assert record["shares"]["shares"]
    assert "withheld" in done.stdout
    assert "FAILED" in done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert line == f"medfuse: the maps are withheld: {reason}"

    done = invoke(tiny_checkpoint, *options, "--no-withhold")
    assert done.exit_code == 0
    assert names(out) == {"attribution.json", "attribution.npz", "note.html"}
    record = json.loads((out / "attribution.json").read_text())
    assert not record["withheld"]
    assert not record["badge"]["passed"]
    assert record["reasons"] == [reason]
    assert "the maps are written although they fail their checks" in done.stderr

    # A map of before must not stay beside a record that withholds it.
    invoke(tiny_checkpoint, *options)
    assert names(out) == {"attribution.json"}


def test_a_folder_with_something_else_in_it_is_left_alone(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--note", files["note"], "--target", "age.age", "--out", tmp_path)
    with pytest.raises(SettingsError, match="not an explanation"):
        invoke(tiny_checkpoint, *options)
    assert files["note"].read_text() == NOTE
    (tmp_path / "attribution.json").write_text('{"files": ["note.txt"]}')
    with pytest.raises(SettingsError, match="not an explanation"):
        invoke(tiny_checkpoint, *options)
    assert files["note"].read_text() == NOTE


def test_the_band_is_over_every_baseline_that_can_be_made(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    others = tmp_path / "others"
    for i, seconds in enumerate((0.4, 0.8)):
        (others / f"{i}").mkdir(parents=True)
        (others / f"{i}" / "voice.wav").write_bytes(make_wav(seconds=seconds, hz=900))
        (others / f"{i}" / "note.txt").write_text("FINDINGS: no rash")
    options = (
        "--note", files["note"], "--voice", files["voice"], "--target", "age.age", "--band",
        "--background", others,
    )  # fmt: skip
    out = tmp_path / "out"
    done = invoke(tiny_checkpoint, *options, "--baseline", "marginal", "--out", out)
    record = json.loads((out / "attribution.json").read_text())
    assert record["baseline"] == "marginal"
    every = [s["baseline"] for s in record["shares_by_baseline"]]
    assert sorted(every) == ["blank", "blurred", "marginal", "mean", "padding"]
    voices = [s["shares"]["voice"] for s in (*record["shares_by_baseline"], record["shares"])]
    assert f"{min(voices):+.4f} to {max(voices):+.4f}" in done.stdout
    assert min(voices) < max(voices)


def test_what_a_marginal_baseline_lacks_is_named(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--note", files["note"], "--target", "age.age", "--out", tmp_path / "out")
    marginal = ("--baseline", "marginal")
    with pytest.raises(SettingsError, match="needs samples of other studies"):
        invoke(tiny_checkpoint, *options, *marginal)
    (tmp_path / "others" / "Doe").mkdir(parents=True)
    (tmp_path / "others" / "Doe" / "a.dcm").write_bytes(b"no image")
    with pytest.raises(InputError, match="others: study 1: ") as caught:
        invoke(tiny_checkpoint, *options, *marginal, "--background", tmp_path / "others")
    assert "Doe" not in str(caught.value)


def test_gradients_have_no_baseline_and_no_sums_to_show(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    done = invoke(
        tiny_checkpoint, "--note", files["note"], "--target", "age.age=1,stage.at_least_severe=-2",
        "--out", tmp_path / "out", "--method", "gradients",
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "attribution.json").read_text())
    assert (record["method"], record["baseline"]) == ("gradients", "none")
    assert record["target"] == "age.age=1,stage.at_least_severe=-2"
    assert "against" not in done.stdout
    (header,) = (line for line in done.stdout.splitlines() if "share" in line)
    assert "map" not in header


def test_an_unknown_target_is_refused_before_anything_is_written(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="'nodule' is unknown"):
        invoke(
            tiny_checkpoint, "--note", files["note"], "--target", "nodule",
            "--out", tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = invoke(
        tiny_checkpoint, "--note", tmp_path / "gone.txt", "--target", "age.age", "--out", tmp_path
    )
    assert "gone.txt:thereisnosuchfile" in "".join(done.output.replace("\u2502", " ").split())


def test_a_folder_that_is_no_model_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a bundle"):
        invoke(tmp_path, "--note", files["note"], "--target", "age.age", "--out", tmp_path / "out")


# From a bundle


TORCH_FREE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "monai", "lightning", "transformers", "captum"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
from medfuse.cli import main
sys.argv = ["medfuse", *sys.argv[1:]]
main()
"""


def test_a_bundle_is_explained_where_torch_cannot_be_imported(
    tiny_bundle: Path, tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    options = (
        "--dicom", files["image"], "--note", files["note"], "--voice", files["voice"],
        "--target", "findings.nodule", "--no-withhold",
    )  # fmt: skip
    out = tmp_path / "bundle"
    arguments = ["explain", tiny_bundle, *options, "--out", out, "--steps", 4, "--most-steps", 4]
    done = subprocess.run(
        [sys.executable, "-c", TORCH_FREE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "attribution.json").read_text())
    assert "internal_batch_size" not in record["details"]
    assert {"image_0.png", "note.html", "voice.png"} <= names(out)

    invoke(tiny_checkpoint, *options, "--out", tmp_path / "checkpoint")
    other = json.loads((tmp_path / "checkpoint" / "attribution.json").read_text())
    assert record["output"] == pytest.approx(other["output"], abs=1e-4)
    assert record["shares"]["shares"] == pytest.approx(other["shares"]["shares"], abs=1e-4)
    ours, captum = load_arrays(out), load_arrays(tmp_path / "checkpoint")
    for name in ("image", "note", "voice"):
        # ReLU's sign flips under other rounding move single pixels.
        error = np.linalg.norm(ours[name] - captum[name]) / np.linalg.norm(captum[name])
        assert error < 0.01, name


def test_a_bundle_is_compared_with_captum_on_its_own_checkpoint(
    tiny_bundle: Path, tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    done = invoke(
        tiny_bundle, "--note", files["note"], "--voice", files["voice"],
        "--target", "findings.nodule", "--out", tmp_path / "out",
        "--against-captum", tiny_checkpoint,
    )  # fmt: skip
    assert done.exit_code == 0
    table = done.stdout.split("ONNX Runtime against Captum")[1]
    for modality in ("note", "voice"):
        (row,) = (line for line in table.splitlines() if modality in line)
        figures = [float(cell) for cell in row.replace("\u2502", " ").split()[1:]]
        assert len(figures) == 4
        assert 0 < max(figures) < 1e-4


def test_comparing_with_another_checkpoint_is_refused(
    tiny_bundle: Path, tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "other", fusion="cross_attention")
    options = ("--note", files["note"], "--target", "age.age", "--out", tmp_path / "out")
    with pytest.raises(BundleError, match="was not exported from the checkpoint"):
        invoke(tiny_bundle, *options, "--against-captum", other)
    done = invoke(tiny_checkpoint, *options, "--against-captum", tiny_checkpoint)
    assert done.exit_code == 2
    assert "compares a bundle" in " ".join(done.output.replace("\u2502", " ").split())
    assert not (tmp_path / "out").exists()
