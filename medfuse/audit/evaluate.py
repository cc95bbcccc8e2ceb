"""A network and studies whose truth is known in; how well its explanations find that truth out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64
from pydantic import Field
from tokenizers import Tokenizer

from medfuse.attribution.attribute import attribute
from medfuse.attribution.background import Background
from medfuse.attribution.badge import BadgeSettings, judge
from medfuse.attribution.baselines import Baseline, make_baseline
from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.perturbation import trace_curves
from medfuse.attribution.settings import AttributionSettings, BaselineName, Method
from medfuse.attribution.shapley import shapley_interactions, shapley_values, shares
from medfuse.attribution.subject import Subject, take_up
from medfuse.attribution.target import Target, parse_target
from medfuse.audit.controls import edge_maps, edge_outputs, random_maps
from medfuse.audit.scores import net_elsewhere, point, share_inside, show
from medfuse.audit.truth import Evidence, exact_outputs, locate_evidence, synergistic
from medfuse.config import PrepareSettings, Settings
from medfuse.data.prepare import prepare
from medfuse.synthetic.options import CohortOptions
from medfuse.synthetic.study import SyntheticStudy, make_study
from medfuse.synthetic.world import FINDINGS, TARGETS, TASKS
from medfuse.types import MODALITIES, Modality

FIRST_UNSEEN = 1_000_000
"""A cohort has at most a million studies, so those from this number on are in none."""

Source = Literal["model", "random", "edges", "randomised"]
"""Whose map it is: the model's, noise, an edge detector's, or that of the network with its weights
permuted."""

SOURCES: tuple[Source, ...] = get_args(Source)

Owner = Literal[Source, "exact", "chance"]
"""Whose figure it is; ``exact`` is the exact posterior's, ``chance`` the evidence's area."""

NEARLY = 0.9
"""A modality whose exact share is this near to the largest is dominant too."""

STAGES = 6
ORDERS = 5
"""Of deletion and insertion: fewer than an explanation's own badge has, since it is done for every
control; each random order counts backwards too."""


class AuditSettings(Settings):
    """What is audited."""

    studies: int = Field(default=24, ge=1, description="how many unseen studies are made")
    first: int = Field(default=FIRST_UNSEEN, ge=FIRST_UNSEEN, description="number of the first")
    methods: tuple[Method, ...] = Field(default=("integrated_gradients",), min_length=1)
    baseline: BaselineName = "blank"
    cohort: CohortOptions = Field(
        default=CohortOptions(), description="what studies are like; how many it has is not used"
    )
    findings: tuple[str, ...] = Field(default=FINDINGS, min_length=1)
    steps: int = Field(default=64, ge=1, description="points of the integral at first")
    most_steps: int = Field(
        default=64,
        ge=1,
        description="points at most; no more than at first, since they take most of the time: "
        "raise it to see what doubling changes",
    )
    samples: int = Field(default=4, ge=1, description="other studies, for the baseline marginal")
    judged: bool = Field(default=True, description="whether each explanation's badge is computed")
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class Model:
    """What is audited, and the same network with its weights permuted.

    Attributes:
        network: The model.
        randomised: The control.
        prepare: How studies are prepared for both.
        tokenizer: The note's.
        background: The training set's means, where they are known.
    """

    network: Network
    randomised: Network
    prepare: PrepareSettings
    tokenizer: Tokenizer
    background: Background | None


@dataclass(frozen=True, slots=True)
class Score:
    """One number about one study.

    Attributes:
        name: Of the figure.
        value: The number.
        patient: Whose study it is.
        finding: What was explained.
        where: A modality, a pair such as ``image+voice``, or nothing.
        method: Of attribution; nothing where a figure has none.
        source: Whose it is.
    """

    name: str
    value: float
    patient: int
    finding: str
    where: str
    method: str
    source: Owner


@dataclass(frozen=True, slots=True)
class _Study:
    """One study as both networks are given it."""

    made: SyntheticStudy
    subjects: Mapping[Source, Subject]
    baselines: Mapping[Source, Baseline]

    @property
    def subject(self) -> Subject:
        """As the model itself is given it."""
        return self.subjects["model"]


@dataclass(frozen=True, slots=True)
class _Case:
    """One finding of one study, and the scores that it has so far."""

    study: _Study
    finding: str
    target: Target
    evidence: Mapping[Modality, Evidence]
    rng: np.random.Generator
    scores: list[Score]

    def add(
        self, name: str, value: float, source: Owner, where: str = "", method: str = ""
    ) -> None:
        patient = self.study.made.patient.number
        self.scores.append(Score(name, value, patient, self.finding, where, method, source))


def target_name(finding: str) -> str:
    """Name what a network answers of a finding of the known-truth cohort."""
    return next(f"{task.name}.{finding}" for task in TASKS if finding in task.classes)


def audit(
    model: Model,
    settings: AuditSettings,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Score, ...]:
    """Explain studies that no training has seen, and hold every explanation to the planted truth.

    Only findings of which a sign is planted are explained by maps; what the modalities tell is
    asked of every finding.

    Args:
        model: The network and its control.
        settings: Which studies, findings and methods.
        progress: Called with the steps done and the steps wanted.

    Raises:
        SettingsError: The network has no logit for a finding, or the baseline cannot be made.
    """
    options = settings.cohort
    samples = _take_samples(model, settings)
    scores: list[Score] = []
    done, wanted = 0, settings.studies * len(settings.findings)
    for number in range(settings.first, settings.first + settings.studies):
        study = _open_study(model, make_study(options, number), settings, samples)
        for finding in settings.findings:
            case = _open_case(model, study, finding, options, [settings.seed, number], scores)
            _score_shares(model, case, options)
            if case.evidence:
                for method in settings.methods:
                    _score_method(model, case, method, settings)
            done += 1
            if progress is not None:
                progress(done, wanted)
    return tuple(scores)


def _take_samples(model: Model, settings: AuditSettings) -> Mapping[Source, tuple[Inputs, ...]]:
    if settings.baseline != "marginal":
        return {"model": (), "randomised": ()}
    # After the audited ones, so that none is its own baseline.
    first = settings.first + settings.studies
    prepared = [
        prepare(make_study(settings.cohort, first + i).study, model.prepare, model.tokenizer)
        for i in range(settings.samples)
    ]
    return {
        source: tuple(take_up(network, each, model.prepare).inputs for each in prepared)
        for source, network in _networks(model).items()
    }


def _networks(model: Model) -> Mapping[Source, Network]:
    return {"model": model.network, "randomised": model.randomised}


def _open_study(
    model: Model,
    made: SyntheticStudy,
    settings: AuditSettings,
    samples: Mapping[Source, tuple[Inputs, ...]],
) -> _Study:
    prepared = prepare(made.study, model.prepare, model.tokenizer)
    subjects, baselines = {}, {}
    for source, network in _networks(model).items():
        subjects[source] = take_up(network, prepared, model.prepare)
        baselines[source] = make_baseline(
            settings.baseline,
            subjects[source],
            network,
            model.tokenizer,
            model.background,
            samples[source],
        )
    return _Study(made, subjects, baselines)


def _open_case(
    model: Model,
    study: _Study,
    finding: str,
    options: CohortOptions,
    seed: list[int],
    scores: list[Score],
) -> _Case:
    truth, prepared = study.made.truth, study.subject.prepared
    located = {
        m: locate_evidence(truth, prepared, finding, m, options, model.prepare.voice)
        for m in MODALITIES
    }
    return _Case(
        study=study,
        finding=finding,
        target=parse_target(target_name(finding), model.network.targets),
        evidence={m: each for m, each in located.items() if each is not None},
        rng=np.random.default_rng([*seed, TARGETS.index(finding)]),
        scores=scores,
    )


def _score_method(model: Model, case: _Case, method: Method, settings: AuditSettings) -> None:
    """Score a method's maps of both networks, and the maps that know of neither."""
    asked = AttributionSettings(
        method=method,
        baseline=settings.baseline,
        steps=settings.steps,
        most_steps=max(settings.steps, settings.most_steps),
        seed=settings.seed,
    )
    maps: dict[Source, Mapping[Modality, np.ndarray]] = {
        "random": random_maps(case.study.subject, case.rng),
        "edges": edge_maps(case.study.subject),
    }
    for source, network in _networks(model).items():
        subject, baseline = case.study.subjects[source], case.study.baselines[source]
        found = attribute(network, subject, baseline, case.target, asked)
        maps[source] = found.values
        if found.completeness_gap is not None:
            case.add("gap", found.completeness_gap, source, method=method)
        if settings.judged:
            badge = judge(
                network, subject, baseline, case.target, found, BadgeSettings(seed=settings.seed)
            )
            case.add("badge", float(badge.passed), source, method=method)
            for check in badge.checks:
                case.add(f"badge {check.name}", float(check.passed), source, method=method)
    for modality, evidence in case.evidence.items():
        if modality in maps["model"]:
            _score_places(case, modality, evidence, method, maps)
            _score_curves(model, case, modality, method, maps)


def _score_places(
    case: _Case,
    modality: Modality,
    evidence: Evidence,
    method: Method,
    maps: Mapping[Source, Mapping[Modality, np.ndarray]],
) -> None:
    case.add("share", evidence.area, "chance", modality.value, method)
    for source, values in maps.items():
        shown = show(case.study.subject.prepared, modality, values[modality])
        if source == "edges":  # it has no sign, so it speaks in whichever direction is asked for
            shown = tuple(evidence.direction * part for part in shown)
        case.add("pointing", point(shown, evidence), source, modality.value, method)
        case.add("share", share_inside(shown, evidence), source, modality.value, method)
        near = share_inside(shown, evidence, near=True)
        case.add("share near", near, source, modality.value, method)
        net = net_elsewhere(shown, evidence)
        case.add("net elsewhere", net, source, modality.value, method)


def _score_curves(
    model: Model,
    case: _Case,
    modality: Modality,
    method: Method,
    maps: Mapping[Source, Mapping[Modality, np.ndarray]],
) -> None:
    """Follow the order of every map, and random ones, through the model itself."""
    subject = case.study.subject
    orders: list[Int64[np.ndarray, " r"]] = [
        np.argsort(-subject.regions.total(modality, values[modality]), kind="stable")
        for values in maps.values()
    ]
    orders += [case.rng.permutation(subject.regions.counts[modality]) for _ in range(ORDERS)]
    curves = trace_curves(
        model.network,
        subject,
        case.study.baselines["model"].versions[0],
        case.target,
        (modality,),
        orders,
        STAGES,
    )
    chance = [sign * each.area for each in curves[len(maps) :] for sign in (1, -1)]
    for source, each in zip(maps, curves, strict=False):
        case.add("insertion less deletion", each.area, source, modality.value, method)
        beaten = float(np.mean(each.area > np.array(chance)))
        case.add("random orders beaten", beaten, source, modality.value, method)


def _score_shares(model: Model, case: _Case, options: CohortOptions) -> None:
    """Compare what each modality and each pair contributes with what it truly tells."""
    present = case.study.subject.inputs.present
    exact = {
        subset: output
        for subset, output in exact_outputs(case.study.made.truth, case.finding, options).items()
        if subset <= set(present)
    }
    outputs: dict[Source, Mapping[frozenset[Modality], float]] = {
        source: shares(network, case.study.subjects[source], case.target, None).outputs
        for source, network in _networks(model).items()
    }
    outputs["random"] = {subset: float(case.rng.standard_normal()) for subset in exact}
    outputs["edges"] = edge_outputs(case.study.subject, tuple(exact))

    true = {m: abs(v) for m, v in shapley_values(exact, present).items()}
    joint = shapley_interactions(exact, present)
    for pair, value in joint.items():
        _add_interaction(case, pair, value, value, "exact")
    for source, found in outputs.items():
        values = {m: abs(v) for m, v in shapley_values(found, present).items()}
        if len(present) > 1:
            chosen = max(values, key=lambda m: values[m])
            right = true[chosen] >= NEARLY * max(true.values())
            case.add("dominant right", float(right), source)
        for pair, value in shapley_interactions(found, present).items():
            _add_interaction(case, pair, value, joint[pair], source)


def _add_interaction(
    case: _Case,
    pair: frozenset[Modality],
    value: float,
    exact: float,
    source: Owner,
) -> None:
    """Record a pair's interaction: how large it is, and if it was planted, whether it is right."""
    where = "+".join(m.value for m in MODALITIES if m in pair)
    if synergistic(case.finding, pair):
        case.add("synergy", value * (1 if exact > 0 else -1), source, where)
        case.add("synergy sign right", float(value * exact > 0), source, where)
        case.add("interaction where planted", abs(value), source, where)
    else:
        case.add("interaction elsewhere", abs(value), source, where)
