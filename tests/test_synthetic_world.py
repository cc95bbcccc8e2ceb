from functools import cache
from itertools import chain, product

import numpy as np
import pytest
from jaxtyping import Bool

from medfuse.errors import CohortError
from medfuse.synthetic.network import cohort_auc
from medfuse.synthetic.options import CohortOptions, Mechanism, Shortcut
from medfuse.synthetic.patient import SITE_SHARES, SITES
from medfuse.synthetic.study import draw_answers
from medfuse.synthetic.world import (
    FINDINGS,
    MOOD_SIGNS,
    SIGNS,
    TARGETS,
    Network,
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
        subset_name(subset): dict(zip(TARGETS, row.tolist(), strict=True))
        for subset, row in zip(SUBSETS, table, strict=True)
    }


def simulate(options: CohortOptions, n: int) -> tuple[dict[str, Bool[np.ndarray, " n"]], ...]:
    """Draw many studies at once, and which modalities they keep, by redrawing until one is left."""
    rng = np.random.default_rng(0)
    state: dict[str, Bool[np.ndarray, " n"]] = {}
    for variable in chain.from_iterable(build_variables(options)):
        row = np.zeros(n, dtype=int)
        for parent in variable.parents:
            row = 2 * row + state[parent]
        state[variable.name] = rng.random(n) < np.array(variable.chances)[row]
    findings = np.stack([state[name] for name in FINDINGS], axis=1)
    codes, inverse = np.unique(findings, axis=0, return_inverse=True)
    sites = rng.choice(len(SITES), n, p=SITE_SHARES)
    answers = [dict(zip(FINDINGS, map(bool, code), strict=True)) for code in codes]
    rates = np.array(
        [[list(absence_rates(options, each, s).values()) for s in SITES] for each in answers]
    )[inverse, sites]
    kept = np.zeros((n, 3), dtype=bool)
    while not (done := kept.any(axis=1)).all():
        kept[~done] = rng.random(((~done).sum(), 3)) >= rates[~done]
    return state, {m.value: kept[:, i] for i, m in enumerate(MODALITIES)}


def test_both_halves_of_the_exclusive_or_are_as_likely_as_not() -> None:
    findings, _ = build_world(PLAIN).networks
    image, voice = (
        findings.clinical[SUBSETS.index(frozenset({m}))] for m in (Modality.IMAGE, Modality.VOICE)
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
    table = build_world(PLAIN).networks[0].clinical[SUBSETS.index(frozenset({modality}))]
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


def test_low_mood_shows_in_note_and_voice_and_in_nothing_else() -> None:
    assert areas()["image"]["low_mood"] == 0.5
    for name in ("note", "voice", "note+voice"):
        modalities = name.split("+")
        signs = [s.chances for m in MODALITIES if m in modalities for s in MOOD_SIGNS[m]]
        low, bright = (
            {p: np.prod([q[i] if yes else 1 - q[i] for q, yes in zip(signs, p, strict=True)])
             for p in product((False, True), repeat=len(signs))}
            for i in (1, 0)
        )  # fmt: skip
        # P(one of low mood scores above one of none) + half of P(they tie), pair by pair.
        area = sum(
            low[a] * bright[b] * (np.sign(low[a] / bright[a] - low[b] / bright[b]) + 1) / 2
            for a in low
            for b in bright
        )
        assert areas()[name]["low_mood"] == pytest.approx(area)
        assert areas()["+".join(["image", name])]["low_mood"] == pytest.approx(area)


def test_the_mood_and_the_findings_tell_nothing_of_each_other() -> None:
    findings, mood = build_variables(PLAIN)
    names = {variable.name for variable in findings}
    assert names.isdisjoint(variable.name for variable in mood)
    assert all(set(variable.parents) <= names for variable in findings)
    drawn = [draw_answers(PLAIN, index) for index in range(2000)]
    states = np.array([[a[v.name] for v in (*findings, *mood)] for a in drawn], dtype=float)
    across = np.corrcoef(states.T)[: len(findings), len(findings) :]
    # The largest of 85 correlations of independent draws; one has a deviation of 1 / sqrt(2000).
    assert np.abs(across).max() < 4.5 / np.sqrt(2000)


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
                for finding in TARGETS:
                    less, more = (areas()[subset_name(s)][finding] for s in (small, large))
                    assert more >= less - 1e-12


def test_the_cohort_is_hard_but_for_fusion() -> None:
    macro = {name: np.mean([row[f] for f in FINDINGS]) for name, row in areas().items()}
    assert 0.85 < macro["image+note+voice"] < 0.92
    assert max(macro[m.value] for m in MODALITIES) < 0.75


def test_every_cause_is_neither_rare_nor_the_rule() -> None:
    prevalence = build_world(PLAIN).prevalence()
    assert prevalence == pytest.approx([0.35, 0.35, 0.40, 0.40, 0.40, 0.50, 0.40])


@pytest.mark.parametrize(
    "options",
    [
        CohortOptions(missing=Mechanism.FINDING, missing_rate=0.4),
        CohortOptions(
            missing=Mechanism.FINDING,
            missing_rate=0.4,
            shortcuts=(
                Shortcut(modality=Modality.VOICE, finding="nodule", strength=0.6),
                Shortcut(modality=Modality.NOTE, finding="low_mood", strength=0.5),
            ),
        ),
        CohortOptions(missing=Mechanism.FINDING, missing_rate=0.9),
        CohortOptions(missing=Mechanism.SITE, missing_rate=0.5),
    ],
    ids=["missing", "missing and shortcuts", "nearly all missing", "missing by site"],
)
def test_what_a_delivery_tells_agrees_with_simulation(options: CohortOptions) -> None:
    n = 400_000
    state, kept = simulate(options, n)
    world = build_world(options)
    checked = 0
    for network, targets in zip(world.networks, (FINDINGS, ("low_mood",)), strict=True):
        labels = np.stack([state[name] for name in targets], axis=1)
        checked += compare(network, labels, state, kept)
    assert checked > 100
    absent = 1 - np.mean(list(kept.values()), axis=1)
    assert absent == pytest.approx(world.absence(), abs=5 * np.sqrt(0.25 / n))


def compare(
    network: Network,
    labels: Bool[np.ndarray, "n k"],
    state: dict[str, Bool[np.ndarray, " n"]],
    kept: dict[str, Bool[np.ndarray, " n"]],
) -> int:
    """Hold every pattern that was drawn often enough to a network's tables; count them."""
    n, checked = len(labels), 0
    for subset, table in zip(SUBSETS, network.delivered, strict=True):
        here = np.logical_and.reduce([kept[m.value] == (m in subset) for m in MODALITIES])
        assert here.mean() == pytest.approx(table.mass.sum(), abs=5 * np.sqrt(0.25 / n))
        cells = np.zeros(n, dtype=int)
        for name in table.evidence:
            cells = 2 * cells + state[name]
        for cell, count in enumerate(np.bincount(cells[here], minlength=table.mass.size)):
            if count < 200:
                continue
            expected = table.posterior.reshape(labels.shape[1], -1)[:, cell]
            seen = labels[here & (cells == cell)].mean(axis=0)
            error = np.sqrt(np.maximum(expected * (1 - expected), 1e-3) / count)
            assert (np.abs(seen - expected) < 5.5 * error).all()
            checked += 1
    return checked


@pytest.mark.parametrize("mechanism", [Mechanism.RANDOM, Mechanism.SITE])
def test_missing_at_random_or_by_site_tells_nothing(mechanism: Mechanism) -> None:
    world = build_world(CohortOptions(missing=mechanism, missing_rate=0.3))
    for network in world.networks:
        for clinical, delivered in zip(network.clinical, network.delivered, strict=True):
            assert delivered.posterior == pytest.approx(clinical.posterior, abs=1e-12)


def test_missing_with_a_finding_tells_of_it() -> None:
    world, _ = build_world(CohortOptions(missing=Mechanism.FINDING, missing_rate=0.5)).networks
    voiceless = SUBSETS.index(frozenset({Modality.IMAGE, Modality.NOTE}))
    airway = FINDINGS.index("airway_obstruction")
    assert world.delivered[voiceless].posterior[airway].min() > 0.45
    assert world.clinical[voiceless].posterior[airway] == pytest.approx(0.4)


def test_the_area_of_what_is_delivered_is_that_of_studies_drawn_with_what_they_keep() -> None:
    """By another way: draw studies, look each one's posterior up by hand, and count pairs."""
    for mechanism in (Mechanism.RANDOM, Mechanism.FINDING, Mechanism.SITE):
        options = CohortOptions(missing=mechanism, missing_rate=0.8)
        n = 60_000
        state, kept = simulate(options, n)
        world = build_world(options)
        which = np.array([[m in subset for m in MODALITIES] for subset in SUBSETS])
        have = np.stack([kept[m.value] for m in MODALITIES], axis=1)
        subset = (have[:, None] == which).all(axis=2).argmax(axis=1)
        scores = np.empty((n, len(TARGETS)))
        start = 0
        for network in world.networks:
            width = len(network.clinical[0].posterior)
            for i, table in enumerate(network.delivered):
                here = subset == i
                cells = tuple(state[name][here].astype(int) for name in table.evidence)
                scores[here, start : start + width] = table.posterior[(slice(None), *cells)].T
            start += width
        labels = np.stack([state[name] for name in TARGETS], axis=1)
        # A little above the standard error of an area on so many studies, 0.0024, four times over.
        assert cohort_auc(scores, labels) == pytest.approx(world.delivered_auc(), abs=0.01)


def test_the_rate_is_what_goes_missing_before_one_is_made_to_stay() -> None:
    # Of three that each go missing with chance r, given that one is left: (r - r^3) / (1 - r^3).
    for rate, share in ((0.25, 0.2381), (0.8, 0.5902), (0.9, 0.6310)):
        world = build_world(CohortOptions(missing=Mechanism.RANDOM, missing_rate=rate))
        assert world.absence() == pytest.approx([share] * 3, abs=1e-4)
    # By site: no voice in the south, 0.3 of studies, and no image in the east, 0.2.
    blocks = build_world(CohortOptions(missing=Mechanism.SITE, missing_rate=0.0))
    assert blocks.absence() == pytest.approx([0.2, 0.0, 0.3])


def test_what_a_site_lacks_none_of_its_studies_has() -> None:
    options = CohortOptions(missing=Mechanism.SITE, missing_rate=0.5)
    chances = presence_chances(options, dict.fromkeys(FINDINGS, True), "east")
    assert all(c == 0 for c, s in zip(chances, SUBSETS, strict=True) if Modality.IMAGE in s)
    # Note and voice are each there or not as often, so the three that are left are alike.
    left = [c for c, s in zip(chances, SUBSETS, strict=True) if Modality.IMAGE not in s]
    assert left == pytest.approx([1 / 3] * 3)


def test_some_modality_is_always_present() -> None:
    for mechanism in Mechanism:
        options = CohortOptions(missing=mechanism, missing_rate=0.9)
        for answer, site in product((False, True), SITES):
            chances = presence_chances(options, dict.fromkeys(FINDINGS, answer), site)
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
    names = [variable.name for network in build_variables(PLAIN) for variable in network]
    names += [shortcut_name(m) for m in SIGNS]
    assert len(set(names)) == len(names)
