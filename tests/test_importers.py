"""Importers on small folders in each source's published layout."""

import csv
import errno
import gzip
import json
import os
import signal
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from medfuse import config
from medfuse.config import Limits
from medfuse.data.cohort import CohortRow, load_study, read_cohort
from medfuse.data.importers import IMPORTERS, write
from medfuse.data.importers.command import import_cohort
from medfuse.data.importers.covid_cxr import COVID_CXR
from medfuse.data.importers.mimic_cxr import MIMIC_CXR
from medfuse.data.importers.mimic_files import CHEXPERT
from medfuse.data.importers.open_i import read_headings
from medfuse.data.importers.source import ImportOptions, read_part
from medfuse.data.importers.write import BURNED_IN, NOTHING_LEFT, cap_age, write_import
from medfuse.deidentify.command import deidentify
from medfuse.deidentify.pseudonyms import Pseudonyms
from medfuse.deidentify.session import Session
from medfuse.errors import CohortError, LimitError, MedfuseError, SettingsError, SourceError
from medfuse.leaks.check import check_cohort, read_request
from medfuse.leaks.report import LeakReport
from medfuse.training.settings import TrainSettings
from medfuse.types import Modality
from tests.canaries import make_png, read_back
from tests.dicom_files import make_file
from tests.recordings import encode, sine, voice_object

APP = typer.Typer(pretty_exceptions_enable=False)
APP.command("import")(import_cohort)
APP.command("deidentify")(deidentify)

SHARED = Path("../shared/data")
WRITTEN = {
    *("cohort.csv", "cohort.toml", "import.json", "check.json", "check.md", "studies"),
}
PIXELS = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def import_rows(source: str, folder: Path, out: Path, *options: object) -> list[dict[str, str]]:
    """Import, read the cohort back as training does, and give the table's rows."""
    run("import", source, folder, out, *options)
    settings = read_settings(out)
    read_cohort(settings.cohort, settings.tasks)
    return read_table(out / "cohort.csv")


def read_settings(out: Path) -> TrainSettings:
    return config.read_settings(out / "cohort.toml", TrainSettings)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_record(out: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((out / "import.json").read_text())
    return record


def read_note(out: Path, row: Mapping[str, str]) -> str:
    return (out / row["note"]).read_text(encoding="utf-8") if row["note"] else ""


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_file(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def dicom(**elements: object) -> bytes:
    made = {"SOPInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4", "SeriesInstanceUID": "1.2.5"}
    return make_file(PIXELS, **(made | elements))


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with shortness of breath  // ?edema

 FINDINGS:

 There is pulmonary edema.

 IMPRESSION:

 Edema.
"""


def make_egd(root: Path) -> None:
    findings = {
        "consolidation": 0,
        "pleural_effusion_or_thickening": 1,
        "pulmonary_edema__hazy_opacity": "",
    }
    rows = []
    for i, condition in enumerate(("CHF", "Normal", "pneumonia")):
        dicom_id, patient = f"aaaa{i}-bbbb", ("10000001", "10000001", "15000002")[i]
        path = f"files/p{patient[:2]}/p{patient}/s5000000{i}/{dicom_id}.dcm"
        marks = {c: int(c == condition) for c in ("Normal", "CHF", "pneumonia")}
        rows.append(
            {"dicom_id": dicom_id, "path": path, "study_id": f"5000000{i}", "patient_id": patient}
            | {
                "stay_id": "3",
                "gender": "F",
                "anchor_age": "20 - 30",
                "dx1": "",
                "normal_reports": 0,
            }
            | marks
            | findings
            | {"edema__chx": -1, "cxr_exam_indication": f"___F with dyspnea {i}"}
        )
        write_file(root / path, dicom(SOPInstanceUID=f"1.2.{i}"))
        place = root / "audio_segmentation_transcripts" / dicom_id
        place.mkdir(parents=True)
        kind = "mp3" if i == 1 else "wav"
        sound = encode(sine(440, 3.0), kind=kind.upper())
        write_file(place / f"audio.{kind}", sound)
        phrases = ["heart size", "told Dr. Abernathy", "is normal."]
        write_file(
            place / "transcript.json",
            json.dumps(
                {
                    "full_text": " ".join(phrases),
                    "time_stamped_text": [
                        {"phrase": p, "begin_time": float(n), "end_time": n + 1.0}
                        for n, p in enumerate(phrases)
                    ],
                }
            ),
        )
    write_table(root / "master_sheet.csv", rows)


def make_mimic(root: Path, packed: bool = False) -> None:
    studies = [("10000032", "50414267", "train"), ("10000032", "53189527", "train")]
    studies += [("11000045", "56699142", "validate"), ("19000001", "59999999", "test")]
    labels, splits = [], []
    for n, (subject, study, split) in enumerate(studies):
        cells = dict.fromkeys(CHEXPERT, "")
        cells |= {"Edema": "1.0", "Pneumonia": "-1.0", "Fracture": "0.0"}
        labels.append({"subject_id": subject, "study_id": study} | cells)
        folder = root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
        for view in range(1 + (n == 0)):
            name = f"0{n}{view}-abcd"
            data = dicom(SOPInstanceUID=f"1.{n}.{view}")
            write_file(
                folder / f"{name}.dcm{'.gz' * packed}", gzip.compress(data) if packed else data
            )
            row = {"dicom_id": name, "study_id": study, "subject_id": subject, "split": split}
            splits.append(row)
        write_file(folder.with_name(f"s{study}.txt"), REPORT)
    ending = ".csv.gz" if packed else ".csv"
    write_table(root / f"mimic-cxr-2.0.0-chexpert{ending}", labels)
    write_table(root / f"mimic-cxr-2.0.0-split{ending}", splits)


def make_reflacx(root: Path, mimic: Path) -> None:
    make_mimic(mimic)
    image = "physionet.org/files/mimic-cxr/2.0.0/files/p10/p10000032/s50414267/000-abcd.dcm"
    shared = {"split": "train", "eye_tracking_data_discarded": "False", "image": image}
    shared |= {"dicom_id": "000-abcd", "subject_id": "10000032", "image_size_x": "40"}
    rows_1 = [{"id": "P102R915798"} | shared | {"Airway wall thickening": 0, "Nodule": 2}]
    rows_3 = [
        {"id": "P300R000001"}
        | shared
        | {"Pulmonary edema": 4, "Support devices": "True", "Other": "x"}
    ]
    write_table(root / "main_data" / "metadata_phase_1.csv", rows_1)
    write_table(root / "main_data" / "metadata_phase_3.csv", rows_3)
    place = root / "main_data" / "P300R000001"
    write_file(place / "transcription.txt", "pulmonary edema.")
    words = [
        {"word": "pulmonary", "timestamp_start_word": 1.5, "timestamp_end_word": 2.0},
        {"word": "edema.", "timestamp_start_word": 2.0, "timestamp_end_word": 2.5},
    ]
    write_table(place / "timestamps_transcription.csv", words)


def xml_report(uid: str, headings: Sequence[str], images: Sequence[str]) -> str:
    mesh = "".join(f"<major>{heading}</major>" for heading in headings)
    parents = "".join(f'<parentImage id="{name}"/>' for name in images)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="{uid}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">XXXX-year-old with cough {uid}.</AbstractText>
<AbstractText Label="FINDINGS">Heart is enlarged.</AbstractText>
<AbstractText Label="IMPRESSION">Cardiomegaly.</AbstractText>
</Abstract></Article></MedlineCitation><MeSH>{mesh}<automatic>Heart</automatic></MeSH>
{parents}</eCitation>"""


REPORTS = {
    "1": xml_report("CXR1", ["normal"], ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]),
    "2": xml_report("CXR2", ["Cardiomegaly/mild", "Opacity/lung"], ["CXR2_IM-0652-1001"]),
    "3": xml_report("CXR3", ["No Indexing"], []),
}


def test_egd_cxr_gives_film_indication_dictation_and_timed_words(tmp_path: Path) -> None:
    make_egd(tmp_path / "egd")
    out = tmp_path / "out"
    rows = import_rows("egd-cxr", tmp_path / "egd", out)
    assert [row["condition"] for row in rows] == ["heart_failure", "normal", "pneumonia"]
    assert [row["pleural_effusion_or_thickening"] for row in rows] == ["1"] * 3
    assert [row["consolidation"] for row in rows] == ["0"] * 3
    assert [row["pulmonary_edema"] for row in rows] == [""] * 3
    assert [row["age"] for row in rows] == ["25"] * 3
    assert read_note(out, rows[0]) == "___F with dyspnea 0"
    assert rows[0]["patient_id"] == rows[1]["patient_id"] != rows[2]["patient_id"]
    assert all(row["images"].endswith("image_0.dcm") for row in rows)
    settings = read_settings(out)
    assert all(task.modalities == ("image", "note") for task in settings.tasks)
    cohort = read_cohort(settings.cohort, settings.tasks)
    assert all(row.present == frozenset(Modality) for row in cohort.rows)
    phrases = json.loads((out / rows[1]["transcript"]).read_text())["phrases"]
    assert [phrase["text"] for phrase in phrases] == ["heart size", "told Dr. [NAME]", "is normal."]
    # The second in which the name is said is silent, in WAV and MP3; what is around it is not.
    for row in rows:
        samples, rate = soundfile.read(out / row["voice"])
        loud = [
            float(np.abs(samples[s * rate + 800 : (s + 1) * rate - 800]).max()) for s in range(3)
        ]
        assert loud[1] == 0
        assert min(loud[0], loud[2]) > 0.3


def test_egd_cxr_takes_another_note_and_no_voice_and_mimics_own_folder(tmp_path: Path) -> None:
    make_egd(tmp_path / "egd")
    (tmp_path / "egd" / "files").rename(tmp_path / "files")
    options = ("--images", tmp_path, "--note", "transcript", "--voice", "none")
    rows = import_rows("egd-cxr", tmp_path / "egd", tmp_path / "out", *options)
    assert read_note(tmp_path / "out", rows[0]) == "heart size told Dr. [NAME] is normal."
    assert [row["voice"] for row in rows] == [""] * 3
    assert all(row["images"] for row in rows)


@pytest.mark.parametrize("packed", [False, True])
def test_mimic_cxr_keeps_the_official_split_and_its_unknown_labels(
    tmp_path: Path, packed: bool
) -> None:
    make_mimic(tmp_path / "mimic", packed)
    out = tmp_path / "out"
    rows = import_rows("mimic-cxr", tmp_path / "mimic", out)
    assert [row["split"] for row in rows] == ["train", "train", "validation", "test"]
    assert len({row["patient_id"] for row in rows}) == 3
    assert rows[0]["images"].count(";") == 1
    for name, label in {"edema": "1", "fracture": "0", "pneumonia": "", "lung_opacity": ""}.items():
        assert {row[name] for row in rows} == {label}
    assert read_note(out, rows[0]) == "___F with shortness of breath // ?edema"


def test_mimic_cxrs_doubt_and_note_are_a_choice(tmp_path: Path) -> None:
    make_mimic(tmp_path / "mimic")
    options = ("--uncertain", "positive", "--note", "findings")
    rows = import_rows("mimic-cxr", tmp_path / "mimic", tmp_path / "out", *options)
    assert {row["pneumonia"] for row in rows} == {"1"}
    assert read_note(tmp_path / "out", rows[0]) == "There is pulmonary edema."
    assert read_record(tmp_path / "out")["options"] == {
        "note": "findings",
        "voice": "",
        "uncertain": "positive",
        "limit": None,
    }


def test_a_study_that_the_official_split_does_not_name_is_left_out(tmp_path: Path) -> None:
    make_mimic(tmp_path / "mimic")
    split = tmp_path / "mimic" / "mimic-cxr-2.0.0-split.csv"
    write_table(split, [row for row in read_table(split) if row["study_id"] != "59999999"])
    rows = import_rows("mimic-cxr", tmp_path / "mimic", tmp_path / "out")
    assert [row["split"] for row in rows] == ["train", "train", "validation"]
    left_out = read_record(tmp_path / "out")["left_out"]
    assert left_out == {"study that the official split does not name": 1}


def test_reflacx_takes_no_film_from_beside_its_folder(tmp_path: Path) -> None:
    make_reflacx(tmp_path / "reflacx", tmp_path)
    (tmp_path / "reflacx" / "main_data").rename(tmp_path / "main_data")
    with pytest.raises(SourceError, match="image that is not there: 2"):
        run("import", "reflacx", tmp_path / "main_data", tmp_path / "out")


def test_times_of_words_must_be_times(tmp_path: Path) -> None:
    make_reflacx(tmp_path / "reflacx", tmp_path / "mimic")
    path = tmp_path / "reflacx/main_data/P300R000001/timestamps_transcription.csv"
    options = ("--images", tmp_path / "mimic")
    plain = path.read_text()
    for time in ("nan", "1e999", "3.5", "soon"):
        path.write_text(plain.replace("2.0,2.5", f"{time},2.5"))
        with pytest.raises(SourceError, match="times"):
            run("import", "reflacx", tmp_path / "reflacx", tmp_path / "out", *options)


def test_reflacx_reads_certainties_of_every_phase(tmp_path: Path) -> None:
    make_reflacx(tmp_path / "reflacx", tmp_path / "mimic")
    out = tmp_path / "out"
    rows = import_rows("reflacx", tmp_path / "reflacx", out, "--images", tmp_path / "mimic")
    labels = ("airway_wall_thickening", "nodule", "pulmonary_edema", "support_devices")
    assert [[row[name] for name in labels] for row in rows] == [
        ["0", "", "", ""],
        ["", "", "1", "1"],
    ]
    assert "other" not in rows[0]
    assert rows[0]["patient_id"] == rows[1]["patient_id"]
    assert read_note(out, rows[0]) == "___F with shortness of breath // ?edema"
    phrases = json.loads((out / rows[1]["transcript"]).read_text())["phrases"]
    assert phrases[1] == {"text": "edema.", "start_s": 2.0, "end_s": 2.5}


@pytest.mark.parametrize("packed", [False, True])
def test_open_i_reads_reports_as_files_and_in_their_archive(tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "openi"
    for number, text in REPORTS.items():
        write_file(root / "ecgen-radiology" / f"{number}.xml", text)
    if packed:
        with tarfile.open(root / "NLMCXR_reports.tgz", "w:gz") as archive:
            archive.add(root / "ecgen-radiology", "ecgen-radiology")
        for path in (root / "ecgen-radiology").iterdir():
            path.unlink()
    for name in ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"):
        write_file(root / "NLMCXR_png" / f"{name}.png", make_png())
    out = tmp_path / "out"
    rows = import_rows("open-i", root, out)
    assert [row["normal"] for row in rows] == ["1", "0", ""]
    assert [row["cardiomegaly"] for row in rows] == ["0", "1", ""]
    assert [row["opacity"] for row in rows] == ["0", "1", ""]
    assert [row["images"].count(".png") for row in rows] == [2, 0, 0]
    assert read_note(out, rows[1]) == "XXXX-year-old with cough CXR2."
    assert read_record(out)["left_out"] == {"image that is not there": 1}
    # The report that has no label is kept in the table; reading the cohort leaves it out.
    assert len({row["patient_id"] for row in rows}) == 3


def test_open_i_reads_kaggles_tables(tmp_path: Path) -> None:
    root = tmp_path / "kaggle"
    report = {"uid": 1, "MeSH": "Cardiomegaly/borderline;Pulmonary Edema", "Problems": "x"}
    report |= {"image": "", "indication": "Chest pain", "comparison": "", "findings": "Large."}
    write_table(root / "indiana_reports.csv", [report | {"impression": "Cardiomegaly."}])
    films = [("1_IM-1-2001.dcm.png", "Lateral"), ("1_IM-1-1001.dcm.png", "Frontal")]
    rows = [{"uid": 1, "filename": name, "projection": view} for name, view in films]
    write_table(root / "indiana_projections.csv", rows)
    for name, _ in films:
        write_file(root / "images" / "images_normalized" / name, make_png())
    (row,) = import_rows("open-i", root, tmp_path / "out", "--note", "report")
    assert (row["cardiomegaly"], row["pulmonary_edema"], row["normal"]) == ("1", "1", "0")
    assert read_note(tmp_path / "out", row) == "Large.\nCardiomegaly."
    assert row["images"].count(".png") == 2


def test_headings_that_are_not_there_leave_labels_unknown() -> None:
    assert set(read_headings(["No Indexing"]).values()) == {""}
    assert set(read_headings([]).values()) == {""}
    assert read_headings(["normal"])["pneumothorax"] == "0"


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa">]><eCitation>&a;</eCitation>',
        '<!DOCTYPE x SYSTEM "https://example.org/x.dtd"><eCitation><uId id="1"/></eCitation>',
        "<eCitation>",
    ],
)
def test_xml_with_a_document_type_is_refused(tmp_path: Path, text: str) -> None:
    write_file(tmp_path / "in" / "1.xml", text)
    with pytest.raises(SourceError, match="not plain XML"):
        run("import", "open-i", tmp_path / "in", tmp_path / "out")


def make_covid(root: Path) -> None:
    shared = {
        "offset": 0,
        "sex": "M",
        "age": 93,
        "RT_PCR_positive": "Y",
        "survival": "",
        "view": "PA",
    }
    shared |= {"modality": "X-ray", "date": "2020", "location": "Wuhan, China", "folder": "images"}
    rows = [
        {"patientid": 2}
        | shared
        | {"finding": finding, "filename": f"{n}.png", "doi": "", "url": ""}
        | {"license": "", "clinical_notes": "Fever since Jan 5.", "other notes": ""}
        for n, finding in enumerate(
            ("Pneumonia/Viral/COVID-19", "Pneumonia/Bacterial", "No Finding")
        )
    ]
    rows.append(rows[0] | {"modality": "CT", "filename": "ct.png"})
    rows.append(rows[0] | {"filename": "gone.png", "clinical_notes": ""})
    write_table(root / "metadata.csv", rows)
    for n in range(3):
        write_file(root / "images" / f"{n}.png", make_png())


def test_covid_cxr_tells_covid_from_other_pneumonia(tmp_path: Path) -> None:
    make_covid(tmp_path / "covid")
    rows = import_rows("covid-cxr", tmp_path / "covid", tmp_path / "out")
    assert [row["covid19"] for row in rows] == ["1", "0", ""]
    assert {row["age"] for row in rows} == {"90"}
    assert {row["site"] + row["date"] for row in rows} == {""}
    assert read_note(tmp_path / "out", rows[0]) == "Fever since [DATE]."
    assert read_record(tmp_path / "out")["left_out"] == {
        "image that is not there": 1,
        "not a radiograph": 1,
        NOTHING_LEFT: 1,
    }


def test_coswara_finds_recordings_by_day_and_person(tmp_path: Path) -> None:
    root = tmp_path / "coswara"
    status = ("healthy", "positive_mild", "recovered_full", "healthy")
    rows = [
        {"id": f"id{n}", "a": 30, "covid_status": s, "record_date": "2020-04-23", "g": "female"}
        | {"l_l": "Anantapur"}
        for n, s in enumerate(status)
    ]
    write_table(root / "combined_data.csv", rows)
    for n in range(3):
        place = root / ("Extracted_data" if n else "") / "20200423" / f"id{n}"
        write_file(place / "cough-heavy.wav", encode(sine(300, 1.0), rate_hz=44_100))
    write_file(root / "20200423" / "id3" / "cough-heavy.wav", b"")  # some are empty
    made = import_rows("coswara", root, tmp_path / "out", "--voice", "cough-heavy")
    assert [row["covid19"] for row in made] == ["0", "1", ""]
    assert [row["sex"] for row in made] == ["F"] * 3
    assert read_record(tmp_path / "out")["left_out"] == {
        "recording that can't be read": 1,
        NOTHING_LEFT: 1,
    }


def test_svd_groups_a_speakers_sessions_and_hides_the_birth_date(tmp_path: Path) -> None:
    root = tmp_path / "svd"
    rows = [
        {"AufnahmeID": n, "AufnahmeTyp": kind, "AufnahmeDatum": "2000-05-01", "Diagnose": "heiser"}
        | {
            "SprecherID": speaker,
            "Geburtsdatum": "1960-05-02",
            "Geschlecht": "w",
            "Pathologien": "",
        }
        for n, kind, speaker in ((1, "n", 7), (2, "p", 7), (3, "p", 8))
    ]
    write_table(root / "overview.csv", rows)
    for n in (1, 2, 3):
        write_file(
            root / "data" / str(n) / f"{n}-phrase.wav", encode(sine(200, 1.0), rate_hz=50_000)
        )
    made = import_rows("svd", root, tmp_path / "out")
    assert [(row["disorder"], row["age"], row["sex"]) for row in made] == [
        ("0", "39", "F"),
        ("1", "39", "F"),
        ("1", "39", "F"),
    ]
    assert made[0]["patient_id"] == made[1]["patient_id"] != made[2]["patient_id"]
    assert made[0]["date"] < "2000"


def test_svd_says_that_zenodos_recordings_must_be_converted(tmp_path: Path) -> None:
    root = tmp_path / "svd"
    row = {"AufnahmeTyp": "n", "SprecherID": 7, "Geschlecht": "m"}
    write_table(root / "voice_data.csv", [row | {"AufnahmeID": n} for n in (1, 2, 3)])
    for n in (1, 2):
        write_file(root / "data" / str(n) / "sentnces" / f"{n}-phrase.nsp", b"FORM")
    write_file(root / "1-phrase.wav", encode(sine(200, 1.0)))
    import_rows("svd", root, tmp_path / "out")
    assert read_record(tmp_path / "out")["left_out"] == {
        "session whose recording is NSP; expected WAV: export it so, or convert it": 1,
        "session without this recording": 1,
    }


def test_a_row_that_names_no_patient_is_left_out(tmp_path: Path) -> None:
    make_covid(tmp_path / "covid")
    table = tmp_path / "covid" / "metadata.csv"
    rows = read_table(table)
    write_table(table, [rows[0] | {"patientid": ""}, rows[1] | {"sex": "Mujer"}])
    (row,) = import_rows("covid-cxr", tmp_path / "covid", tmp_path / "out")
    assert (row["covid19"], row["sex"]) == ("0", "")
    assert read_record(tmp_path / "out")["left_out"] == {"study that names no patient": 1}


def test_a_study_of_more_images_than_a_limit_allows_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_mimic(tmp_path / "mimic")
    cohort = MIMIC_CXR.read(tmp_path / "mimic", ImportOptions())
    session = Session(Pseudonyms(bytes(32)), limits=Limits(instances=1))
    read: list[Path] = []

    def count(path: Path, most: int) -> bytes:
        read.append(path)
        return read_part(path, most)

    monkeypatch.setattr(write, "read_part", count)
    summary = write_import(
        "mimic-cxr", MIMIC_CXR, cohort, ImportOptions(), tmp_path / "out", session
    )
    assert summary.left_out == {"image beyond a limit": 2}
    assert (summary.studies, summary.images, len(set(read))) == (4, 3, 3)


def test_medmnist_refuses_labels_it_would_have_to_guess(tmp_path: Path) -> None:
    images = np.zeros((2, 28, 28), np.uint8)
    for n, labels in enumerate(([[0], [-1]], [[0, 2], [1, 0]])):
        path = tmp_path / f"{n}mnist.npz"
        made = np.array(labels, np.int64)
        np.savez(path, allow_pickle=False, train_images=images, train_labels=made)
        with pytest.raises(SourceError, match="labels of 0 or more"):
            run("import", "medmnist", path, tmp_path / "out")
    # A copy without the last class keeps the names of the others.
    path = tmp_path / "octmnist.npz"
    zero = np.zeros((2, 1), np.uint8)
    np.savez(path, allow_pickle=False, train_images=images, train_labels=zero)
    rows = import_rows("medmnist", path, tmp_path / "out")
    assert {row["label"] for row in rows} == {"choroidal_neovascularization"}


def test_medmnist_keeps_its_split_and_every_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8)[:, None] % 2
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", allow_pickle=False, **arrays)
    out = tmp_path / "out"
    rows = import_rows("medmnist", tmp_path, out)
    assert [row["split"] for row in rows] == ["train"] * 4 + ["validation"] * 2 + ["test"] * 3
    assert [row["label"] for row in rows[:2]] == ["normal", "pneumonia"]
    from PIL import Image

    for row, pixels in zip(rows, np.concatenate(list(arrays.values())[::2]), strict=True):
        with Image.open(out / row["images"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_medmnist_reads_several_labels_and_refuses_volumes(tmp_path: Path) -> None:
    labels = np.eye(14, dtype=np.uint8)[:3]
    images = np.zeros((3, 28, 28), np.uint8)
    np.savez(
        tmp_path / "chestmnist.npz", allow_pickle=False, train_images=images, train_labels=labels
    )
    rows = import_rows("medmnist", tmp_path, tmp_path / "out")
    assert [row["cardiomegaly"] for row in rows] == ["0", "1", "0"]
    volumes = np.zeros((3, 28, 28, 28), np.uint8)
    path = tmp_path / "organmnist3d.npz"
    np.savez(path, allow_pickle=False, train_images=volumes, train_labels=labels)
    with pytest.raises(SourceError, match="flat images"):
        run("import", "medmnist", path, tmp_path / "other")


SETTINGS = """
[cohort]
table = "elsewhere/list.csv"
[cohort.columns]
patient_id = "person"
note_text = "text"
[[tasks]]
name = "grade"
kind = "ordinal"
classes = ["low", "high"]
[[tasks]]
name = "dose"
kind = "regression"
classes = ["dose"]
[fit]
epochs = 3
"""


def test_a_table_of_any_layout_is_read_by_its_settings(tmp_path: Path) -> None:
    rows = [
        {"person": "p1", "who": "Quimby", "text": "quimby coughs", "grade": "high", "dose": "0.25"}
        | {"age": "95", "site": "North wing", "date": "2020-02-01", "images": "a.png"},
        {"person": "p2", "who": "", "text": "no fever", "grade": "", "dose": ""}
        | {"age": "", "site": "", "date": "", "images": ""},
    ]
    write_table(tmp_path / "in" / "list.csv", rows)
    write_file(tmp_path / "in" / "a.png", make_png())
    write_file(tmp_path / "own.toml", SETTINGS)
    options = ("--settings", tmp_path / "own.toml", "--name-column", "who")
    first, second = import_rows("table", tmp_path / "in", tmp_path / "out", *options)
    assert read_note(tmp_path / "out", first) == "[NAME] coughs"
    assert (first["grade"], first["dose"], first["age"]) == ("high", "0.25", "90")
    assert first["site"].startswith("C")
    assert first["date"] < "2019-02-01"
    assert (second["grade"], second["dose"]) == ("", "")


def test_names_belong_to_their_rows_however_the_table_is_spaced(tmp_path: Path) -> None:
    lines = ["person,who,text,grade,dose", "p1,Quimby,quimby coughs,high,1", "   "]
    table = "\n".join([*lines, "p2,Zorba,zorba coughs,low,2"])
    write_file(tmp_path / "in" / "list.csv", table)
    write_file(tmp_path / "own.toml", SETTINGS)
    options = ("--settings", tmp_path / "own.toml", "--name-column", "who")
    rows = import_rows("table", tmp_path / "in", tmp_path / "out", *options)
    assert [read_note(tmp_path / "out", row) for row in rows] == ["[NAME] coughs"] * 2
    with pytest.raises(SourceError, match="no column whom"):
        run(
            *("import", "table", tmp_path / "in", tmp_path / "no"),
            *("--settings", tmp_path / "own.toml", "--name-column", "whom"),
        )


def test_names_are_read_from_a_parquet_table_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    row = {"person": "p1", "who": "Quimby", "text": "quimby coughs", "grade": "low", "dose": 1.5}
    pd.DataFrame([row]).to_parquet(tmp_path / "in" / "list.parquet")
    write_file(tmp_path / "own.toml", SETTINGS.replace("list.csv", "list.parquet"))
    options = ("--settings", tmp_path / "own.toml", "--name-column", "who")
    (made,) = import_rows("table", tmp_path / "in", tmp_path / "out", *options)
    assert (read_note(tmp_path / "out", made), made["dose"]) == ("[NAME] coughs", "1.5")


def test_a_label_whose_column_would_mean_two_things_is_refused(tmp_path: Path) -> None:
    text = SETTINGS.replace('classes = ["dose"]', 'classes = ["age"]')
    columns = '[cohort.labels.dose]\ncolumn = "grade"\n'
    write_file(tmp_path / "own.toml", text.replace("[[tasks]]", columns + "[[tasks]]", 1))
    write_table(
        tmp_path / "in" / "list.csv", [{"person": "p", "text": "x", "grade": "", "age": "1"}]
    )
    options = ("--settings", tmp_path / "own.toml")
    with pytest.raises(SourceError, match="would be named age"):
        run("import", "table", tmp_path / "in", tmp_path / "out", *options)


def test_a_tasks_codes_come_through_and_sentences_are_said_to_be_left(tmp_path: Path) -> None:
    write_table(
        tmp_path / "in" / "list.csv",
        [{"person": "p", "text": "x", "grade": "low", "dose": "1"}],
    )
    code = '[tasks.codes.dose]\nvalue = "1"\nscheme = "SCT"\nmeaning = "Dosis 😀"\n'
    sentences = 'table = "elsewhere/list.csv"\nsentences = "gone.csv"'
    text = SETTINGS.replace("[fit]", f"{code}[fit]")
    write_file(tmp_path / "own.toml", text.replace('table = "elsewhere/list.csv"', sentences))
    out = tmp_path / "out"
    import_rows("table", tmp_path / "in", out, "--settings", tmp_path / "own.toml")
    assert read_settings(out).tasks[1].codes["dose"].meaning == "Dosis 😀"
    assert "sentences are not imported" in (out / "cohort.toml").read_text()


def test_the_same_key_gives_the_same_names_and_another_run_others(tmp_path: Path) -> None:
    make_mimic(tmp_path / "mimic")
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    runs = [("--key-file", key), ("--key-file", key), ()]
    ids = [
        [
            row["patient_id"]
            for row in import_rows("mimic-cxr", tmp_path / "mimic", tmp_path / str(n), *o)
        ]
        for n, o in enumerate(runs)
    ]
    assert ids[0] == ids[1] != ids[2]
    kept = import_rows("mimic-cxr", tmp_path / "mimic", tmp_path / "kept", "--keep-ids")
    assert kept[0]["patient_id"] == "10000032"
    key.write_bytes(b"short")
    with pytest.raises(SettingsError, match="5 bytes"):
        run("import", "mimic-cxr", tmp_path / "mimic", tmp_path / "x", "--key-file", key)


def test_deidentify_takes_a_folder_of_studies(tmp_path: Path) -> None:
    for n, patient in enumerate(("A1", "A1", "B2")):
        place = tmp_path / "in" / f"study {n}"
        named = {"PatientID": patient, "PatientName": "Quimby^A", "StudyDate": "20200229"}
        write_file(place / "x.dcm", dicom(**named))
        write_file(place / "n.txt", "Ms Quimby coughs 2020-02-29")
        write_file(place / "v.wav", encode(sine(300, 1.0)))
    write_file(tmp_path / "in" / "study 0" / "burned.dcm", dicom(BurnedInAnnotation="YES"))
    write_file(tmp_path / "in" / "study 0" / "letter.pdf", b"%PDF")
    printed = run("deidentify", tmp_path / "in", tmp_path / "out")
    rows = read_table(tmp_path / "out" / "cohort.csv")
    assert rows[0]["patient_id"] == rows[1]["patient_id"] != rows[2]["patient_id"]
    for row in rows:
        # One patient's dates move alike in image and note.
        day = read_back((tmp_path / "out" / row["images"]).read_bytes()).StudyDate
        moved = f"{day[:4]}-{day[4:6]}-{day[6:]}"
        assert read_note(tmp_path / "out", row) == f"Ms [NAME] coughs {moved}"
        assert moved < "2019-03-01"
    assert f"left out: {BURNED_IN}: 1" in printed
    assert "left out: file that is neither image, note nor recording: 1" in printed
    assert "de-identified: text: name: 3" in printed
    assert "No study has a label" in printed
    assert "labels: there are none" in (tmp_path / "out" / "check.md").read_text()
    assert not (tmp_path / "out" / "check.json").read_text().count("A1")


def test_a_folder_study_is_of_one_patient_and_a_table_is_not_passed_over(tmp_path: Path) -> None:
    place = tmp_path / "in" / "study"
    write_file(place / "x.dcm", dicom(PatientID="A1"))
    write_file(place / "n.txt", "Cough.")
    write_file(
        place / "voice.dcm", voice_object(bytes(range(256)) * 40, samples=10_240, patient_id="B2")
    )
    write_file(tmp_path / "in" / "other" / "n.txt", "Fever.")
    run("deidentify", tmp_path / "in", tmp_path / "out")
    assert len(read_table(tmp_path / "out" / "cohort.csv")) == 1
    left_out = read_record(tmp_path / "out")["left_out"]
    assert left_out == {"study with files of more than one patient": 1}
    with pytest.raises(SourceError, match="medfuse import table"):
        run("deidentify", tmp_path / "out", tmp_path / "again")


def test_what_a_dicom_recording_calls_the_patient_is_found_in_the_note(tmp_path: Path) -> None:
    place = tmp_path / "in" / "study"
    sound = voice_object(bytes(range(256)) * 40, samples=10_240, patient_id="Q-7731")
    write_file(place / "voice.dcm", sound)
    write_file(place / "n.txt", "Recording of Q-7731")
    run("deidentify", tmp_path / "in", tmp_path / "out")
    (row,) = read_table(tmp_path / "out" / "cohort.csv")
    assert read_note(tmp_path / "out", row) == "Recording of [ID]"
    assert row["voice"].endswith("voice.wav")


@pytest.mark.parametrize("source", sorted(set(IMPORTERS) - {"folder", "table"}))
def test_another_layout_is_named_with_what_was_expected(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="expected") as caught:
        run("import", source, tmp_path / "empty", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_import_that_fails_midway_or_is_ended_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_covid(tmp_path / "covid")
    table = tmp_path / "covid" / "metadata.csv"
    rows = read_table(table)
    write_table(table, [*rows[:2], rows[2] | {"folder": "../.."}])
    out = tmp_path / "made" / "out"
    out.mkdir(parents=True)
    with pytest.raises(SourceError, match="outside the folder"):
        run("import", "covid-cxr", tmp_path / "covid", out)
    assert [path.name for path in out.parent.rglob("*")] == ["out"]
    write_table(table, rows)
    for number in (signal.SIGTERM, signal.SIGINT):

        def end(*_: object, number: int = number) -> Path:
            assert list(out.parent.glob(".out*/studies/S000001/image_0.png"))
            signal.raise_signal(number)
            raise AssertionError

        # A test run in the background may have been told to ignore it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with monkeypatch.context() as patched:
            patched.setattr(write, "_characteristics", end)
            with pytest.raises((SystemExit, KeyboardInterrupt)):
                write_import(
                    "covid-cxr",
                    COVID_CXR,
                    COVID_CXR.read(tmp_path / "covid", ImportOptions()),
                    ImportOptions(),
                    out,
                    Session(Pseudonyms(bytes(32))),
                )
        signal.signal(signal.SIGINT, before)
        assert [path.name for path in out.parent.rglob("*")] == ["out"]
    run("import", "covid-cxr", tmp_path / "covid", out)
    assert {path.name for path in out.iterdir()} == WRITTEN
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_covid(tmp_path / "covid")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fail)
        with pytest.raises(SourceError, match=r"out: a file cannot be .* \(No space left"):
            run("import", "covid-cxr", tmp_path / "covid", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["covid"]


def test_an_import_is_read_from_anywhere_and_after_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_covid(tmp_path / "covid")
    monkeypatch.chdir(tmp_path)
    run("import", "covid-cxr", "covid", "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").rename(tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = read_settings(Path("moved"))
    assert all(load_study(row) for row in read_cohort(settings.cohort, settings.tasks).rows)


def test_an_import_is_checked_and_says_plainly_when_it_fails(tmp_path: Path) -> None:
    root = tmp_path / "covid"
    make_covid(root)
    (row, *_) = read_table(root / "metadata.csv")
    findings = ["Pneumonia/Viral/COVID-19", "Pneumonia/Bacterial"] * 20
    notes = ["Cough, COVID-19 suspected.", "Cough."] * 20
    write_table(
        root / "metadata.csv",
        [
            row | {"patientid": n, "finding": finding, "filename": "", "clinical_notes": note}
            for n, (finding, note) in enumerate(zip(findings, notes, strict=True))
        ],
    )
    out = tmp_path / "out"
    printed = " ".join(run("import", "covid-cxr", root, out).split())
    report = LeakReport.model_validate_json((out / "check.json").read_bytes())
    assert report.failed == ("label-in-note", "note-words")
    assert "The cohort fails (label-in-note, note-words)" in printed
    assert "fails its check (label-in-note, note-words)" in printed
    assert all(" ".join(finding.message.split()) in printed for finding in report.findings)
    assert "ready for medfuse train" not in printed
    assert (out / "check.md").read_text().startswith("# The cohort fails")
    # The check is the one that training makes.
    assert report == check_cohort(read_request(out / "cohort.toml"), workers=1)
    # With too few patients it can test little, and says so.
    printed = run("import", "covid-cxr", root, tmp_path / "few", "--limit", 4)
    assert "too few patients (2 with it, 2 without)" in " ".join(printed.split())
    assert "is ready for medfuse train" in printed


def test_an_import_of_which_nothing_is_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    make_mimic(tmp_path / "mimic")
    (tmp_path / "other" / "files").mkdir(parents=True)
    options = ("--images", tmp_path / "other")
    with pytest.raises(SourceError, match=r"no study is left .*images are not there: 4"):
        run("import", "mimic-cxr", tmp_path / "mimic", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "in" / "combined_data.csv", [{"id": "x", "a": 3}])
    with pytest.raises(SourceError, match="no column covid_status, g, record_date"):
        run("import", "coswara", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "patienté".encode("latin-1")),
        ("metadata.csv.gz", b"not gzip"),
        ("metadata.csv.gz", gzip.compress(b"patientid,sex\n" * 99, mtime=0)[:30]),
        ("metadata.csv.gz", gzip.compress(b"a,b\n" * 99, mtime=0)[:20] + bytes(40)),
        ("metadata.csv", '"' + "x" * 2**21),
    ],
    ids=["not UTF-8", "not gzip", "cut off", "damaged", "a cell too large"],
)
def test_a_damaged_table_is_one_line(tmp_path: Path, name: str, content: bytes | str) -> None:
    write_file(tmp_path / "in" / name, content)
    with pytest.raises(SourceError, match="not a well-formed CSV table") as caught:
        run("import", "covid-cxr", tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_table_is_bounded_before_it_is_in_memory(tmp_path: Path) -> None:
    write_file(tmp_path / "in" / "metadata.csv.gz", gzip.compress(b"," * 2**25))
    with pytest.raises(LimitError, match=r"metadata\.csv\.gz: a line has more"):
        run("import", "covid-cxr", tmp_path / "in", tmp_path / "out")


def test_a_damaged_file_in_gzip_is_left_out_as_any_other(tmp_path: Path) -> None:
    make_mimic(tmp_path / "mimic", packed=True)
    (path,) = (tmp_path / "mimic").glob("files/p19/*/*/*.dcm.gz")
    data = path.read_bytes()
    for damaged in (data[:100], data[:20] + bytes(100)):
        path.write_bytes(damaged)
        out = tmp_path / f"out {len(damaged)}"
        rows = import_rows("mimic-cxr", tmp_path / "mimic", out)
        assert rows[3]["images"] == ""
        assert read_record(out)["left_out"] == {"image that can't be read": 1}


def test_a_damaged_archive_of_reports_is_one_line(tmp_path: Path) -> None:
    write_file(tmp_path / "x.xml", "x" * 5_000)
    with tarfile.open(tmp_path / "in.tgz", "w:gz") as archive:
        archive.add(tmp_path / "x.xml", "x.xml")
    data = (tmp_path / "in.tgz").read_bytes()
    for damaged in (b"x" * 500, data[:60], data[:40] + bytes(100)):
        write_file(tmp_path / "in" / "NLMCXR_reports.tgz", damaged)
        with pytest.raises(SourceError, match=r"NLMCXR_reports.tgz: damaged"):
            run("import", "open-i", tmp_path / "in", tmp_path / "out")


def test_a_path_or_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    make_covid(tmp_path / "covid")
    write_file(tmp_path / "secret.png", make_png())
    table = tmp_path / "covid" / "metadata.csv"
    table.write_text(table.read_text().replace("0.png", "../../secret.png"))
    with pytest.raises(SourceError, match="outside the folder"):
        run("import", "covid-cxr", tmp_path / "covid", tmp_path / "out")
    make_covid(tmp_path / "linked")
    (tmp_path / "linked" / "images" / "0.png").unlink()
    (tmp_path / "linked" / "images" / "0.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(SourceError, match="outside the folder"):
        run("import", "covid-cxr", tmp_path / "linked", tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--note", "x"), "--note: 'x' is not one of"),
        (("--uncertain", "x"), "--uncertain"),
        (("--dates", "x"), "--dates"),
    ],
)
def test_a_bad_choice_is_one_line(tmp_path: Path, options: Sequence[str], message: str) -> None:
    make_mimic(tmp_path / "mimic")
    with pytest.raises(MedfuseError, match=message):
        run("import", "mimic-cxr", tmp_path / "mimic", tmp_path / "out", *options)


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    make_mimic(tmp_path / "mimic")
    with pytest.raises(SourceError, match="new or an empty folder"):
        run("import", "mimic-cxr", tmp_path / "mimic", tmp_path / "mimic")
    with pytest.raises(SourceError, match="no source 'x'"):
        run("import", "x", tmp_path / "mimic", tmp_path / "out")


def test_help_lists_every_source() -> None:
    result = CliRunner().invoke(APP, ["import", "--help"], env={"COLUMNS": "200"})
    assert all(name in result.stdout for name in IMPORTERS)


@pytest.mark.parametrize(
    ("age", "kept"),
    [("58.0", "58"), ("93", "90"), ("0.5", "0.5"), ("old", ""), ("", ""), ("-1", "")],
)
def test_ages_are_capped(age: str, kept: str) -> None:
    assert cap_age(age) == kept


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data in ../shared/data")
def test_real_case_notes_and_films_come_through_the_generic_table(tmp_path: Path) -> None:
    options = ("--settings", "docs/examples/covid.toml", "--limit", 12)
    out = tmp_path / "out"
    rows = import_rows("table", SHARED, out, *options)
    assert len(rows) == 12
    settings = read_settings(out)
    cohort = read_cohort(settings.cohort, settings.tasks)
    assert all(load_study(row).images for row in cohort.rows)
    assert isinstance(cohort.rows[0], CohortRow)
    with pytest.raises(CohortError):
        run("import", "table", tmp_path, tmp_path / "no", *options)
