"""The command explain: files in; arrays, a record and overlays that agree with each other out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medfuse.cli import build_app
from medfuse.errors import SettingsError
from medfuse.overlay import native_maps
from tests.hand_bundle import make_dicom, make_wav

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


def run(checkpoint: Path, *options: object) -> str:
    steps = ("--steps", "4", "--most-steps", "4")
    arguments = [str(part) for part in ("explain", checkpoint, *options, *steps)]
    result = CliRunner().invoke(build_app(), arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "attribution.npz") as arrays:
        return dict(arrays)


def test_a_study_s_record_arrays_and_overlays_agree(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    printed = run(
        tiny_checkpoint, "--dicom", files["image"], "--dicom", files["second"],
        "--note", files["note"], "--voice", files["voice"],
        "--target", "findings.nodule", "--out", out,
    )  # fmt: skip
    record = json.loads((out / "attribution.json").read_text())
    arrays = load_arrays(out)
    assert record["target"] == "findings.nodule"
    assert record["steps"] == 4
    assert set(record["files"]) == {p.name for p in out.iterdir()} - {"attribution.json"}

    sums = {m: float(arrays[m].sum(dtype=np.float64)) for m in ("image", "note", "voice")}
    assert record["sums"] == pytest.approx(sums)
    change = record["output"] - record["baseline_output"]
    gap = abs(sum(sums.values()) - change) / max(abs(change), 0.01)
    assert record["completeness_gap"] == pytest.approx(gap, rel=1e-3)
    assert f"{record['output']:+.4f}" in printed
    assert "the gap is above" in printed

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
    run(tiny_checkpoint, "--note", files["note"], "--target", "age.age", "--out", out)
    assert {p.name for p in out.iterdir()} == {"attribution.json", "attribution.npz", "note.html"}
    assert set(load_arrays(out)) == {"note", "note_spans"}
    assert set(json.loads((out / "attribution.json").read_text())["sums"]) == {"note"}


def test_the_native_map_is_the_model_s_own_without_its_padding(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    from medfuse.config import ImageSettings, Limits
    from medfuse.data.image import prepare_images

    out = tmp_path / "out"
    run(tiny_checkpoint, "--dicom", files["image"], "--target", "age.age", "--out", out)
    arrays = load_arrays(out)
    data = files["image"].read_bytes()
    prepared, _ = prepare_images((data,), ImageSettings(size=64), Limits())
    (native,) = native_maps(arrays["image"], prepared.geometry)
    assert np.array_equal(arrays["image_native_0"], native)
    # 90 x 120 in a square of 64 leaves 8 rows above and below, which are black as the baseline is.
    assert not arrays["image"][0, :8].any()
    assert not arrays["image"][0, 56:].any()


def test_an_unknown_target_is_refused_before_anything_is_written(
    tiny_checkpoint: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="'nodule' is unknown"):
        run(
            tiny_checkpoint, "--note", files["note"], "--target", "nodule",
            "--out", tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    printed = run(
        tiny_checkpoint, "--note", tmp_path / "gone.txt", "--target", "age.age", "--out", tmp_path
    )
    assert "gone.txt:thereisnosuchfile" in "".join(printed.replace("\u2502", " ").split())
