"""The world the cohort is drawn from: findings cause signs, and signs are all that is rendered."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64

from medfuse.config import Task, TaskKind
from medfuse.errors import CohortError
from medfuse.synthetic.network import (
    PosteriorTable,
    Variable,
    joint_distribution,
    population_auc,
    tabulate_posterior,
)
from medfuse.synthetic.options import CohortOptions, Mechanism
from medfuse.types import MODALITIES, SUBSETS, Modality

CAUSES = (
    Variable("nodule", (), (0.35,)),
    Variable("embolism", (), (0.35,)),
    Variable("airway_obstruction", (), (0.40,)),
    Variable("pneumonia", (), (0.40,)),
    Variable("heart_failure", (), (0.40,)),
)
"""The findings that nothing in the network causes, each independent of the others."""

SIGNS: Mapping[Modality, tuple[Variable, ...]] = {
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
"""What can be seen, read or heard; a study's bytes depend on its findings through these alone."""

DISCORDANCE = Variable("discordance", ("enlarged_heart", "hoarseness"), (0.06, 0.94, 0.94, 0.06))
"""Heart and voice disagree: an exclusive or, so that neither alone tells anything.

Both signs are present in exactly half of the studies, no image sign depends on hoarseness and no
voice sign on the heart, so the posterior given either modality alone is exactly one half.
"""

FINDINGS: tuple[str, ...] = (*(cause.name for cause in CAUSES), DISCORDANCE.name)

TASK = Task(name="findings", kind=TaskKind.MULTILABEL, classes=FINDINGS)

SIGN_NAMES: tuple[str, ...] = tuple(sign.name for m in MODALITIES for sign in SIGNS[m])

MISSING_WITH: Mapping[Modality, tuple[str, float, float]] = {
    # Modality: finding, and the factors on the rate when the finding is absent and present.
    Modality.IMAGE: ("pneumonia", 1.5, 0.25),  # the sick are sent to radiography
    Modality.NOTE: ("heart_failure", 0.5, 1.5),  # emergencies are written up later
    Modality.VOICE: ("airway_obstruction", 0.5, 1.5),  # the breathless do not record
}
"""How the mechanism ``finding`` makes a modality's absence depend on what is to be found."""


def shortcut_name(modality: Modality) -> str:
    """The name of a modality's shortcut among the variables."""
    return f"{modality.value}_shortcut"


def build_variables(options: CohortOptions) -> tuple[Variable, ...]:
    """List the whole network, parents first: findings, signs, discordance, shortcuts.

    Raises:
        CohortError: A shortcut names an unknown finding, or a modality has two shortcuts.
    """
    shortcuts = []
    for shortcut in options.shortcuts:
        if shortcut.finding not in FINDINGS:
            raise CohortError(
                f"no finding is called {shortcut.finding!r}; expected one of {', '.join(FINDINGS)}"
            )
        chances = ((1 - shortcut.strength) / 2, (1 + shortcut.strength) / 2)
        name = shortcut_name(shortcut.modality)
        shortcuts.append(Variable(name, (shortcut.finding,), chances))
    if len({variable.name for variable in shortcuts}) < len(shortcuts):
        raise CohortError("a modality can carry one shortcut; two were asked for")
    signs = (sign for m in MODALITIES for sign in SIGNS[m])
    return (*CAUSES, *signs, DISCORDANCE, *shortcuts)


def absence_rates(options: CohortOptions, findings: Mapping[str, bool]) -> dict[Modality, float]:
    """The chance that each modality is left out of a study with these findings."""
    match options.missing:
        case Mechanism.COMPLETE:
            return dict.fromkeys(MODALITIES, 0.0)
        case Mechanism.RANDOM:
            return dict.fromkeys(MODALITIES, options.missing_rate)
        case Mechanism.FINDING:
            return {
                m: options.missing_rate * (present if findings[name] else absent)
                for m, (name, absent, present) in MISSING_WITH.items()
            }


def presence_chances(
    options: CohortOptions, findings: Mapping[str, bool]
) -> Float64[np.ndarray, " 7"]:
    """P(exactly this subset is present | findings), in the order of `SUBSETS`.

    Modalities go missing independently of each other, given that they are not all missing.
    """
    rates = absence_rates(options, findings)
    chances = np.array(
        [
            np.prod([1 - rates[m] if m in subset else rates[m] for m in MODALITIES])
            for subset in SUBSETS
        ]
    )
    return np.asarray(chances / chances.sum())


@dataclass(frozen=True, slots=True)
class World:
    """The exact answers for one set of options.

    Attributes:
        variables: The whole network, parents first.
        clinical: Per subset of `SUBSETS`, the posterior of `FINDINGS` given that subset's signs.
        delivered: Per subset, given all that a study with exactly those modalities gives away:
            its signs, its shortcuts, and which modalities are missing.
    """

    variables: tuple[Variable, ...]
    clinical: tuple[PosteriorTable, ...]
    delivered: tuple[PosteriorTable, ...]

    def clinical_auc(self) -> Float64[np.ndarray, "7 k"]:
        """The Bayes ROC area per subset and finding, from the signs alone."""
        return np.stack([population_auc([table]) for table in self.clinical])

    def delivered_auc(self) -> Float64[np.ndarray, " k"]:
        """The Bayes ROC area per finding over studies as they are delivered."""
        return population_auc(self.delivered)


@lru_cache(maxsize=4)
def build_world(options: CohortOptions) -> World:
    """Enumerate the network once: 2^17 states, and twice that for each shortcut.

    Raises:
        CohortError: As `build_variables`.
    """
    variables = build_variables(options)
    names = [variable.name for variable in variables]
    joint = joint_distribution(variables)
    signs = [[sign.name for m in MODALITIES if m in s for sign in SIGNS[m]] for s in SUBSETS]
    marks = [[shortcut_name(m) for m in MODALITIES if m in s] for s in SUBSETS]
    presence = _presence_by_finding(options, names)
    return World(
        variables,
        clinical=tuple(tabulate_posterior(names, joint, FINDINGS, known) for known in signs),
        delivered=tuple(
            tabulate_posterior(names, joint * chance, FINDINGS, known + mark)
            for known, mark, chance in zip(signs, marks, presence, strict=True)
        ),
    )


def _presence_by_finding(
    options: CohortOptions, names: list[str]
) -> list[Float64[np.ndarray, "..."]]:
    """P(subset | findings) for each subset, shaped to multiply the joint distribution."""
    table = np.empty((len(SUBSETS), *(2,) * len(FINDINGS)))
    for answers in np.ndindex((2,) * len(FINDINGS)):
        findings = {name: bool(a) for name, a in zip(FINDINGS, answers, strict=True)}
        table[(slice(None), *answers)] = presence_chances(options, findings)
    shape = [2 if name in FINDINGS else 1 for name in names]
    # FINDINGS stand in the network in the same order, so no axes need to be swapped.
    return [row.reshape(shape) for row in table]


def as_array(answers: Mapping[str, bool]) -> Bool[np.ndarray, " k"]:
    """The findings' labels, in the order of `FINDINGS`."""
    return np.array([answers[name] for name in FINDINGS])
