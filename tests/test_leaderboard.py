from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from medfuse.config import Task, TaskKind, read_settings
from medfuse.data.cohort import Cohort, CohortRow, CohortSettings
from medfuse.errors import SettingsError, TrainingError
from medfuse.training.fit import fit_model
from medfuse.training.gather import gather
from medfuse.training.leaderboard import run as board_run
from medfuse.training.leaderboard.command import leaderboard
from medfuse.training.leaderboard.kept import Cost, Kept, load_kept, save_kept
from medfuse.training.leaderboard.measure import measure_board
from medfuse.training.leaderboard.report import Leaderboard, format_leaderboard
from medfuse.training.leaderboard.run import BoardOptions, run_leaderboard, vary
from medfuse.training.settings import RunReportSettings, TrainSettings
from medfuse.trust.answers import AS_GIVEN
from medfuse.trust.comparison import corrected_t_test
from medfuse.types import SUBSETS, subset_name
from tests.tiny_run import write_config

FINDINGS = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("nodule", "effusion"))
SETTINGS = TrainSettings(
    cohort=CohortSettings(table=Path("nowhere/cohort.csv")),
    tasks=(FINDINGS,),
    report=RunReportSettings(resamples=200),
)
STUDIES, REPEATS, FOLDS = 60, 2, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, (STUDIES, 2)).astype(float)
PATIENTS = np.arange(STUDIES) // 2
COHORT = Cohort(
    (FINDINGS,),
    tuple(CohortRow(i + 1, tuple(LABELS[i]), f"p{PATIENTS[i]}", f"s{i}") for i in range(STUDIES)),
)
NOISE = RNG.normal(size=(REPEATS, STUDIES, 2))


def keep_folds(logits: np.ndarray, repeat: int) -> list[Kept]:
    """Cut answers to all studies into folds whose studies stand in any order."""
    rng = np.random.default_rng(repeat)
    part = rng.permutation(STUDIES // 2)[PATIENTS] % FOLDS
    folds = []
    for fold in range(FOLDS):
        studies = rng.permutation(np.flatnonzero(part == fold))
        said = dict.fromkeys((AS_GIVEN, *map(subset_name, SUBSETS)), logits[studies])
        said["voice"] = np.full_like(said["voice"], np.nan)  # nobody has a recording
        present = np.tile([True, True, False], (len(studies), 1))
        cost = Cost(seconds=1.0 + fold, epochs=3, parameters=100, fusion_parameters=10)
        folds.append(Kept(studies, STUDIES - len(studies) - 5, present, said, cost))
    return folds


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    fits = {
        "noise": [keep_folds(NOISE[r], r) for r in range(REPEATS)],
        "perfect": [keep_folds(LABELS, r) for r in range(REPEATS)],
        "same": [keep_folds(NOISE[r], r) for r in range(REPEATS)],
    }
    return measure_board(SETTINGS, COHORT, fits, "noise", left_out=0)


def areas(logits: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(LABELS[chosen, k], logits[chosen, k]) for k in range(2)]))


def test_the_figure_is_the_mean_over_repeats_of_the_pooled_folds(board: Leaderboard) -> None:
    every = np.ones(STUDIES, bool)
    expected = [areas(own, every) for own in NOISE]
    entry = next(e for e in board.entries if e.name == "noise")
    assert entry.repeat_values == pytest.approx(expected)
    assert entry.value.value == pytest.approx(np.mean(expected))
    assert entry.value.low is not None
    assert entry.value.low < np.mean(expected)
    assert entry.subsets["image+note"] == entry.value
    assert entry.subsets["voice"].value is None
    assert entry.seconds == 2.0


def test_the_best_is_first_and_keeps_its_rank_in_every_resample(board: Leaderboard) -> None:
    assert [e.rank for e in board.entries] == [1, 2, 3]
    assert board.entries[0].name == "perfect"
    assert board.entries[0].value.low == 1.0
    assert board.entries[0].ranks == (1.0, 1.0)
    assert board.entries[1].ranks == (2.5, 2.5)


def test_equal_fusions_do_not_differ_and_a_better_one_does(board: Leaderboard) -> None:
    by_name = {c.name: c for c in board.against_baseline}
    assert by_name.keys() == {"perfect", "same"}
    same = by_name["same"]
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert (same.p_value, same.p_holm) == (1.0, 1.0)
    perfect = by_name["perfect"]
    noise = next(e for e in board.entries if e.name == "noise").value
    assert perfect.difference.value == pytest.approx(1 - (noise.value or 0))
    assert perfect.difference.low == pytest.approx(1 - (noise.high or 0))
    folds = [(NOISE[r], fold) for r in range(REPEATS) for fold in keep_folds(NOISE[r], r)]
    gaps = np.array([1 - areas(logits, fold.studies) for logits, fold in folds])
    share = STUDIES / sum(fold.train for _, fold in folds[:FOLDS])
    assert perfect.p_value == pytest.approx(corrected_t_test(gaps, share))
    assert perfect.p_holm == pytest.approx(2 * corrected_t_test(gaps, share))
    assert perfect.folds == REPEATS * FOLDS
    assert {c.name: c.against for c in board.against_best} == {
        "noise": "perfect",
        "same": "perfect",
    }


def test_the_table_has_every_fusion_subset_and_comparison(board: Leaderboard) -> None:
    table = format_leaderboard(board)
    assert "| 1 | perfect | 1.000 [1.000, 1.000] | 1 to 1 | 100 | 10 | 3.0 | 2.0 |" in table
    assert "| same | 0.000 [0.000, 0.000] | 1.000 | 1.000 | 6 |" in table
    assert "## Against the baseline noise" in table
    assert "2 times 3-fold" in table


def test_a_kept_fit_comes_back_as_it_was_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    kept = keep_folds(NOISE[0], 0)[0]
    save_kept(tmp_path / "fit.safetensors", kept)
    back = load_kept(tmp_path / "fit.safetensors")
    np.testing.assert_equal(back.logits, kept.logits)
    np.testing.assert_array_equal(back.studies, kept.studies)
    np.testing.assert_array_equal(back.present, kept.present)
    assert (back.train, back.cost) == (kept.train, kept.cost)
    (tmp_path / "fit.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match="damaged"):
        load_kept(tmp_path / "fit.safetensors")


def run(*arguments: object) -> None:
    app = typer.Typer()
    app.command()(leaderboard)
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0


def test_every_fusion_meets_the_same_folds_and_what_was_fitted_is_kept(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert, epochs=1)
    out = tmp_path / "board"
    options = ("--out", out, "--repeats", 1, "--folds", 2, "--fusions", "cross_attention,gated")
    run(config, *options)
    board = Leaderboard.model_validate_json((out / "leaderboard.json").read_bytes())
    assert (board.studies, board.left_out) == (
        35,
        {"test study of the table's own split, held back": 5},
    )
    assert board.baseline == "gated"
    for plot in ("leaderboard.png", "subsets.png"):
        assert (out / plot).read_bytes().startswith(b"\x89PNG")
    kept = sorted(out.glob("fits/*/answers.safetensors"))
    tested = [tuple(load_kept(path).studies) for path in kept]
    assert len(tested) == 4
    assert set(tested[:2]) == set(tested[2:])
    assert sorted(sum(tested[:2], ())) == list(range(35))

    kept[0].unlink()
    fitted: list[str] = []

    def watch(*arguments: Any) -> object:
        fitted.append(str(arguments[3]))
        return fit_model(*arguments)

    monkeypatch.setattr(board_run, "fit_model", watch)
    for slow in ("plot_leaderboard", "plot_by_subset"):
        monkeypatch.setattr(board_run, slow, lambda path, board: None)
    run(config, *options)
    assert fitted == [str(kept[0].parent)]
    again = Leaderboard.model_validate_json((out / "leaderboard.json").read_bytes())
    assert [e.value for e in again.entries] == [e.value for e in board.entries]
    assert again.against_best == board.against_best


def test_contenders_see_what_is_missing_on_purpose_and_share_what_can_be_shared(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert, epochs=1)
    left: list[float] = []
    gathered: list[TrainSettings] = []

    def look(*arguments: Any) -> object:
        left.append(float(arguments[2].present.mean()))
        raise TrainingError("seen enough")

    def count(own: TrainSettings, *rest: Any, **more: Any) -> object:
        gathered.append(own)
        return gather(own, *rest, **more)

    monkeypatch.setattr(board_run, "fit_model", look)
    monkeypatch.setattr(board_run, "gather", count)
    contenders: dict[str, Any] = {
        "thin": {"missing": {"mechanism": "random", "rate": 0.8}},
        "wide": {"model": {"width": 32}},
        "short": {"prepare": {"note": {"word_pieces": 24}}},
    }
    options = BoardOptions(contenders=contenders, baseline="thin", repeats=1, folds=2)
    with pytest.raises(TrainingError, match="seen enough"):
        run_leaderboard(read_settings(config, TrainSettings), options, tmp_path / "board")
    assert 0 < left[0] < 0.6
    assert [own.prepare.note.word_pieces for own in gathered] == [48, 24]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--fusions", "gated,none"), "no fusion none; there are gated"),
        (("--fusions", "gated,gated"), "named twice"),
        (("--fusions", "gated", "--baseline", "cross_attention"), "not among those compared"),
    ],
)
def test_a_choice_that_cannot_be_is_named(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, more: tuple[str, ...], message: str
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert)
    with pytest.raises(SettingsError, match=message):
        run(config, "--out", tmp_path / "board", *more)


def test_variants_are_the_settings_with_what_they_change() -> None:
    focal = vary(SETTINGS, "focal", {"objectives": {"supervised": {"loss": "focal"}}})
    assert focal.objectives.supervised.loss == "focal"
    assert focal.objectives.supervised.weight == SETTINGS.objectives.supervised.weight
    assert vary(focal, "more", {"fit": {"epochs": 3}}).objectives == focal.objectives
    assert vary(SETTINGS, "same", {}) == SETTINGS
    with pytest.raises(SettingsError, match=r"odd: objectives.supervised.loss: "):
        vary(SETTINGS, "odd", {"objectives": {"supervised": {"loss": "hinge"}}})
    with pytest.raises(SettingsError, match=r"odd: fit.speed: "):
        vary(SETTINGS, "odd", {"fit": {"speed": 1}})


def test_variants_are_read_by_name_and_a_bad_file_is_refused(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert)
    variants = tmp_path / "variants.toml"
    for text, message in (
        ("plain = 1", "is not a table"),
        ('["../up"]', "is not a table named by"),
        ("", "names no variant"),
        ("[", "not a readable TOML file"),
        ("[one.model]\nfusion = 'none'", "one: model.fusion: "),
    ):
        variants.write_text(text)
        with pytest.raises(SettingsError, match=message):
            run(config, "--out", tmp_path / "board", "--variants", variants)
