import tomllib
from pathlib import Path

import pytest

from medfuse.config import read_settings
from medfuse.data.cohort import read_cohort
from medfuse.errors import SettingsError
from medfuse.synthetic.world import TASKS
from medfuse.training.leaderboard.run import vary
from medfuse.training.settings import TrainSettings

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.mark.parametrize("name", ["compare", "demo", "findings-text", "known-truth"])
def test_known_truth_examples_ask_what_the_known_truth_cohort_answers(name: str) -> None:
    settings = read_settings(EXAMPLES / f"{name}.toml", TrainSettings)
    assert settings.tasks == TASKS
    assert settings.split.folds == 0


@pytest.mark.parametrize("name", ["imbalance", "objectives"])
def test_the_examples_contenders_can_be_compared(name: str) -> None:
    settings = read_settings(EXAMPLES / "compare.toml", TrainSettings)
    contenders = tomllib.loads((EXAMPLES / f"{name}.toml").read_text())
    assert len({vary(settings, *one).model_dump_json() for one in contenders.items()}) > 4


def test_the_worked_example_reads_a_table_of_that_layout(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(4):
        (tmp_path / "images" / f"{i}.jpg").touch()
    (tmp_path / "cxr_notes.csv").write_text(
        "patient_id,image_path,label,sex,age,view,note,note_masked,split\n"
        'a,images/0.jpg,covid19,M,54,PA,"COVID, fever","[MASKED], fever",\n'
        "b,images/1.jpg,other_pneumonia,F,,AP_SUPINE,,,\n"
        "c,images/2.jpg,covid19,F,,L,,,\n"
        "d,images/3.jpg,ards,F,,AP,,,\n",
        encoding="utf-8",
    )
    settings = read_settings(EXAMPLES / "covid.toml", TrainSettings)
    table = tmp_path / settings.cohort.table.name
    cohort = read_cohort(settings.cohort.model_copy(update={"table": table}), settings.tasks)
    assert [row.labels for row in cohort.rows] == [(1.0,), (0.0,)]
    assert [row.note_text for row in cohort.rows] == ["[MASKED], fever", None]
    assert [row.split for row in cohort.rows] == [None, None]
    assert sorted(cohort.excluded.values()) == [1, 1]
    assert settings.split.folds == 5
    assert settings.prepare.image.pictures


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[fit]\nepoch = 3\n", "fit.epoch"),
        ("[fit]\nmodality_dropout = 1.0\n", "fit.modality_dropout"),
        ("[split]\nfolds = 1\n", "no cross-validation"),
        ('[missing]\nmechanism = "finding"\n', "if, and only if"),
        ('[missing]\nmechanism = "finding"\nfinding = "x"\n', "expected one of x.x"),
        ("[missing]\nrate = 0.95\n", "missing.rate"),
        ("[split]\ntest = 0.9\nvalidation = 0.2\n", "leave no patient to train on"),
        ('[cohort.columns]\nnote = "a"\nnote_text = "b"\n', "not both"),
        ('[[tasks]]\nname = "x"\nkind = "binary"\nclasses = ["x"]\n', "same name"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, more: str, message: str) -> None:
    task = '[[tasks]]\nname = "x"\nkind = "binary"\nclasses = ["x"]\n'
    (tmp_path / "config.toml").write_text(f'[cohort]\ntable = "t.csv"\n{task}{more}')
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path / "config.toml", TrainSettings)
    assert message in str(caught.value)
