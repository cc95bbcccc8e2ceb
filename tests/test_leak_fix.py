"""``medfuse check-cohort`` on files: what it prints and keeps, and cohorts without their leaks."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from medfuse.config import Box, PrepareSettings, VoiceSettings, read_settings
from medfuse.data.cohort import read_cohort
from medfuse.data.dicom import decode_frames
from medfuse.data.image import prepare_images
from medfuse.errors import CohortError
from medfuse.leaks.check import CheckRequest, check_cohort
from medfuse.leaks.command import check_cohort as command
from medfuse.leaks.fix import SETTINGS, change_preparation, fix_cohort
from medfuse.leaks.plant import frame_image
from medfuse.leaks.report import LeakReport, Remedy
from medfuse.synthetic.cohort import write_cohort
from medfuse.synthetic.options import CohortOptions, Shortcut
from medfuse.synthetic.world import FINDINGS
from medfuse.training.settings import TrainSettings
from medfuse.types import Modality

APP = typer.Typer()
APP.command()(command)

CONFIG = """
# A comment that stays.
[cohort]
table = {table}

[[tasks]]
name = "findings"
kind = "multilabel"
classes = {findings}

[[tasks]]
name = "affect"
kind = "binary"
classes = ["low_mood"]

[features]
workers = 1
"""


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def tainted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of 90 studies with a mark in the image, a place in the note, and a torn patient."""
    folder = tmp_path_factory.mktemp("tainted")
    shortcuts = (
        Shortcut(modality=Modality.IMAGE, finding="pneumonia", strength=0.8),
        Shortcut(modality=Modality.NOTE, finding="heart_failure", strength=0.8),
    )
    options = CohortOptions(studies=90, seed=4, size=192, shortcuts=shortcuts)
    write_cohort(folder / "cohort", options, workers=1)
    path = folder / "cohort" / "cohort.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    several = table[table.patient_id.duplicated()].index[0]
    table.loc[several, "split"] = "test" if table.loc[several, "split"] == "train" else "train"
    table.to_csv(path, index=False)
    config = folder / "settings.toml"
    config.write_text(
        CONFIG.format(table=json.dumps(str(path)), findings=json.dumps(FINDINGS)), encoding="utf-8"
    )
    return config


def request_of(config: Path) -> CheckRequest:
    settings = read_settings(config, TrainSettings)
    return CheckRequest(settings.cohort, settings.tasks, settings.prepare, settings.check)


@pytest.mark.slow
def test_a_failing_cohort_is_named_by_its_leaks_and_fixed_without_a_change_to_it(
    tainted: Path, tmp_path: Path
) -> None:
    before = {p: p.read_bytes() for p in tainted.parent.rglob("*") if p.is_file()}
    result = run(tainted, "--out", tmp_path / "report", "--workers", 1)
    assert result.exit_code == 1
    report = LeakReport.model_validate_json((tmp_path / "report" / "check.json").read_bytes())
    assert set(report.failed) == {"patient-in-splits", "marks", "source-in-note"}
    assert {(f.kind, f.target) for f in report.by("fail")} == {
        ("patient-in-splits", None),
        ("marks", "findings.pneumonia"),
        ("source-in-note", "findings.heart_failure"),
    }
    text = (tmp_path / "report" / "check.md").read_text()
    assert text.startswith("# The cohort fails (")
    table = pd.read_csv(tainted.parent / "cohort" / "cohort.csv", dtype=str)
    assert not any(patient in text for patient in table.patient_id)
    with pytest.raises(CohortError, match="more than one split"):
        read_cohort(request_of(tainted).cohort, request_of(tainted).tasks)

    fixed = run(tainted, "--fix", tmp_path / "fixed", "--workers", 1)
    assert fixed.exit_code == 0, fixed.stdout
    assert {p: p.read_bytes() for p in before} == before
    config = tmp_path / "fixed" / "settings.toml"
    assert "# A comment that stays." in config.read_text()
    written = tomllib.loads(config.read_text())
    assert "Seen at the Northfield unit" in written["prepare"]["note"]["mask_words"]
    assert written["prepare"]["image"]["blank"]
    # Nothing had to be dropped, and the cohort can be trained on.
    request = request_of(config)
    assert len(read_cohort(request.cohort, request.tasks).rows) == 90
    assert (tmp_path / "fixed" / "check.md").read_text().startswith("# The cohort passes")
    log = pd.read_csv(tmp_path / "fixed" / "remedies.csv")
    assert set(log.kind) == {"patient-in-splits", "marks", "source-in-note"}


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of 90 studies as PNG, those of one label in a black frame, with few exceptions."""
    folder = tmp_path_factory.mktemp("framed")
    write_cohort(folder / "cohort", CohortOptions(studies=90, seed=4, size=192), workers=1)
    path = folder / "cohort" / "cohort.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    rng = np.random.default_rng(0)
    prepare = PrepareSettings()
    for i, (names, label) in enumerate(zip(table.images, table.pneumonia, strict=True)):
        first = folder / "cohort" / names.split(";")[0]
        image = decode_frames([first.read_bytes()], prepare.image, prepare.limits)[0].image
        plain = first.with_name("plain.png")
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(plain)
        own = first.with_name("image.png")
        has = rng.random() < (0.9 if label == "1" else 0.1)
        own.write_bytes(frame_image(image, rng) if has else plain.read_bytes())
        table.loc[i, "images"] = str(own.relative_to(path.parent))
    table.to_csv(path, index=False)
    config = folder / "settings.toml"
    text = CONFIG.format(table=json.dumps(str(path)), findings=json.dumps(FINDINGS))
    columns = '[cohort.columns]\nnote = ""\nvoice = ""\n'  # which take as long to read
    config.write_text(f"{text}\n{columns}[prepare.image]\npictures = true\n", encoding="utf-8")
    return config


@pytest.mark.slow
def test_a_frame_is_blanked_by_one_command_and_gone_from_what_the_model_gets(
    framed: Path, tmp_path: Path
) -> None:
    fixed = run(framed, "--fix", tmp_path / "fixed", "--workers", 1)
    assert fixed.exit_code == 0, fixed.stdout
    assert "border" in set(pd.read_csv(tmp_path / "fixed" / "remedies.csv").kind)
    request = request_of(tmp_path / "fixed" / "settings.toml")
    rows = read_cohort(request.cohort, request.tasks).rows
    assert len(rows) == 90
    after = check_cohort(request, workers=1)
    assert "border" not in {f.kind for f in after.findings}
    # The model gets the same of a picture with a frame and of the one without.
    pictures = [(row.images[0], row.images[0].with_name("plain.png")) for row in rows]
    files = [tuple(path.read_bytes() for path in pair) for pair in pictures]
    assert sum(own != plain for own, plain in files) > 20
    image, limits = request.prepare.image, request.prepare.limits
    for own, plain in files:
        got, wanted = (prepare_images([data], image, limits)[0].values for data in (own, plain))
        np.testing.assert_array_equal(got, wanted)
        assert wanted.mean() > 0.1


def of_table(folder: Path, table: pd.DataFrame, more: str = "") -> Path:
    """Settings of a table of notes."""
    path = folder / "own.csv"
    table.to_csv(path, index=False)
    config = folder / "own.toml"
    config.write_text(
        f"[cohort]\ntable = {json.dumps(str(path))}\n"
        '[cohort.columns]\nnote_text = "text"\n'
        '[[tasks]]\nname = "covid"\nkind = "binary"\nclasses = ["covid19"]\n' + more,
        encoding="utf-8",
    )
    return config


def make_table(n: int = 120) -> pd.DataFrame:
    words = ("cough", "fever", "tired", "chills", "nausea", "rash", "pain", "ache", "itch", "gout")
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "patient_id": [f"P{i}" for i in range(n)],
            "covid19": [str(i % 2) for i in range(n)],
            "text": [" ".join(rng.choice(words, 20)) for _ in range(n)],
        }
    )


def test_rows_are_dropped_until_the_website_tells_nothing(tmp_path: Path) -> None:
    table = make_table().assign(website=lambda t: ["ab"[i % 2 ^ (i % 10 < 2)] for i in t.index])
    config = of_table(tmp_path, table)
    fixed = fix_cohort(config, request_of(config), tmp_path / "fixed", workers=1)
    assert fixed.before.failed == ("source",)
    assert fixed.after.failed == ()
    left = pd.read_csv(tmp_path / "fixed" / "cohort.csv")
    assert len(left) == fixed.rows < 120
    shares = left.groupby("website").covid19.mean()
    assert abs(shares["a"] - shares["b"]) < 0.15
    # The table had no identifiers; the studies keep those of their old rows.
    assert set(left.study_id) <= {f"row-{i + 1}" for i in range(120)}
    row = left.iloc[-1]
    assert row.patient_id == f"P{int(row.study_id.removeprefix('row-')) - 1}"


@pytest.mark.parametrize(
    "layout",
    [
        "[cohort]\ntable = {table}\n[prepare.note]\nword_pieces = 60\n"
        '[cohort.columns]\nnote_text = "text"\n',
        'cohort = {{ table = {table}, columns = {{ note_text = "text" }} }}\n'
        "prepare = {{ image = {{ size = 96 }} }}\n",
        'cohort.table = {table}\ncohort.columns.note_text = "text"\n'
        "prepare.note.word_pieces = 60\n",
    ],
    ids=["sections in parts", "braces", "dots"],
)
def test_settings_are_fixed_however_they_are_laid_out(layout: str, tmp_path: Path) -> None:
    table = make_table(60).assign(covid19=lambda t: t.covid19.astype(str))
    told = table.covid19.astype(int) * 5 - (np.arange(60) % 15 == 0)
    table["text"] += np.where(told > 3, " covid19", "")
    config = of_table(tmp_path, table)
    tasks = '[[tasks]]\nname = "covid"\nkind = "binary"\nclasses = ["covid19"]\n'
    config.write_text(
        layout.format(table=json.dumps(str(tmp_path / "own.csv"))) + tasks, encoding="utf-8"
    )
    fix_cohort(config, request_of(config), tmp_path / "fixed", workers=1)
    before, after = (
        read_settings(path, TrainSettings) for path in (config, tmp_path / "fixed" / SETTINGS)
    )
    assert after.prepare.note.mask_words
    note = before.prepare.note.model_copy(update={"mask_words": after.prepare.note.mask_words})
    assert after.prepare == before.prepare.model_copy(update={"note": note})
    columns = before.cohort.columns.model_copy(update={"study_id": "study_id"})
    assert after.cohort.columns == columns
    assert len(read_cohort(after.cohort, after.tasks).rows) == 60


def test_a_copied_note_makes_one_patient_of_two_in_one_split(tmp_path: Path) -> None:
    table = make_table(40)
    table["split"] = ["train"] * 30 + ["validation"] * 4 + ["test"] * 6
    table["text"] = [*table.text[:35], table.text[3], *table.text[36:]]
    config = of_table(tmp_path, table)
    fixed = fix_cohort(config, request_of(config), tmp_path / "fixed", workers=1)
    assert fixed.before.failed == ("duplicate-note",)
    assert fixed.after.failed == ()
    # The new cohort is read from anywhere, also after it is moved.
    (tmp_path / "fixed").rename(tmp_path / "moved")
    request = request_of(tmp_path / "moved" / "settings.toml")
    assert len(read_cohort(request.cohort, request.tasks).rows) == 40
    left = pd.read_csv(tmp_path / "moved" / "cohort.csv")
    assert left.patient_id[3] == left.patient_id[35] == "P3"
    assert left.split[3] == left.split[35]
    assert len(left) == 40


def test_a_leak_without_a_remedy_stays_and_is_reported(tmp_path: Path) -> None:
    table = make_table().assign(site=lambda t: ["ab"[i % 2] for i in t.index])
    config = of_table(tmp_path, table)
    result = run(config, "--fix", tmp_path / "fixed", "--workers", 1)
    assert result.exit_code == 1
    assert "fails (site)" in result.stdout


def test_a_fix_never_writes_into_a_folder_with_something_in_it(tmp_path: Path) -> None:
    config = of_table(tmp_path, make_table(20))
    with pytest.raises(CohortError, match="new or an empty folder"):
        fix_cohort(config, request_of(config), tmp_path, workers=1)


def test_remedies_add_up_in_the_preparation() -> None:
    box = Box(top=0, left=0, bottom=0.1, right=0.1)
    start = PrepareSettings(voice=VoiceSettings(lowpass_hz=3_000))
    once = change_preparation(start, Remedy(mask_words=("a",), blank=(box,), lowpass_hz=4_000))
    twice = change_preparation(once, Remedy(mask_words=("b", "a"), blank=(box,), lowpass_hz=1_800))
    assert once.voice.lowpass_hz == 3_000
    assert twice.voice.lowpass_hz == 1_800
    assert twice.note.mask_words == ("a", "b")
    assert twice.image.blank == (box,)


def test_a_table_without_any_file_is_checked(tmp_path: Path) -> None:
    table = make_table().drop(columns="text")
    table["record_date"] = [f"20{20 + i % 2}-0{1 + i % 9}-11" for i in table.index]
    path = tmp_path / "bare.csv"
    table.to_csv(path, index=False)
    config = tmp_path / "bare.toml"
    config.write_text(
        f"[cohort]\ntable = {json.dumps(str(path))}\n"
        '[[tasks]]\nname = "covid"\nkind = "binary"\nclasses = ["covid19"]\n'
    )
    result = run(config, "--workers", 1)
    assert result.exit_code == 1
    assert "fails (date)" in result.stdout
    assert "2020" in result.stdout


@pytest.mark.parametrize("arguments", [(), ("a.toml", "--prove", 2)])
def test_either_a_cohort_or_a_proof_is_asked_for(arguments: tuple[object, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--prove" in result.output
