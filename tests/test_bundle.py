import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfuse.bundle import (
    GRAPH,
    MANIFEST,
    REQUIRED,
    Manifest,
    format_manifest,
    open_bundle,
    write_bundle,
)
from medfuse.errors import BundleError


@pytest.fixture
def folder(hand_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of the test's own."""
    return Path(shutil.copytree(hand_bundle, tmp_path / "bundle"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def rewrite(folder: Path, **fields: object) -> None:
    """Change fields of a manifest as someone with an editor would."""
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_whole_bundle_opens_and_is_named_by_its_manifest(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert set(bundle.manifest.files) == set(contents(folder)) >= set(REQUIRED)
    for name, data in contents(folder).items():
        assert bundle.read(name) == data
        assert bundle.manifest.files[name].sha256 == hashlib.sha256(data).hexdigest()


def test_a_bundle_opens_through_a_link_to_its_folder(folder: Path) -> None:
    current = folder.with_name("current")
    current.symlink_to(folder)
    assert open_bundle(current).digest == open_bundle(folder).digest


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_bit_changed_in_any_file_is_refused(folder: Path, data: st.DataObject) -> None:
    files = contents(folder)
    name = data.draw(st.sampled_from(sorted(files)))
    place = data.draw(st.integers(0, len(files[name]) - 1))
    altered = bytearray(files[name])
    altered[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(altered)
    with pytest.raises(BundleError, match=name):
        open_bundle(folder)
    (folder / name).write_bytes(files[name])
    open_bundle(folder)


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_a_file_of_another_length_is_refused(folder: Path, change: bytes) -> None:
    data = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(data + change if change else data[:-1])
    with pytest.raises(BundleError, match=r"predict\.onnx is not the file"):
        open_bundle(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    for name, data in contents(folder).items():
        (folder / name).unlink()
        with pytest.raises(BundleError, match=f"{name} missing"):
            open_bundle(folder)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", ["weights.bin", ".hidden", "golden/extra.dcm", "new/file"])
def test_a_file_that_was_added_is_named(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(BundleError, match=f"{name}' not part of the bundle"):
        open_bundle(folder)


@pytest.mark.parametrize("name", [GRAPH, MANIFEST, "golden"])
def test_a_link_inside_a_bundle_is_refused_even_when_it_leads_to_the_right_bytes(
    folder: Path, name: str
) -> None:
    elsewhere = folder.with_name("elsewhere")
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(BundleError, match="a link"):
        open_bundle(folder)


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting_for_it(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)
    with pytest.raises(BundleError, match="special file"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "golden/../../secret", "a\\b", "./a", "golden/", ""]
)
def test_a_manifest_cannot_reach_outside_its_folder(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    record = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size": 6}
    files = json.loads((folder / MANIFEST).read_text())["files"]
    rewrite(folder, files=files | {name: record})
    with pytest.raises(BundleError, match=r"manifest\.json is not valid: files"):
        open_bundle(folder)


@pytest.mark.parametrize("version", [0, 1, 7, "1", None])
def test_an_unknown_schema_version_is_refused_with_advice(folder: Path, version: object) -> None:
    rewrite(folder, schema_version=version, whatever_the_future_brings=1)
    with pytest.raises(BundleError, match=f"version {version!r}.*export it again, or install"):
        open_bundle(folder)


def test_an_unknown_field_is_named(folder: Path) -> None:
    rewrite(folder, threshold=0.5)
    with pytest.raises(BundleError, match="threshold: Extra inputs"):
        open_bundle(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"7"])
def test_what_is_no_manifest_is_refused(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(BundleError, match=r"not JSON|schema version None"):
        open_bundle(folder)


def test_an_endless_manifest_is_not_read_to_its_end(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(folder)


def test_what_is_no_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="medfuse export"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match="there is none"):
        open_bundle(tmp_path / "nowhere")


def test_a_file_swapped_after_opening_is_refused_when_it_is_read(folder: Path) -> None:
    bundle = open_bundle(folder)
    data = bytearray((folder / GRAPH).read_bytes())
    data[-1] ^= 1
    (folder / GRAPH).write_bytes(data)
    with pytest.raises(BundleError, match="is not the file the manifest describes"):
        bundle.read(GRAPH)
    (folder / GRAPH).unlink()
    (folder / GRAPH).symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="a link"):
        bundle.read(GRAPH)


def test_a_file_the_manifest_does_not_name_is_never_read(folder: Path) -> None:
    bundle = open_bundle(folder)
    (folder / "late.bin").write_bytes(b"late")
    for name in ("late.bin", MANIFEST, "../bundle/predict.onnx"):
        with pytest.raises(BundleError, match="has no file"):
            bundle.read(name)


def test_the_same_content_makes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    bundle = open_bundle(folder)
    reordered = dict(sorted(contents(folder).items(), reverse=True))
    again = write_bundle(tmp_path / "again", reordered, bundle.manifest)
    assert again.digest == bundle.digest
    data = (folder / MANIFEST).read_bytes()
    assert format_manifest(Manifest.model_validate_json(data)) == data


def test_writing_replaces_a_bundle_and_leaves_nothing_else_behind(folder: Path) -> None:
    old = open_bundle(folder)
    files = contents(folder) | {"model_card.md": b"# Another\n"}
    new = write_bundle(folder, files, old.manifest)
    assert open_bundle(folder).digest == new.digest != old.digest
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_damaged_bundle_can_be_replaced(folder: Path) -> None:
    bundle = open_bundle(folder)
    files = contents(folder)
    (folder / GRAPH).write_bytes(b"damaged")
    assert write_bundle(folder, files, bundle.manifest).digest == bundle.digest


@pytest.mark.parametrize("name", ["thesis.doc", ".git/config"])
def test_writing_leaves_alone_what_is_not_a_bundle(folder: Path, tmp_path: Path, name: str) -> None:
    bundle, files = open_bundle(folder), contents(folder)
    for place in (tmp_path / "work", folder):  # a folder of the user's; a bundle with a file added
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"years of work")
        with pytest.raises(BundleError, match="left alone"):
            write_bundle(place, files, bundle.manifest)
        assert (place / name).read_bytes() == b"years of work"


def test_writing_does_not_replace_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(BundleError, match="left alone"):
        write_bundle(tmp_path / "file", contents(folder), open_bundle(folder).manifest)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_place_that_cannot_be_written_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "bundle", contents(folder), open_bundle(folder).manifest)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "golden/.."])
def test_writing_puts_no_file_outside_the_bundle(folder: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / "out" / "bundle"
    with pytest.raises(BundleError, match="files"):
        write_bundle(place, contents(folder) | {name: b"evil"}, open_bundle(folder).manifest)
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_would_not_open_is_not_written(folder: Path) -> None:
    bundle, files = open_bundle(folder), contents(folder)
    del files["golden/answer.json"]
    with pytest.raises(BundleError, match=r"golden/answer.json missing"):
        write_bundle(folder, files, bundle.manifest)
    assert open_bundle(folder).digest == bundle.digest
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_page_on_the_bundle_shows_code_that_runs_and_every_field(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parent.parent / "docs" / "bundle.md"
    text = page.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(folder.parent)
    exec(compile(code, page.name, "exec"), {})
    assert open_bundle(folder).digest in capsys.readouterr().out
    section = text.partition("## manifest.json")[2].partition("## The graph")[0]
    fields = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    assert sorted(fields) == sorted(Manifest.model_fields)
