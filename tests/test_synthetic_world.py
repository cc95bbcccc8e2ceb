from functools import cache

import numpy as np
import pytest
from jaxtyping import Bool

from medfuse.errors import CohortError
from medfuse.synthetic.options import CohortOptions, Mechanism, Shortcut
from medfuse.synthetic.world import (
    FINDINGS,
    SIGNS,
    absence_rates,
    build_variables,
    build_world,
    presence_chances,
    shortcut_name,
)
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name

PLAIN = CohortOptions()
DISCORDANCE = FINDINGS.index("discordance")


@cache
def areas() -> dict[str, dict[str, float]]:
    table = build_world(PLAIN).clinical_auc()
    return {
        subset_name(subset): dict(zip(FINDINGS, row.tolist(), strict=True))
        for subset, row in zip(SUBSETS, table, strict=True)
    }


def simulate(options: CohortOptions, n: int) -> tuple[dict[str, Bool[np.ndarray, " n"]], ...]:
    """Draw many studies at once, and which modalities they keep, by redrawing until one is left."""
    rng = np.random.default_rng(0)
    state: dict[str, Bool[np.ndarray, " n"]] = {}
    for variable in build_variables(options):
        row = np.zeros(n, dtype=int)
        for parent in variable.parents:
            row = 2 * row + state[parent]
        state[variable.name] = rng.random(n) < np.array(variable.chances)[row]
    findings = np.stack([state[name] for name in FINDINGS], axis=1)
    codes, inverse = np.unique(findings, axis=0, return_inverse=True)
    rates = np.array(
        [
            list(absence_rates(options, dict(zip(FINDINGS, map(bool, code), strict=True))).values())
            for code in codes
        ]
    )[inverse]
    kept = np.zeros((n, 3), dtype=bool)
    while not (done := kept.any(axis=1)).all():
        kept[~done] = rng.random(((~done).sum(), 3)) >= rates[~done]
    return state, {m.value: kept[:, i] for i, m in enumerate(MODALITIES)}


def test_both_halves_of_the_exclusive_or_are_as_likely_as_not() -> None:
    world = build_world(PLAIN)
    image, voice = (
        world.clinical[SUBSETS.index(frozenset({m}))] for m in (Modality.IMAGE, Modality.VOICE)
    )
    heart = image.mass.sum(
        axis=tuple(i for i, s in enumerate(image.evidence) if s != "enlarged_heart")
    )
    hoarse = voice.mass.sum(
        axis=tuple(i for i, s in enumerate(voice.evidence) if s != "hoarseness")
    )
    assert heart == pytest.approx([0.5, 0.5], abs=1e-12)
    assert hoarse == pytest.approx([0.5, 0.5], abs=1e-12)


@pytest.mark.parametrize("modality", MODALITIES)
def test_one_modality_alone_tells_nothing_of_discordance(modality: Modality) -> None:
    table = build_world(PLAIN).clinical[SUBSETS.index(frozenset({modality}))]
    assert table.posterior[DISCORDANCE] == pytest.approx(0.5, abs=1e-12)
    assert areas()[modality.value]["discordance"] == 0.5


def test_image_and_voice_together_tell_discordance_as_well_as_can_be() -> None:
    # The sign is right in 94 % of the studies with and without the finding.
    assert areas()["image+voice"]["discordance"] == pytest.approx(0.94)
    assert areas()["image+note"]["discordance"] == 0.5


def test_findings_of_one_modality_have_the_areas_worked_out_by_hand() -> None:
    assert areas()["image"]["nodule"] == pytest.approx((0.82 + 0.90) / 2)
    assert areas()["note+voice"]["nodule"] == 0.5
    assert areas()["image+voice"]["embolism"] == 0.5
    assert areas()["image+note"]["airway_obstruction"] == 0.5
    # Two independent signs: 1 - P(positive below negative) - ties / 2, over their four patterns.
    pleuritic, calf = (0.70, 0.15), (0.58, 0.08)
    patterns = [(p, c) for p in (0, 1) for c in (0, 1)]

    def chance(pattern: tuple[int, int], disease: int) -> float:
        p, c = pleuritic[1 - disease], calf[1 - disease]
        return (p if pattern[0] else 1 - p) * (c if pattern[1] else 1 - c)

    ratio = {q: chance(q, 1) / chance(q, 0) for q in patterns}
    area = sum(
        chance(a, 1) * chance(b, 0) * (1.0 if ratio[a] > ratio[b] else 0.5 if a == b else 0.0)
        for a in patterns
        for b in patterns
    )
    assert areas()["note"]["embolism"] == pytest.approx(area)


def test_redundant_findings_gain_from_every_modality_that_shows_them() -> None:
    for finding, rising in {
        "pneumonia": ("note", "voice", "image", "image+note", "image+voice", "image+note+voice"),
        "heart_failure": ("voice", "note", "image", "image+note"),
    }.items():
        values = [areas()[subset][finding] for subset in rising]
        assert values == sorted(values)
        assert min(np.diff(values)) > 0.009


def test_more_modalities_never_lower_the_bayes_area() -> None:
    for small in SUBSETS:
        for large in SUBSETS:
            if small < large:
                for finding in FINDINGS:
                    less, more = (areas()[subset_name(s)][finding] for s in (small, large))
                    assert more >= less - 1e-12


def test_the_cohort_is_hard_but_for_fusion() -> None:
    macro = {name: np.mean(list(row.values())) for name, row in areas().items()}
    assert 0.85 < macro["image+note+voice"] < 0.92
    assert max(macro[m.value] for m in MODALITIES) < 0.75


def test_every_cause_is_neither_rare_nor_the_rule() -> None:
    table = build_world(PLAIN).clinical[-1]
    for row in table.posterior:
        assert 0.25 <= (table.mass * row).sum() <= 0.5 + 1e-12


@pytest.mark.parametrize(
    "options",
    [
        CohortOptions(missing=Mechanism.FINDING, missing_rate=0.4),
        CohortOptions(
            missing=Mechanism.FINDING,
            missing_rate=0.4,
            shortcuts=(Shortcut(modality=Modality.VOICE, finding="nodule", strength=0.6),),
        ),
    ],
    ids=["missing", "missing and shortcut"],
)
def test_what_a_delivery_tells_agrees_with_simulation(options: CohortOptions) -> None:
    n = 400_000
    state, kept = simulate(options, n)
    world = build_world(options)
    findings = np.stack([state[name] for name in FINDINGS], axis=1)
    checked = 0
    for subset, table in zip(SUBSETS, world.delivered, strict=True):
        here = np.logical_and.reduce([kept[m.value] == (m in subset) for m in MODALITIES])
        assert here.mean() == pytest.approx(table.mass.sum(), abs=5 * np.sqrt(0.25 / n))
        cells = np.zeros(n, dtype=int)
        for name in table.evidence:
            cells = 2 * cells + state[name]
        for cell, count in enumerate(np.bincount(cells[here], minlength=table.mass.size)):
            if count < 200:
                continue
            expected = table.posterior.reshape(len(FINDINGS), -1)[:, cell]
            seen = findings[here & (cells == cell)].mean(axis=0)
            error = np.sqrt(np.maximum(expected * (1 - expected), 1e-3) / count)
            assert (np.abs(seen - expected) < 5.5 * error).all()
            checked += 1
    assert checked > 100


def test_missing_at_random_tells_nothing() -> None:
    world = build_world(CohortOptions(missing=Mechanism.RANDOM, missing_rate=0.3))
    for clinical, delivered in zip(world.clinical, world.delivered, strict=True):
        assert delivered.posterior == pytest.approx(clinical.posterior, abs=1e-12)


def test_missing_with_a_finding_tells_of_it() -> None:
    world = build_world(CohortOptions(missing=Mechanism.FINDING, missing_rate=0.5))
    voiceless = SUBSETS.index(frozenset({Modality.IMAGE, Modality.NOTE}))
    airway = FINDINGS.index("airway_obstruction")
    assert world.delivered[voiceless].posterior[airway].min() > 0.45
    assert world.clinical[voiceless].posterior[airway] == pytest.approx(0.4)


def test_some_modality_is_always_present() -> None:
    for mechanism in Mechanism:
        options = CohortOptions(missing=mechanism, missing_rate=0.6)
        for answer in (False, True):
            chances = presence_chances(options, dict.fromkeys(FINDINGS, answer))
            assert chances.sum() == pytest.approx(1)
            if mechanism is Mechanism.COMPLETE:
                assert chances.tolist() == [0] * 6 + [1]


def test_a_shortcut_changes_what_is_delivered_and_not_what_is_true() -> None:
    full = CohortOptions(
        shortcuts=(Shortcut(modality=Modality.NOTE, finding="discordance", strength=1),)
    )
    world, plain = build_world(full), build_world(PLAIN)
    assert world.clinical_auc() == pytest.approx(plain.clinical_auc(), abs=1e-12)
    assert world.delivered_auc()[DISCORDANCE] == 1
    assert plain.delivered_auc()[DISCORDANCE] == pytest.approx(0.94)


def test_a_shortcut_of_no_strength_tells_nothing() -> None:
    options = CohortOptions(
        shortcuts=tuple(Shortcut(modality=m, finding="nodule", strength=0) for m in MODALITIES)
    )
    assert build_world(options).delivered_auc() == pytest.approx(
        build_world(PLAIN).delivered_auc(), abs=1e-12
    )


def test_a_shortcut_to_an_unknown_finding_is_refused() -> None:
    options = CohortOptions(shortcuts=(Shortcut(modality=Modality.IMAGE, finding="gout"),))
    with pytest.raises(CohortError, match="no finding is called 'gout'"):
        build_world(options)


def test_two_shortcuts_in_one_modality_are_refused() -> None:
    twice = tuple(Shortcut(modality=Modality.IMAGE, finding=f) for f in FINDINGS[:2])
    with pytest.raises(CohortError, match="one shortcut"):
        build_world(CohortOptions(shortcuts=twice))


def test_every_variable_has_one_name() -> None:
    names = [variable.name for variable in build_variables(PLAIN)]
    names += [shortcut_name(m) for m in SIGNS]
    assert len(set(names)) == len(names)
