"""Identities planted wherever an input has room for them are found nowhere in what is written."""

import gzip
import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medfuse.data.importers import IMPORTERS
from medfuse.data.importers.source import ImportOptions
from medfuse.data.importers.write import write_import
from medfuse.deidentify.pseudonyms import Pseudonyms
from medfuse.deidentify.session import Session
from medfuse.deidentify.settings import DeidentifySettings
from tests import canaries
from tests.canaries import (
    ACCESSION,
    CANARIES,
    DAY_ISO,
    DOCTOR,
    EMAIL,
    FIRST,
    HOSPITAL,
    LAST,
    MRN,
    NOTE,
    PHONE,
    make_dicom,
    make_jpeg,
    make_png,
    search,
)
from tests.recordings import encode, sine
from tests.test_importers import APP, write_file, write_table

SETTINGS = """
[cohort]
table = "list.csv"
[cohort.columns]
patient_id = "mrn"
study_id = "accession"
note_text = "text"
site = "hospital"
date = "seen"
[[tasks]]
name = "findings"
kind = "binary"
classes = ["sick"]
"""


def plant_folder(root: Path) -> None:
    """A folder of studies whose names, files, tags and texts all tell who it is."""
    place = root / f"{LAST}_{FIRST} {MRN}"
    write_file(place / f"{LAST}.dcm", make_dicom())
    write_file(place / f"{FIRST}.png", make_png())
    write_file(place / f"{FIRST} {DAY_ISO}.jpg", make_jpeg())
    write_file(place / f"{DOCTOR}.txt", NOTE)
    sound = canaries.tag_mp3(encode(sine(300, 1.0), kind="MP3"))
    write_file(place / f"{LAST}.mp3", sound)
    other = root / ACCESSION
    write_file(other / "a.dcm", make_dicom(BurnedInAnnotation="YES"))
    write_file(other / "v.wav", canaries.tag_wav(encode(sine(300, 1.0))))
    write_file(other / "n.txt", f"{LAST} {FIRST}".encode("utf-16"))
    write_file(other / "w.txt", NOTE)


def plant_table(root: Path) -> None:
    row = {"mrn": MRN, "accession": ACCESSION, "who": f"{LAST}, {FIRST}", "doctor": DOCTOR}
    row |= {"text": NOTE, "hospital": f"{HOSPITAL} Hospital", "seen": DAY_ISO, "mail": EMAIL}
    row |= {"images": f"{LAST}.png", "voice": f"{FIRST}.wav", "sick": "1", "sex": LAST, "age": "93"}
    write_table(root / "list.csv", [row])
    write_file(root / f"{LAST}.png", make_png())
    write_file(root / f"{FIRST}.wav", canaries.tag_wav(encode(sine(300, 1.0))))
    write_file(root / "own.toml", SETTINGS)


def plant_egd(root: Path) -> None:
    path = "files/p10/p10000001/s50000001/aaaa-bbbb.dcm"
    row = {"dicom_id": "aaaa-bbbb", "path": path, "study_id": MRN, "patient_id": "83649127"}
    row |= {
        "gender": LAST,
        "anchor_age": f"{LAST} - 30",
        "Normal": "1",
        "CHF": "0",
        "pneumonia": "0",
    }
    write_table(root / "master_sheet.csv", [row | {"cxr_exam_indication": NOTE, "dx1": LAST}])
    write_file(root / f"{path}.gz", gzip.compress(make_dicom()))
    place = root / "audio_segmentation_transcripts" / "aaaa-bbbb"
    write_file(place / "audio.wav", canaries.tag_wav(encode(sine(300, 9.0))))
    phrases = [
        f"{FIRST} {LAST}",
        f"born {DAY_ISO}",
        f"told Dr. {DOCTOR}",
        PHONE,
        EMAIL,
        "heart normal",
    ]
    timed = [
        {"phrase": phrase, "begin_time": float(n), "end_time": n + 1.0}
        for n, phrase in enumerate(phrases)
    ]
    content = {"full_text": " ".join(phrases), "time_stamped_text": timed}
    write_file(place / "transcript.json", json.dumps(content))


PLANTS = {"folder": plant_folder, "table": plant_table, "egd-cxr": plant_egd}
OPTIONS = {"table": ("--settings", "own.toml", "--name-column", "who", "--name-column", "doctor")}


@pytest.mark.parametrize("source", PLANTS)
def test_no_canary_is_written_printed_or_logged(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    PLANTS[source](root)
    planted = set(search(root))
    assert {FIRST, LAST, DOCTOR, EMAIL, PHONE, DAY_ISO} <= planted
    options = [str(root / o) if o.endswith(".toml") else o for o in OPTIONS.get(source, ())]
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG):
        result = CliRunner().invoke(APP, ["import", source, str(root), str(out), *options])
    assert result.exit_code == 0, result.exception
    assert search(out) == []
    shown = (result.output + caplog.text).lower()
    assert [name for name, canary in CANARIES.items() if canary.lower() in shown] == []
    # Something of every kind was written, so that the search had something to search.
    written = {path.suffix for path in out.rglob("*") if path.is_file()}
    wanted = {"folder": {".dcm", ".png", ".txt", ".wav"}, "table": {".png", ".txt", ".wav"}}
    assert wanted.get(source, {".dcm", ".txt", ".wav"}) <= written
    assert "productive cough" in "".join(path.read_text() for path in out.rglob("note.txt"))


def test_an_error_shows_no_canary(tmp_path: Path) -> None:
    plant_egd(tmp_path / "in")
    broken = next((tmp_path / "in").rglob("transcript.json"))
    broken.write_text(json.dumps({"full_text": LAST, "time_stamped_text": [{"phrase": LAST}]}))
    with pytest.raises(Exception, match=r"transcript\.json is not as published") as caught:
        CliRunner().invoke(
            APP,
            ["import", "egd-cxr", str(tmp_path / "in"), str(tmp_path / "out")],
            catch_exceptions=False,
        )
    assert LAST not in str(caught.value)
    assert search(tmp_path / "out") == []


def test_the_search_finds_what_is_left_in_on_purpose(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "x.txt", f"so {LAST}".encode("utf-16-le"))
    write_file(tmp_path / "a" / "y.gz", gzip.compress(DOCTOR.upper().encode()))
    write_file(tmp_path / "a" / f"{ACCESSION}.bin", b"")
    write_file(tmp_path / "a" / "z.png", make_png())
    found = search(tmp_path / "a")
    assert {LAST, DOCTOR, ACCESSION, FIRST, HOSPITAL, DAY_ISO} == set(found)


def test_notes_that_are_left_alone_are_found(tmp_path: Path) -> None:
    plant_table(tmp_path / "in")
    importer = IMPORTERS["table"]
    options = ImportOptions(settings=tmp_path / "in" / "own.toml")
    session = Session(Pseudonyms(bytes(32)), DeidentifySettings(text=False))
    cohort = importer.read(tmp_path / "in", options)
    write_import("table", importer, cohort, options, tmp_path / "out", session)
    assert {FIRST, LAST, DOCTOR, EMAIL} <= set(search(tmp_path / "out"))


def test_the_key_is_written_nowhere(tmp_path: Path) -> None:
    plant_table(tmp_path / "in")
    key = tmp_path / "key"
    key.write_bytes(b"This is a key that is never told." * 2)
    arguments = ["import", "table", str(tmp_path / "in"), str(tmp_path / "out")]
    options = ["--settings", str(tmp_path / "in" / "own.toml"), "--key-file", str(key)]
    result = CliRunner().invoke(APP, [*arguments, *options])
    assert result.exit_code == 0, result.exception
    assert search(tmp_path / "out", [key.read_text(), key.read_bytes().hex()]) == []


def test_an_identifier_can_not_be_found_by_trying_all(tmp_path: Path) -> None:
    """Without the key, the hash of every MRN is none of the pseudonyms."""
    import hashlib

    plant_table(tmp_path / "in")
    arguments = ["import", "table", str(tmp_path / "in"), str(tmp_path / "out")]
    result = CliRunner().invoke(APP, [*arguments, "--settings", str(tmp_path / "in" / "own.toml")])
    assert result.exit_code == 0, result.exception
    table = (tmp_path / "out" / "cohort.csv").read_text()
    for name in ("md5", "sha1", "sha256"):
        assert hashlib.new(name, MRN.encode()).hexdigest()[:16] not in table
