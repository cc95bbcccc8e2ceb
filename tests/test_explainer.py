"""The explainer, held to a network worked out on paper and to the graph that export made."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medfuse.attribution.settings import AttributionSettings, Method
from medfuse.config import Limits
from medfuse.data.studies import StudyFiles, read_study
from medfuse.errors import BundleError, DicomError, InputError, SettingsError
from medfuse.golden import read_golden
from medfuse.types import Modality, Study
from medfuse_serving import explainer as explainer_module
from medfuse_serving.explainer import (
    SAMPLES,
    TURN_S,
    Explained,
    Explainer,
    Glance,
    GoneError,
    Waiting,
)
from medfuse_serving.predictor import Predictor
from tests.hand_bundle import NOTE, make_dicom, make_study
from tests.hand_network import MIXED, PIECE, HandNetwork

IMAGE, WORDS, VOICE = Modality.IMAGE, Modality.NOTE, Modality.VOICE
QUICK = AttributionSettings(steps=2, most_steps=2)
BRIGHTNESS = "findings.brightness"


@pytest.fixture(scope="module")
def predictor(hand_bundle: Path) -> Predictor:
    return Predictor(hand_bundle)


def make_explainer(predictor: Predictor, background: Path | None = None) -> Explainer:
    return Explainer(predictor, background, HandNetwork())


def write_studies(folder: Path, count: int) -> Path:
    for i in range(count):
        (folder / f"s{i:02}").mkdir(parents=True)
        grey = np.full((32, 32), 100 * i, dtype=np.uint16)
        (folder / f"s{i:02}" / "i.dcm").write_bytes(make_dicom(grey))
        (folder / f"s{i:02}" / "n.txt").write_bytes(NOTE)
        (folder / f"s{i:02}" / "v.wav").write_bytes(make_study().voice or b"")
    return folder


def test_what_is_explained_is_what_is_answered(predictor: Predictor) -> None:
    study = make_study()
    explained = make_explainer(predictor).explain(study, BRIGHTNESS, QUICK)
    attribution = explained.explanation.attribution
    (prediction,) = predictor.predict([study])
    assert attribution.details["output"] == pytest.approx(float(prediction.tasks[0].logits[0]))
    assert explained.explanation.model_digest == predictor.bundle.digest
    # The logit is the mean of the square, so each pixel gives its own part of it.
    assert explained.prepared.image is not None
    expected = explained.prepared.image.values / 32**2
    np.testing.assert_allclose(attribution.values[IMAGE], expected, atol=1e-7)
    assert not attribution.values[WORDS].any()
    assert explained.explanation.shares.shares[IMAGE] == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize(("slope", "passed"), [(1.0, True), (2.0, False)])
def test_the_badge_tells_right_gradients_from_wrong_ones(
    predictor: Predictor, slope: float, passed: bool
) -> None:
    explainer = Explainer(predictor, None, HandNetwork(MIXED, slope))
    badge = explainer.explain(make_study(), BRIGHTNESS, QUICK).explanation.badge
    assert {c.name: c.passed for c in badge.checks}["completeness"] == passed
    assert badge.passed == passed, badge


def test_a_weighting_of_targets_is_explained(predictor: Predictor) -> None:
    target = f"{BRIGHTNESS}=2,findings.wordiness=-1"
    explained = make_explainer(predictor).explain(make_study(), target, QUICK)
    values = explained.explanation.attribution.values
    assert explained.prepared.image is not None
    np.testing.assert_allclose(
        values[IMAGE], 2 * explained.prepared.image.values / 32**2, atol=1e-7
    )
    # Masking a word takes its part away; [CLS] and [SEP] stay in every baseline.
    expected = [0, *[-PIECE] * 5, 0]
    np.testing.assert_allclose(values[WORDS], expected, atol=1e-6)


def test_the_band_covers_the_baselines_that_there_are(predictor: Predictor, tmp_path: Path) -> None:
    explainer = make_explainer(predictor, write_studies(tmp_path, 3))
    assert explainer.baselines == ("blank", "padding", "blurred", "marginal")
    assert make_explainer(predictor).baselines == ("blank", "padding", "blurred")
    explained = explainer.explain(make_study(), BRIGHTNESS, QUICK, band=True)
    names = [shares.baseline for shares in explained.explanation.shares_by_baseline]
    assert names == list(explainer.baselines)


def test_other_studies_stand_in_for_what_is_taken_away(
    predictor: Predictor, tmp_path: Path
) -> None:
    settings = AttributionSettings(baseline="marginal", steps=2, most_steps=2)
    explainer = make_explainer(predictor, write_studies(tmp_path, 3))
    explained = explainer.explain(make_study(), BRIGHTNESS, settings)
    # The three are grey at 0, 100 and 200 of 4095, in the rows that show this study's frame.
    details = explained.explanation.attribution.details
    assert details["baseline_output"] == pytest.approx(24 / 32 * 100 / 4095, rel=1e-3)
    with pytest.raises(SettingsError, match="marginal"):
        make_explainer(predictor).explain(make_study(), BRIGHTNESS, settings)


def test_a_background_is_read_once_and_spread_over_its_folder(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_studies(tmp_path, 2 * SAMPLES + 1)
    (tmp_path / "s02" / "i.dcm").write_bytes(b"no image")
    read: list[str] = []

    def note_and_read(files: StudyFiles, limits: Limits) -> Study:
        read.append(files.name)
        return read_study(files, limits)

    monkeypatch.setattr(explainer_module, "read_study", note_and_read)
    explainer = make_explainer(predictor, tmp_path)
    settings = AttributionSettings(baseline="marginal", steps=1, most_steps=1)
    explainer.explain(Study(note=NOTE), BRIGHTNESS, QUICK)
    assert read == []  # not before it is needed
    for _ in range(2):
        explainer.explain(Study(note=NOTE), BRIGHTNESS, settings)
    assert read == [f"s{i:02}" for i in range(0, 2 * SAMPLES, 2)]


def test_a_background_without_studies_is_refused_at_the_start(
    predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no studies"):
        Explainer(predictor, tmp_path)


def test_a_bundle_without_explanations_says_what_to_do(predictor: Predictor) -> None:
    explainer = Explainer(predictor)
    assert not explainer.ready
    with pytest.raises(BundleError, match=r"no explain\.onnx.*export it again"):
        explainer.explain(make_study(), BRIGHTNESS, QUICK)


def test_what_cannot_be_explained_is_refused(predictor: Predictor) -> None:
    explainer = make_explainer(predictor)
    with pytest.raises(SettingsError, match=r"brightness, findings\.wordiness, loudness"):
        explainer.explain(make_study(), "findings.beauty", QUICK)
    with pytest.raises(DicomError):
        explainer.explain(Study(images=(b"no image",)), BRIGHTNESS, QUICK)
    with pytest.raises(SettingsError, match="image"):
        explainer.explain(Study(note=NOTE), BRIGHTNESS, AttributionSettings(method="grad_cam"))


def test_progress_never_falls_and_ends_with_the_explanation(predictor: Predictor) -> None:
    steps = list(make_explainer(predictor).follow(make_study(), BRIGHTNESS, QUICK))
    shares, explained = [step for step in steps if isinstance(step, float)], steps[-1]
    assert isinstance(explained, Explained)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert len(set(shares)) > 5
    assert shares == sorted(shares)


def test_a_coarse_map_comes_first_and_is_that_of_few_points(predictor: Predictor) -> None:
    network = HandNetwork(MIXED)
    explainer = Explainer(predictor, None, network)
    many = AttributionSettings(steps=64, most_steps=64)
    steps = explainer.follow(make_study(), BRIGHTNESS, many)
    coarse = next(step for step in steps if isinstance(step, Glance))
    before = network.asked
    explained = list(steps)[-1]
    assert isinstance(explained, Explained)
    assert network.asked > 4 * before  # it came while nearly all of the work was to be done
    few = explainer.explain(
        make_study(), BRIGHTNESS, many.model_copy(update={"steps": 4, "most_steps": 4})
    )
    for modality, values in coarse.attribution.values.items():
        np.testing.assert_allclose(values, few.explanation.attribution.values[modality], atol=1e-6)


@pytest.mark.parametrize("method", ["occlusion", "smooth_gradients"])
def test_a_slow_method_has_no_coarse_map(predictor: Predictor, method: Method) -> None:
    settings = QUICK.model_copy(update={"method": method})
    steps = list(make_explainer(predictor).follow(make_study(), BRIGHTNESS, settings))
    assert not any(isinstance(step, Glance) for step in steps)
    assert isinstance(steps[-1], Explained)


def test_an_error_on_the_way_is_raised_where_it_is_waited_for(predictor: Predictor) -> None:
    with pytest.raises(SettingsError, match="beauty"):
        list(make_explainer(predictor).follow(make_study(), "findings.beauty", QUICK))


def test_nothing_goes_on_when_nobody_waits(predictor: Predictor) -> None:
    network = HandNetwork()
    explainer = Explainer(predictor, None, network)
    long = AttributionSettings(steps=1024, most_steps=1024)
    steps = explainer.follow(make_study(), BRIGHTNESS, long)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    with explainer._turn:  # until the work has ended
        asked = network.asked
    time.sleep(0.3)
    assert network.asked == asked
    list(explainer.follow(make_study(), BRIGHTNESS, long))
    assert network.asked > 2 * asked


@pytest.mark.parametrize("share", [0.0, 0.5, 0.75])
def test_the_network_is_not_asked_again_once_nobody_waits(
    predictor: Predictor, share: float
) -> None:
    network = HandNetwork(MIXED)
    asked: list[int] = []

    def go_on(done: int, wanted: int) -> None:
        if asked:
            raise GoneError
        if done >= share * wanted:
            asked.append(network.asked)

    with pytest.raises(GoneError):
        Explainer(predictor, None, network).explain(make_study(), BRIGHTNESS, QUICK, progress=go_on)
    assert asked == [network.asked]


def test_who_waits_for_another_s_explanation_is_told_so_and_may_leave(
    predictor: Predictor,
) -> None:
    network = HandNetwork(MIXED)
    explainer = Explainer(predictor, None, network)
    with explainer._turn:
        left, stayed = (explainer.follow(make_study(), BRIGHTNESS, QUICK) for _ in range(2))
        for steps in (left, stayed):
            assert isinstance(next(steps), Waiting)
        left.close()  # type: ignore[attr-defined]
        time.sleep(3 * TURN_S)
        assert network.asked == 0
    *_, explained = stayed
    assert isinstance(explained, Explained)
    once = network.asked
    explainer.explain(make_study(), BRIGHTNESS, QUICK)
    assert network.asked < 2.5 * once  # and the one that left is not explained after all


def test_studies_at_once_are_explained_one_after_another(predictor: Predictor) -> None:
    network = HandNetwork()
    explainer = Explainer(predictor, None, network)
    alone = explainer.explain(make_study(), BRIGHTNESS, QUICK)
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda _: explainer.explain(make_study(), BRIGHTNESS, QUICK), range(4))
        )
    assert network.most_at_once == 1
    for explained in together:
        for modality, values in explained.explanation.attribution.values.items():
            np.testing.assert_array_equal(values, alone.explanation.attribution.values[modality])


def test_the_graph_that_export_made_explains_what_is_answered(tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle)
    explainer = Explainer(predictor)
    study = read_golden(predictor.bundle).studies[-1]
    (prediction,) = predictor.predict([study])
    target = explainer.targets[0]
    begun = threading.active_count()
    explained = explainer.explain(study, target, AttributionSettings(steps=16, most_steps=16))
    attribution = explained.explanation.attribution
    logit = float(prediction.tasks[0].logits[0])
    assert attribution.details["output"] == pytest.approx(logit, abs=1e-4)
    assert set(attribution.values) == set(Modality)
    total = sum(v.sum(dtype=np.float64) for v in attribution.values.values())
    change = attribution.details["output"] - attribution.details["baseline_output"]
    assert abs(total - change) / max(abs(change), 0.01) == pytest.approx(
        attribution.completeness_gap, abs=1e-3
    )
    assert explainer.scales.full["integrated_gradients"][target]
    assert threading.active_count() == begun
