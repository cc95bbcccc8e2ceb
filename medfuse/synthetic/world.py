"""The world the cohort is drawn from: targets cause signs, and signs are all that is rendered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64

from medfuse.config import Task, TaskKind
from medfuse.errors import CohortError
from medfuse.presence import scale_odds, subset_chances
from medfuse.synthetic.network import (
    PosteriorTable,
    Variable,
    joint_distribution,
    population_auc,
    tabulate_posterior,
)
from medfuse.synthetic.options import CohortOptions, Mechanism
from medfuse.synthetic.patient import SITE_SHARES, SITES
from medfuse.types import MODALITIES, SUBSETS, Modality

CAUSES = (
    Variable("nodule", (), (0.35,)),
    Variable("embolism", (), (0.35,)),
    Variable("airway_obstruction", (), (0.40,)),
    Variable("pneumonia", (), (0.40,)),
    Variable("heart_failure", (), (0.40,)),
)
"""The findings that nothing in the network causes, each independent of the others."""

LOW_MOOD = Variable("low_mood", (), (0.40,))
"""What voice and note tell of beside the findings, on which it does not depend."""

FINDING_SIGNS: Mapping[Modality, tuple[Variable, ...]] = {
    Modality.IMAGE: (
        Variable("nodule_opacity", ("nodule",), (0.10, 0.82)),
        Variable("consolidation", ("pneumonia",), (0.15, 0.72)),
        # 0.6 x 0.25 + 0.4 x 0.875 = 0.5: see `discordance`.
        Variable("enlarged_heart", ("heart_failure",), (0.25, 0.875)),
        Variable("effusion", ("heart_failure", "pneumonia"), (0.08, 0.25, 0.50, 0.60)),
    ),
    Modality.NOTE: (
        Variable("pleuritic_pain", ("embolism",), (0.15, 0.70)),
        Variable("calf_swelling", ("embolism",), (0.08, 0.58)),
        Variable("productive_cough", ("pneumonia",), (0.20, 0.65)),
        Variable("orthopnoea", ("heart_failure",), (0.15, 0.72)),
    ),
    Modality.VOICE: (
        Variable("wheeze", ("airway_obstruction",), (0.12, 0.72)),
        # 0.6 x 0.3 + 0.4 x 0.8 = 0.5: see `discordance`.
        Variable("hoarseness", ("airway_obstruction",), (0.30, 0.80)),
        Variable("cough", ("pneumonia", "airway_obstruction"), (0.10, 0.35, 0.65, 0.75)),
    ),
}
"""How the findings show."""

MOOD_SIGNS: Mapping[Modality, tuple[Variable, ...]] = {
    Modality.IMAGE: (),
    Modality.NOTE: (
        Variable("anhedonia", ("low_mood",), (0.08, 0.60)),
        Variable("early_waking", ("low_mood",), (0.20, 0.65)),
    ),
    Modality.VOICE: (
        Variable("monotone", ("low_mood",), (0.15, 0.70)),
        Variable("long_pauses", ("low_mood",), (0.20, 0.65)),
    ),
}
"""How a low mood shows."""

SIGNS: Mapping[Modality, tuple[Variable, ...]] = {
    m: (*FINDING_SIGNS[m], *MOOD_SIGNS[m]) for m in MODALITIES
}
"""What can be seen, read or heard; a study's bytes depend on its targets through these alone."""

DISCORDANCE = Variable("discordance", ("enlarged_heart", "hoarseness"), (0.06, 0.94, 0.94, 0.06))
"""Heart and voice disagree: an exclusive or, so that neither alone tells anything.

Both signs are present in exactly half of the studies, no image sign depends on hoarseness and no
voice sign on the heart, so the posterior given either modality alone is exactly one half.
"""

FINDINGS: tuple[str, ...] = (*(cause.name for cause in CAUSES), DISCORDANCE.name)

TARGETS: tuple[str, ...] = (*FINDINGS, LOW_MOOD.name)
"""All that a study is labelled with: the findings, then the mood."""

TASK = Task(name="findings", kind=TaskKind.MULTILABEL, classes=FINDINGS)

AFFECT = Task(
    name="affect",
    kind=TaskKind.BINARY,
    classes=(LOW_MOOD.name,),
    modalities=("note", "voice"),
)

TASKS: tuple[Task, ...] = (TASK, AFFECT)

SIGN_NAMES: tuple[str, ...] = tuple(sign.name for m in MODALITIES for sign in SIGNS[m])

MISSING_WITH: Mapping[Modality, tuple[str, float, float]] = {
    # Modality: finding, and the factors on the odds when the finding is absent and present.
    Modality.IMAGE: ("pneumonia", 1.5, 0.25),  # the sick are sent to radiography
    Modality.NOTE: ("heart_failure", 0.5, 1.5),  # emergencies are written up later
    Modality.VOICE: ("airway_obstruction", 0.5, 1.5),  # the breathless do not record
}
"""How the mechanism ``finding`` makes a modality's absence depend on what is to be found."""

MISSING_AT: Mapping[str, frozenset[Modality]] = {
    "north": frozenset(),
    "south": frozenset({Modality.VOICE}),  # no microphone
    "east": frozenset({Modality.IMAGE}),  # no radiography
}
"""What the mechanism ``site`` lets each of `SITES` lack altogether."""


def shortcut_name(modality: Modality) -> str:
    """The name of a modality's shortcut among the variables."""
    return f"{modality.value}_shortcut"


def build_variables(options: CohortOptions) -> tuple[tuple[Variable, ...], ...]:
    """List the variables, parents first, of two networks that share none.

    Returns:
        The findings' network (findings, signs, discordance, shortcuts), then the mood's (mood,
        signs, shortcuts).

    Raises:
        CohortError: A shortcut names an unknown finding, or a modality has two shortcuts.
    """
    shortcuts: dict[bool, list[Variable]] = {False: [], True: []}
    for shortcut in options.shortcuts:
        if shortcut.finding not in TARGETS:
            raise CohortError(
                f"no finding is called {shortcut.finding!r}; expected one of {', '.join(TARGETS)}"
            )
        chances = ((1 - shortcut.strength) / 2, (1 + shortcut.strength) / 2)
        name = shortcut_name(shortcut.modality)
        of_mood = shortcut.finding == LOW_MOOD.name
        shortcuts[of_mood].append(Variable(name, (shortcut.finding,), chances))
    if len({shortcut.modality for shortcut in options.shortcuts}) < len(options.shortcuts):
        raise CohortError("a modality can carry one shortcut; two were asked for")
    findings, mood = (
        [sign for m in MODALITIES for sign in signs[m]] for signs in (FINDING_SIGNS, MOOD_SIGNS)
    )
    return (
        (*CAUSES, *findings, DISCORDANCE, *shortcuts[False]),
        (LOW_MOOD, *mood, *shortcuts[True]),
    )


def absence_rates(
    options: CohortOptions, findings: Mapping[str, bool], site: str
) -> dict[Modality, float]:
    """The chance that each modality is left out of a study of a site with these findings."""
    match options.missing:
        case Mechanism.COMPLETE:
            return dict.fromkeys(MODALITIES, 0.0)
        case Mechanism.RANDOM:
            return dict.fromkeys(MODALITIES, options.missing_rate)
        case Mechanism.FINDING:
            return {
                m: scale_odds(options.missing_rate, present if findings[name] else absent)
                for m, (name, absent, present) in MISSING_WITH.items()
            }
        case Mechanism.SITE:
            lacking = MISSING_AT[site]
            return {m: 1.0 if m in lacking else options.missing_rate for m in MODALITIES}


def presence_chances(
    options: CohortOptions, findings: Mapping[str, bool], site: str
) -> Float64[np.ndarray, " 7"]:
    """P(exactly this subset is present | findings, site), in the order of `SUBSETS`.

    Modalities go missing independently of each other, given that they are not all missing.
    """
    return subset_chances(absence_rates(options, findings, site))


@dataclass(frozen=True, slots=True)
class Network:
    """Variables that depend on each other and on none of another network.

    Attributes:
        variables: Parents first.
        clinical: Per subset of `SUBSETS`, the posterior of its targets given that subset's signs.
        delivered: Per subset, given all that a study with exactly those modalities gives away:
            its signs, its shortcuts, and which modalities are missing.
    """

    variables: tuple[Variable, ...]
    clinical: tuple[PosteriorTable, ...]
    delivered: tuple[PosteriorTable, ...]


@dataclass(frozen=True, slots=True)
class World:
    """The exact answers for one set of options, in the order of `TARGETS`.

    Attributes:
        networks: Of the findings, then of the mood. Being independent, each tells nothing of the
            other, and neither has to be enumerated with the other.
    """

    networks: tuple[Network, ...]

    def clinical(self, subset: int, answers: Mapping[str, bool]) -> Float64[np.ndarray, " k"]:
        """The posterior of every target given the signs of a subset, by its place in `SUBSETS`."""
        return np.concatenate([each.clinical[subset].look_up(answers) for each in self.networks])

    def delivered(self, subset: int, answers: Mapping[str, bool]) -> Float64[np.ndarray, " k"]:
        """The posterior of every target given all that a study with those modalities delivers."""
        return np.concatenate([each.delivered[subset].look_up(answers) for each in self.networks])

    def prevalence(self) -> Float64[np.ndarray, " k"]:
        """P(target), whatever is known."""
        tables = [each.clinical[-1] for each in self.networks]
        return np.array([(table.mass * row).sum() for table in tables for row in table.posterior])

    def absence(self) -> Float64[np.ndarray, " 3"]:
        """The share of studies that lack each modality."""
        mass = np.array([table.mass.sum() for table in self.networks[0].delivered])
        lacking = np.array([[m not in subset for m in MODALITIES] for subset in SUBSETS])
        return np.asarray(mass @ lacking)

    def clinical_auc(self) -> Float64[np.ndarray, "7 k"]:
        """The Bayes ROC area per subset and target, from the signs alone."""
        return np.stack(
            [
                np.concatenate([population_auc([each.clinical[i]]) for each in self.networks])
                for i in range(len(SUBSETS))
            ]
        )

    def delivered_auc(self) -> Float64[np.ndarray, " k"]:
        """The Bayes ROC area per target over studies as they are delivered."""
        return np.concatenate([population_auc(each.delivered) for each in self.networks])


@lru_cache(maxsize=4)
def build_world(options: CohortOptions) -> World:
    """Enumerate the networks once: 2^17 and 2^5 states, and twice as many for each shortcut.

    Raises:
        CohortError: As `build_variables`.
    """
    findings, mood = build_variables(options)
    first = _build_network(findings, FINDINGS, _presence_by_finding(options, findings))
    # No mood depends on what is missing, so each subset is as likely with it as without.
    presence = [np.asarray(table.mass.sum()) for table in first.delivered]
    return World((first, _build_network(mood, (LOW_MOOD.name,), presence)))


def _build_network(
    variables: tuple[Variable, ...],
    targets: Sequence[str],
    presence: Sequence[Float64[np.ndarray, "..."]],
) -> Network:
    """Tabulate one network's posteriors.

    Args:
        variables: Parents first.
        targets: What is asked.
        presence: P(subset | targets) for each subset, shaped to multiply the joint distribution.
    """
    names = [variable.name for variable in variables]
    joint = joint_distribution(variables)
    signs = [[sign.name for m in MODALITIES if m in s for sign in SIGNS[m]] for s in SUBSETS]
    marks = [[shortcut_name(m) for m in MODALITIES if m in s] for s in SUBSETS]
    return Network(
        variables,
        clinical=tuple(tabulate_posterior(names, joint, targets, known) for known in signs),
        delivered=tuple(
            tabulate_posterior(names, joint * chance, targets, known + mark)
            for known, mark, chance in zip(signs, marks, presence, strict=True)
        ),
    )


def _presence_by_finding(
    options: CohortOptions, variables: Sequence[Variable]
) -> list[Float64[np.ndarray, "..."]]:
    """P(subset | findings) for each subset, shaped to multiply the joint distribution."""
    table = np.empty((len(SUBSETS), *(2,) * len(FINDINGS)))
    for answers in np.ndindex((2,) * len(FINDINGS)):
        findings = {name: bool(a) for name, a in zip(FINDINGS, answers, strict=True)}
        # A site is known from the files, but no finding depends on it, so it is summed out.
        table[(slice(None), *answers)] = sum(
            share * presence_chances(options, findings, site)
            for site, share in zip(SITES, SITE_SHARES, strict=True)
        )
    shape = [2 if variable.name in FINDINGS else 1 for variable in variables]
    # FINDINGS stand in the network in the same order, so no axes need to be swapped.
    return [row.reshape(shape) for row in table]


def as_array(answers: Mapping[str, bool]) -> Bool[np.ndarray, " k"]:
    """The labels, in the order of `TARGETS`."""
    return np.array([answers[name] for name in TARGETS])
