"""The display's scale: one for a target, whatever the study."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medfuse.attribution.scale import (
    DEFAULTS,
    Scales,
    choose_scale,
    find_scale,
    measure_peak,
    unit_of,
)
from medfuse.attribution.settings import METHODS
from medfuse.config import ImageSettings, PrepareSettings
from medfuse.data.image import fit_square
from medfuse.errors import SettingsError
from medfuse.overlay import SMOOTHING, lay_frame, to_colours
from medfuse.types import Modality

PREPARE = PrepareSettings()
SCALES = Scales(
    full={
        "integrated_gradients": {
            "findings.a": {Modality.IMAGE: 0.02, Modality.NOTE: 0.5, Modality.VOICE: 0.004},
            "findings.b": {Modality.IMAGE: 0.01, Modality.NOTE: 0.1, Modality.VOICE: 0.001},
            "findings.c": {Modality.NOTE: 1.0},
        }
    }
)


def full(target: str, method: str = "integrated_gradients") -> dict[Modality, float]:
    return {m: s.full for m, s in find_scale(SCALES, method, target, PREPARE).parts.items()}


def test_a_target_has_the_scale_that_was_measured() -> None:
    assert full("findings.a") == pytest.approx(SCALES.full["integrated_gradients"]["findings.a"])
    assert find_scale(SCALES, "integrated_gradients", "findings.a", PREPARE).measured


def test_a_weighting_has_what_its_targets_reach_together() -> None:
    assert full("findings.a=2, findings.b=-1")[Modality.IMAGE] == pytest.approx(0.05)
    assert full("findings.a=-1")[Modality.NOTE] == pytest.approx(0.5)


@settings(deadline=None)
@given(weight=st.floats(0.01, 100), sign=st.sampled_from([1, -1]))
def test_the_picture_of_a_target_does_not_depend_on_its_weight(weight: float, sign: int) -> None:
    # The map of a target with a weight is the target's own map times the weight.
    values = np.array([[-0.03, -0.004, 0.0, 0.015, 0.5]])
    alone = to_colours(values, full("findings.a")[Modality.IMAGE])
    weighed = to_colours(
        sign * weight * values, full(f"findings.a={sign * weight!r}")[Modality.IMAGE]
    )
    assert np.abs(alone[..., 3].astype(int) - weighed[..., 3]).max() <= 1
    same = (alone[..., :3] == weighed[..., :3]).all(axis=2) | (values == 0)
    assert same.all() == (sign > 0)


def test_what_was_not_measured_has_a_default_and_says_so() -> None:
    found = find_scale(SCALES, "integrated_gradients", "findings.c", PREPARE)
    assert found.parts[Modality.NOTE].full == 1.0
    assert found.parts[Modality.IMAGE].full == DEFAULTS["integrated_gradients"][Modality.IMAGE]
    assert not found.measured
    assert not find_scale(Scales(), "occlusion", "x.y", PREPARE).measured


def test_a_default_for_pixels_shrinks_as_they_grow_in_number() -> None:
    large = PrepareSettings(image=ImageSettings(size=448))
    for method, ratio in (("integrated_gradients", 4.0), ("grad_cam", 1.0)):
        at_224, at_448 = (
            find_scale(Scales(), method, "x.y", p).parts[Modality.IMAGE].full
            for p in (PREPARE, large)
        )
        assert at_224 / at_448 == pytest.approx(ratio)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_default_and_a_unit_for_what_it_reaches(method: str) -> None:
    parts = find_scale(Scales(), method, "x.y", PREPARE).parts
    assert set(parts) == ({Modality.IMAGE} if method == "grad_cam" else set(Modality))
    assert all(part.unit == unit_of(method, m) for m, part in parts.items())
    assert parts[Modality.IMAGE].additive == (method in {"integrated_gradients", "occlusion"})


def test_a_target_that_cannot_be_read_is_refused() -> None:
    for wrong in ("a=nothing", "a=0", "a=1,a=2"):
        with pytest.raises(SettingsError):
            find_scale(SCALES, "integrated_gradients", wrong, PREPARE)


def test_a_peak_is_that_of_the_map_as_it_is_displayed() -> None:
    point = np.zeros((2, 64, 64), dtype=np.float32)
    point[1, 30, 40] = -3.0
    width = 64 * SMOOTHING
    peak = measure_peak(Modality.IMAGE, point)
    assert peak == pytest.approx(3 / (2 * np.pi * width**2), rel=0.02)
    assert measure_peak(Modality.NOTE, np.array([0.5, -0.75])) == 0.75
    assert measure_peak(Modality.NOTE, np.zeros(0)) == 0.0
    # A map drawn on its own peak is full at that one place.
    geometry = fit_square(instance=0, frame=0, rows=64, columns=64, size=64)
    scales = Scales(full={"occlusion": {"x.y": {Modality.IMAGE: peak}}})
    scale = find_scale(scales, "occlusion", "x.y", PREPARE).parts[Modality.IMAGE]
    opacity = lay_frame(point[1], geometry, scale).colours[..., 3]
    assert opacity.argmax() == np.ravel_multi_index((30, 40), opacity.shape)
    assert (opacity == opacity.max()).sum() == 1


def test_four_of_five_studies_stay_below_the_scale() -> None:
    assert choose_scale([1.0, 2.0, 3.0, 4.0, 5.0, 100.0]) == 5.0
    assert choose_scale([0.0, 0.0]) is None
    assert choose_scale([]) is None


def test_a_scale_is_a_positive_number() -> None:
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Scales(full={"occlusion": {"x.y": {Modality.IMAGE: wrong}}})
    assert Scales.model_validate_json(SCALES.model_dump_json()) == SCALES
