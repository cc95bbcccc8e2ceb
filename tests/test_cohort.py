from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medfuse.config import Settings, Task, TaskKind, read_settings
from medfuse.data.cohort import (
    CohortRow,
    CohortSettings,
    Columns,
    Split,
    load_study,
    read_cohort,
    read_unlabelled,
    read_whole_table,
)
from medfuse.data.labels import LabelSettings
from medfuse.data.splits import SplitSettings, divide_patients, fold_cohort, split_cohort
from medfuse.errors import CohortError
from medfuse.types import Modality

FINDINGS = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion"))
COVID = Task(name="covid", kind=TaskKind.BINARY, classes=("covid19",))
CAUSE = Task(name="cause", kind=TaskKind.MULTICLASS, classes=("viral", "bacterial", "none"))
STAGE = Task(name="stage", kind=TaskKind.ORDINAL, classes=("mild", "moderate", "severe"))
WEIGHT = Task(name="weight", kind=TaskKind.REGRESSION, classes=("weight_kg",), unit="kg")
SECRET = "Doe^Jane"


def write_table(folder: Path, rows: list[dict[str, object]], name: str = "cohort.csv") -> Path:
    for file in ("a.dcm", "b.dcm", "note.txt", "voice.wav"):
        (folder / file).write_bytes(file.encode())
    table = pd.DataFrame(rows)
    path = folder / name
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


def row(patient: str = SECRET, **cells: object) -> dict[str, object]:
    return {"patient_id": patient, "images": "a.dcm", "nodule": 1, "effusion": 0} | cells


def study(patient: str, labels: tuple[float, ...] = (1.0,), number: int = 1) -> CohortRow:
    return CohortRow(number=number, labels=labels, patient_id=patient, study_id=f"s{number}")


def test_a_table_in_the_default_layout_needs_no_mapping(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        [
            row(
                "p1", study_id="s1", images="a.dcm;b.dcm", note="note.txt", voice="", split="train"
            ),
            row(
                "p2", study_id="s2", images="", note="", voice="voice.wav", split="test", nodule=""
            ),
        ],
    )
    first, second = read_cohort(CohortSettings(table=table), [FINDINGS]).rows
    assert first.present == {Modality.IMAGE, Modality.NOTE}
    assert load_study(first).images == (b"a.dcm", b"b.dcm")
    assert load_study(first).note == b"note.txt"
    assert load_study(first).patient_id is None
    assert first.labels == (1.0, 0.0)
    assert (first.split, second.split) == (Split.TRAIN, Split.TEST)
    assert second.present == {Modality.VOICE}
    assert np.isnan(second.labels[0])
    assert second.labels[1] == 0.0


def test_parquet_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    rows = [row("p1", nodule=1.0, age=61), row("p2", nodule=None, age=47)]
    cohorts = [
        read_cohort(CohortSettings(table=write_table(tmp_path, rows, name)), [FINDINGS])
        for name in ("cohort.csv", "cohort.parquet")
    ]
    assert cohorts[0].digest == cohorts[1].digest
    assert [r.age for r in cohorts[0].rows] == [r.age for r in cohorts[1].rows]


class OwnSettings(Settings):
    """A file that holds a cohort alone."""

    cohort: CohortSettings


def test_settings_beside_their_table_are_read_from_anywhere_and_may_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    write_table(tmp_path / "made", [row(note="note.txt")])
    text = '[cohort]\ntable = "cohort.csv"\nroot = "."\nrelative_to = "settings_file"\n'
    (tmp_path / "made" / "own.toml").write_text(text)
    (tmp_path / "made").rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cohort = read_settings(Path("../moved/own.toml"), OwnSettings).cohort
    assert cohort.table == Path("../moved/cohort.csv")
    assert cohort == CohortSettings(table=Path("../moved/cohort.csv"), root=Path("../moved"))
    assert len(read_cohort(cohort, [FINDINGS]).rows) == 1
    with pytest.raises(ValidationError, match="for settings that a file holds"):
        CohortSettings(table=Path("cohort.csv"), relative_to="settings_file")


def test_an_existing_table_is_used_as_it_is(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        [
            {"who": "p1", "film": "a.dcm", "text": "Fever.", "label": "covid19", "view": "PA"},
            {"who": "p2", "film": "b.dcm", "text": " ", "label": "bacterial", "view": "AP"},
            {"who": "p3", "film": "a.dcm", "text": "", "label": "ards", "view": "AP"},
            {"who": "p4", "film": "a.dcm", "text": "", "label": "covid19", "view": "L"},
            {"who": "p5", "film": "", "text": "", "label": "covid19", "view": "PA"},
        ],
    )
    cohort = read_cohort(
        CohortSettings(
            table=table,
            columns=Columns(patient_id="who", images="film", note_text="text"),
            labels={
                "covid": LabelSettings(
                    column="label", positive=("covid19",), negative=("bacterial",)
                )
            },
            keep={"view": ("PA", "AP")},
            check_identity=True,
        ),
        [COVID],
    )
    assert [r.labels for r in cohort.rows] == [(1.0,), (0.0,)]
    assert load_study(cohort.rows[0]).note == b"Fever."
    assert load_study(cohort.rows[0]).patient_id == "p1"
    assert cohort.rows[1].present == {Modality.IMAGE}
    assert dict(cohort.excluded) == {
        "label has a value that no class is mapped to": 1,
        "left out by keep": 1,
        "no image, note or voice": 1,
    }


def test_labels_of_every_kind_of_task_keep_class_level_or_quantity(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        [
            row("p1", cause="none", stage="moderate", weight_kg=71.5),
            row("p2", cause="viral", stage="severe", weight_kg=""),
            row("p3", cause="", stage="mild", weight_kg="60"),
        ],
    )
    labels = read_cohort(CohortSettings(table=table), [CAUSE, STAGE, WEIGHT]).labels
    nan = np.nan
    expected = [[2, 1, 71.5], [0, 2, nan], [nan, 0, 60]]
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"images": "gone.dcm"}, "row 2, column 'images': the file is missing"),
        ({"voice": "../voice.wav"}, "row 2, column 'voice': the path leaves"),
        ({"images": "a.dcm;/etc/passwd"}, "row 2, column 'images': the path leaves"),
        ({"nodule": "maybe"}, "row 2, column 'nodule': expected 0, 1 or nothing"),
        ({"nodule": 2}, "row 2, column 'nodule': expected 0, 1 or nothing"),
        ({"split": "holdout"}, "row 2, column 'split': expected train, validation or test"),
        ({"split": ""}, "row 2, column 'split': expected train, validation or test"),
        ({"patient_id": ""}, "row 2, column 'patient_id': no patient"),
        ({"study_id": "s1"}, "cohort.csv: rows 1 and 2 are the same study"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column_alone(
    tmp_path: Path, cells: dict[str, object], message: str
) -> None:
    rows = [row(study_id="s1", split="train", voice=""), row("Roe^Richard", study_id="s2")]
    rows[1] |= {"split": "train", "voice": ""} | cells
    table = write_table(tmp_path, rows)
    with pytest.raises(CohortError) as caught:
        read_cohort(CohortSettings(table=table), [FINDINGS])
    assert message in str(caught.value)
    for private in (SECRET, "Roe", "gone", "passwd", "maybe", "holdout"):
        assert private not in str(caught.value)


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.dcm").write_bytes(b"")
    (inside / "link.dcm").symlink_to(tmp_path / "outside.dcm")
    table = write_table(inside, [row(images="link.dcm")])
    with pytest.raises(CohortError, match="leaves the cohort's root"):
        read_cohort(CohortSettings(table=table), [FINDINGS])


def test_a_patient_in_two_splits_is_refused_without_a_name(tmp_path: Path) -> None:
    table = write_table(tmp_path, [row(split="train"), row(split="test"), row("p2", split="train")])
    with pytest.raises(CohortError, match=r"^1 patient") as caught:
        read_cohort(CohortSettings(table=table), [FINDINGS])
    assert SECRET not in str(caught.value)


def test_a_row_does_not_show_its_patient(tmp_path: Path) -> None:
    table = write_table(tmp_path, [row(note="note.txt", sex="F", age=61, site="Ward 9")])
    shown = repr(read_cohort(CohortSettings(table=table), [FINDINGS]).rows[0])
    for private in (SECRET, "61", "Ward", "note.txt", "a.dcm"):
        assert private not in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": Columns(voice="cough")}, "no column 'cough'; it has patient_id, images"),
        ({"columns": Columns(patient_id="")}, "split by patient"),
        ({"keep": {"view": ("PA",)}}, "no column 'view'"),
        ({"labels": {"stage": LabelSettings()}}, "names no task: stage"),
        ({"labels": {"findings": LabelSettings(columns={"mass": "m"})}}, "no finding: mass"),
        ({"labels": {"findings": LabelSettings(positive=("x",))}}, "binary task and a column"),
        ({"table": Path("absent.csv")}, "cannot be read"),
        ({"table": Path("cohort.xlsx")}, "ends in .csv or .parquet"),
    ],
)
def test_a_mapping_that_does_not_fit_is_an_error_that_says_so(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    fitting = CohortSettings(table=write_table(tmp_path, [row()]))
    with pytest.raises(CohortError) as caught:
        read_cohort(fitting.model_copy(update=changes), [FINDINGS])
    assert message in str(caught.value)


def test_a_table_of_the_web_is_not_fetched_and_the_message_says_why() -> None:
    with pytest.raises(CohortError, match="this is an address; download it first"):
        read_cohort(CohortSettings(table=Path("https://localhost:1/y.csv")), [FINDINGS])


def test_a_table_in_another_encoding_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_bytes("patient_id,images\nMüller,a.dcm\n".encode("latin-1"))
    with pytest.raises(CohortError, match=r"old\.csv: expected a CSV table in UTF-8.*Latin-1"):
        read_cohort(CohortSettings(table=tmp_path / "old.csv"), [FINDINGS])


def test_a_missing_file_is_its_own_studys_matter_where_none_is_learnt_from(tmp_path: Path) -> None:
    rows = [row("p1", study_id="s1", images="gone.dcm"), row("p2", study_id="s2")]
    table = CohortSettings(table=write_table(tmp_path, rows))
    gone, there = read_unlabelled(table).rows
    with pytest.raises(CohortError, match=r"^row 1: a file cannot be read"):
        load_study(gone)
    assert load_study(there).images == (b"a.dcm",)
    every = CohortSettings(table=write_table(tmp_path, rows[:1]))
    with pytest.raises(CohortError, match="the file is missing"):
        read_unlabelled(every)


def test_a_table_that_is_not_one_is_refused(tmp_path: Path) -> None:
    for name in ("broken.parquet", "broken.csv"):
        (tmp_path / name).write_bytes(b"a,b\n1,2\n1,2,3\n")
        with pytest.raises(CohortError, match="not a well-formed"):
            read_cohort(CohortSettings(table=tmp_path / name), [FINDINGS])


patients_of_studies = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([0.0, 1.0, np.nan])), min_size=1, max_size=80
)


@settings(deadline=None)
@given(patients_of_studies, st.integers(2, 6), st.integers(0, 9))
def test_no_patient_is_ever_in_two_parts(
    studies: list[tuple[int, float]], parts: int, seed: int
) -> None:
    rows = [study(str(p), (label,), i) for i, (p, label) in enumerate(studies)]
    names = {r.patient_id for r in rows}
    if len(names) < parts:
        with pytest.raises(CohortError, match="cannot be divided"):
            divide_patients(rows, [1 / parts] * parts, seed)
        return
    found = divide_patients(rows, [1 / parts] * parts, seed)
    for name in names:
        assert len({p for r, p in zip(rows, found, strict=True) if r.patient_id == name}) == 1
    assert ((found >= 0) & (found < parts)).all()


@settings(deadline=None, max_examples=30)
@given(patients_of_studies, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_change_who_goes_where(
    studies: list[tuple[int, float]], random: Random
) -> None:
    rows = [study(str(p), (label,), i) for i, (p, label) in enumerate(studies)]
    if len({r.patient_id for r in rows}) < 3:
        return
    shuffled = list(rows)
    random.shuffle(shuffled)
    placed = [
        dict(
            zip(
                (r.patient_id for r in order),
                divide_patients(order, [0.6, 0.2, 0.2], 1).tolist(),
                strict=True,
            )
        )
        for order in (rows, shuffled)
    ]
    assert placed[0] == placed[1]


def test_every_part_has_its_share_of_studies_and_of_a_rare_label() -> None:
    rng = np.random.default_rng(0)
    rows = [
        study(str(i // 2), (float(rng.random() < 0.05), float(rng.random() < 0.4)), i)
        for i in range(1_000)
    ]
    parts = divide_patients(rows, [0.65, 0.15, 0.2], seed=0)
    labels = np.array([r.labels for r in rows])
    for part, share in enumerate([0.65, 0.15, 0.2]):
        assert (parts == part).mean() == pytest.approx(share, abs=0.01)
        for k in range(2):
            assert labels[parts == part, k].sum() == pytest.approx(
                share * labels[:, k].sum(), abs=1.5
            )


def test_another_seed_gives_another_split() -> None:
    rows = [study(str(i), (float(i % 2),), i) for i in range(60)]
    first, again, other = (divide_patients(rows, [0.5, 0.5], seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_folds_test_every_patient_once_and_never_train_on_them(tmp_path: Path) -> None:
    rows = [row(f"p{i // 2}", nodule=i % 2) for i in range(60)]
    cohort = read_cohort(CohortSettings(table=write_table(tmp_path, rows)), [FINDINGS])
    folds = fold_cohort(cohort, SplitSettings(folds=5))
    tested = [r.number for fold in folds for r in fold.part(Split.TEST)]
    assert sorted(tested) == list(range(1, 61))
    for fold in folds:
        groups = [{r.patient_id for r in fold.part(split)} for split in Split]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 30
        assert all(groups)


def test_a_given_split_is_kept_and_lacking_validation_is_taken_from_training(
    tmp_path: Path,
) -> None:
    rows = [row(f"p{i}", nodule=i % 2, split="test" if i < 10 else "train") for i in range(50)]
    cohort = read_cohort(CohortSettings(table=write_table(tmp_path, rows)), [FINDINGS])
    divided = split_cohort(cohort, SplitSettings(validation=0.2, test=0.2))
    assert [r.number for r in divided.part(Split.TEST)] == list(range(1, 11))
    assert len(divided.part(Split.VALIDATION)) == 10
    with pytest.raises(CohortError, match="has a split of its own"):
        fold_cohort(cohort, SplitSettings(folds=5))


def test_a_given_split_without_test_studies_is_refused(tmp_path: Path) -> None:
    rows = [row(f"p{i}", split="train" if i else "val") for i in range(4)]
    cohort = read_cohort(CohortSettings(table=write_table(tmp_path, rows)), [FINDINGS])
    with pytest.raises(CohortError, match="no test studies"):
        split_cohort(cohort, SplitSettings())


def test_studies_without_labels_train_if_asked_and_never_beside_a_held_out_patient(
    tmp_path: Path,
) -> None:
    rows = [
        row(f"p{i // 2}", **(dict.fromkeys(("nodule", "effusion"), "") if i % 3 == 0 else {}))
        for i in range(60)
    ]
    table = write_table(tmp_path, rows)
    assert len(read_cohort(CohortSettings(table=table), [FINDINGS]).rows) == 40
    cohort = read_cohort(CohortSettings(table=table, unlabelled="train"), [FINDINGS])
    assert len(cohort.rows) == 60
    for divided in (
        split_cohort(cohort, SplitSettings()),
        *fold_cohort(cohort, SplitSettings(folds=4)),
    ):
        assert [r.number for r in divided.rows] == [r.number for r in cohort.rows]
        held = {r.patient_id for s in (Split.VALIDATION, Split.TEST) for r in divided.part(s)}
        for r in divided.rows:
            if r.labelled:
                assert r.split is not None
            else:
                assert r.split is (None if r.patient_id in held else Split.TRAIN)
        assert not held & {r.patient_id for r in divided.part(Split.TRAIN)}


def test_a_whole_table_has_its_other_columns_and_its_torn_patients(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        [
            row("p1", study_id="s1", split="train", site="A", scanner="x", url=" https://a "),
            row("p1", study_id="s2", split="test", site="B", scanner="y", url=""),
            row("p2", study_id="s3", split="test", nodule="", effusion="", scanner="z"),
        ],
    )
    whole = read_whole_table(CohortSettings(table=table), [FINDINGS])
    assert [r.study_id for r in whole.cohort.rows] == ["s1", "s2"]
    assert dict(whole.others) == {"scanner": ("x", "y"), "url": ("https://a", "")}
    with pytest.raises(CohortError, match="more than one split"):
        read_cohort(CohortSettings(table=table), [FINDINGS])


def test_a_table_that_names_no_file_is_read_whole_and_trains_nothing(tmp_path: Path) -> None:
    bare = write_table(tmp_path, [{"patient_id": "p", "nodule": 1, "effusion": 0, "day": "x"}])
    whole = read_whole_table(CohortSettings(table=bare), [FINDINGS])
    assert len(whole.cohort.rows) == 1
    assert dict(whole.others) == {"day": ("x",)}
    with pytest.raises(CohortError, match="no image, note or voice"):
        read_cohort(CohortSettings(table=bare), [FINDINGS])
    # A study that lacks all that others of its table have is left out in either.
    mixed = write_table(tmp_path, [row("p1"), row("p2", images="")])
    assert len(read_whole_table(CohortSettings(table=mixed), [FINDINGS]).cohort.rows) == 1
