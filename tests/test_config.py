"""Settings files: what is accepted and how a bad one is refused."""

from pathlib import Path

import pytest

from medfuse.config import PrepareSettings, Task, TaskKind, read_settings
from medfuse.errors import SettingsError


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[image]\nsise = 224\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"image\.sise"):
        read_settings(path, PrepareSettings)


def test_a_value_out_of_range_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[image]\nsize = 1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"image\.size"):
        read_settings(path, PrepareSettings)


def test_a_missing_file_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(tmp_path / "absent.toml", PrepareSettings)


@pytest.mark.parametrize("weight", ["0", "-1.0", "inf", "nan"])
def test_a_task_s_weight_is_a_positive_number(tmp_path: Path, weight: str) -> None:
    path = tmp_path / "task.toml"
    text = 'name = "ill"\nkind = "binary"\nclasses = ["ill"]\n'
    path.write_text(text, encoding="utf-8")
    assert read_settings(path, Task).weight == 1
    path.write_text(f"{text}weight = {weight}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="weight"):
        read_settings(path, Task)


def test_an_ordinal_task_has_one_logit_per_threshold() -> None:
    task = Task(name="severity", kind=TaskKind.ORDINAL, classes=("none", "mild", "severe"))
    assert task.logits == 2
    assert task.targets == ("severity.at_least_mild", "severity.at_least_severe")
