"""A whole explanation: its parts are those that each part gives alone, and progress only rises."""

import numpy as np
import pytest

from medfuse.attribution.attribute import attribute
from medfuse.attribution.background import Background
from medfuse.attribution.badge import BadgeSettings, judge
from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.explain import WANTED, explain_study
from medfuse.attribution.network import Inputs
from medfuse.attribution.settings import BASELINE_NAMES, AttributionSettings, BaselineName, Method
from medfuse.attribution.shapley import shares
from medfuse.attribution.subject import take_up
from medfuse.errors import SettingsError
from medfuse.types import MODALITIES, Modality
from tests.attribution_network import (
    BANDS,
    SETTINGS,
    SIDE,
    TOKENIZER,
    SumNetwork,
    bent,
    linear,
    make_prepared,
    make_subject,
    pick,
)

BADGE = BadgeSettings(copies=1, points=2, stages=3, order_stages=3)
BACKGROUND = Background(
    image=np.full((SIDE, SIDE), 0.4, np.float32),
    note=np.array([5, 6], np.float32),
    voice=np.full(BANDS, -0.7, np.float32),
    studies=9,
)


def samples(network: SumNetwork) -> tuple[Inputs, ...]:
    return tuple(take_up(network, make_prepared(seed=s), SETTINGS).inputs for s in (1, 2))


@pytest.mark.parametrize("method", ["integrated_gradients", "grad_cam", "occlusion"])
def test_an_explanation_is_its_map_its_shares_its_band_and_its_badge(method: Method) -> None:
    network = bent(pair=0.01)
    subject, target = make_subject(network, mel_frames=16), pick(network, 1)
    settings = AttributionSettings(method=method, baseline="mean", steps=8)
    others = samples(network)

    def make(name: BaselineName) -> Baseline:
        return make_baseline(name, subject, network, TOKENIZER, BACKGROUND, others)

    found = explain_study(
        network,
        subject,
        target,
        settings,
        BADGE,
        TOKENIZER,
        BACKGROUND,
        others,
        "d1",
        band=True,
    )
    expected = attribute(network, subject, make("mean"), target, settings)
    assert set(found.attribution.values) == set(expected.values)
    for modality, values in expected.values.items():
        assert np.array_equal(found.attribution.values[modality], values)
    assert found.attribution.details == expected.details
    assert found.attribution.baseline == ("none" if method == "grad_cam" else "mean")
    assert found.shares == shares(network, subject, target, None)
    assert found.shares.baseline == "absent"
    assert [s.baseline for s in found.shares_by_baseline] == list(BASELINE_NAMES)
    for name, shared in zip(BASELINE_NAMES, found.shares_by_baseline, strict=True):
        assert shared == shares(network, subject, target, make(name))
    assert len({s.shares[Modality.IMAGE] for s in found.shares_by_baseline}) > 2
    assert found.badge == judge(network, subject, make("mean"), target, expected, BADGE)
    assert found.model_digest == "d1"


def test_the_band_is_there_only_when_asked_for_and_has_only_baselines_that_can_be_made() -> None:
    network = bent()
    subject = make_subject(network, {Modality.IMAGE, Modality.NOTE})
    silent = take_up(network, make_prepared({Modality.IMAGE}, seed=1), SETTINGS).inputs
    settings = AttributionSettings(steps=8)

    def explain(*, band: bool, others: tuple[Inputs, ...]) -> list[str]:
        found = explain_study(
            network,
            subject,
            pick(network),
            settings,
            BADGE,
            TOKENIZER,
            None,
            others,
            "d1",
            band=band,
        )
        return [s.baseline for s in found.shares_by_baseline]

    assert explain(band=False, others=()) == []
    assert explain(band=True, others=(silent,)) == ["blank", "padding", "blurred"]
    both = take_up(network, make_prepared({Modality.IMAGE, Modality.NOTE}), SETTINGS).inputs
    assert explain(band=True, others=(both,)) == ["blank", "padding", "blurred", "marginal"]


def test_progress_rises_to_the_whole_though_the_points_of_the_integral_double() -> None:
    plain = linear((1.0, 0.0, 0.0), even=True)
    subject = make_subject(plain, {Modality.IMAGE})
    total = float(plain.sums(subject.inputs)[0, 0])
    corner = SumNetwork(
        lambda z: np.maximum(z[:, :1] / total - 0.7, 0),
        lambda z: (z[:, :1] / total > 0.7)[:, :, None] * np.array([1 / total, 0, 0]),
        even=True,
    )
    seen: list[tuple[int, int]] = []
    found = explain_study(
        corner,
        subject,
        pick(corner),
        AttributionSettings(steps=40, most_steps=160, gap=1e-9),
        BADGE,
        TOKENIZER,
        None,
        (),
        "d1",
        band=True,
        progress=lambda done, wanted: seen.append((done, wanted)),
    )
    assert found.attribution.details["steps"] == 160
    done = [each for each, _ in seen]
    assert {wanted for _, wanted in seen} == {WANTED}
    assert done == sorted(set(done))
    assert 0 < done[0] < done[-1] == WANTED
    assert len(done) >= 6


def test_a_baseline_that_cannot_be_made_is_refused_before_anything_is_asked() -> None:
    network = linear()
    subject = make_subject(network)
    with pytest.raises(SettingsError, match="'marginal' needs samples"):
        explain_study(
            network,
            subject,
            pick(network),
            AttributionSettings(baseline="marginal"),
            BADGE,
            TOKENIZER,
            None,
            (),
            "d1",
        )
    assert not network.asked
    assert all(m in subject.inputs.present for m in MODALITIES)
