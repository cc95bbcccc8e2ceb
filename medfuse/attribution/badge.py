"""An explanation in; whether it can be relied on, as four checks with their figures, out.

None of them asks a person what the map should show. Each asks something that a map must do if it
tells what this network's output rests on: account for the output (completeness), stay where it is
when nothing that matters changes (stability), name what the output falls and rises by
(faithfulness), and say what a method of another kind says (agreement).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64, Int32
from pydantic import Field, model_validator
from scipy.special import expit
from scipy.stats import rankdata

from medfuse.attribution.attribute import attribute
from medfuse.attribution.baselines import Baseline
from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.perturbation import list_totals, trace_curves
from medfuse.attribution.regions import BANDS, CELLS, NO_REGION, Regions
from medfuse.attribution.settings import METHODS, AttributionSettings, Method
from medfuse.attribution.subject import Subject, score
from medfuse.attribution.target import Target
from medfuse.config import Settings
from medfuse.types import MODALITIES, Attribution, Badge, Check, Modality

HALVINGS = 12
"""After so many the noise is a four-thousandth, and taken as it is."""

GRADIENT_FAMILY: frozenset[Method] = frozenset(METHODS) - {"occlusion"}
"""The methods that ask gradients; occlusion asks answers alone."""


class BadgeSettings(Settings):
    """What an explanation is held to; docs/explain.md gives the measurements behind the limits."""

    gap: float = Field(
        default=0.005, gt=0, description="largest completeness gap, the one that steps aim at"
    )
    copies: int = Field(default=3, ge=1, description="noisy copies of the study")
    noise: float = Field(
        default=0.1,
        gt=0,
        description="deviation of their noise at first, as a share of each modality's own; halved "
        "for a copy until its probability stays",
    )
    moved: float = Field(
        default=0.02, gt=0, description="how far a copy's probability may be from the study's"
    )
    points: int = Field(
        default=8, ge=1, description="points of the integral, or samples, of a map that is compared"
    )
    stability: float = Field(default=0.5, ge=-1, le=1, description="lowest likeness of the copies")
    stages: int = Field(default=9, ge=2, description="stages of the map's deletion and insertion")
    order_stages: int = Field(
        default=3, ge=2, description="stages of random orders; the map is compared at these too"
    )
    orders: int = Field(
        default=10, ge=10, description="random orders; each is read backwards as well"
    )
    faithfulness: float = Field(
        default=0.95, ge=0, le=1, description="share of random orders that the map must beat"
    )
    agreement: float = Field(default=0.3, ge=-1, le=1, description="lowest rank correlation")
    patches: int = Field(
        default=5, ge=1, description="patches along a frame's side that agreement compares"
    )
    parts: int = Field(
        default=24, ge=2, description="runs of words, and windows of sound, that it compares"
    )
    least_change: float = Field(
        default=0.05,
        ge=0,
        description="change of the output, whatever is taken away, below which there is nothing to "
        "explain: no probability moves by more than 0.0125",
    )
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _stages_fit(self) -> "BadgeSettings":
        if self.stages % self.order_stages:
            raise ValueError("stages is not a multiple of order_stages")
        return self


@dataclass(frozen=True, slots=True)
class _Case:
    """What every check is given."""

    network: Network
    subject: Subject
    baseline: Baseline
    target: Target
    attribution: Attribution
    settings: BadgeSettings


def judge(
    network: Network,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    attribution: Attribution,
    settings: BadgeSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Badge:
    """Hold an explanation to four checks; it passes when all of them do.

    Every check looks at the map by regions, as numbers per patch, word or window of sound: one
    pixel or mel bin says nothing. Of a baseline in several versions the first is used, on both
    sides of a comparison.

    Args:
        network: What was explained.
        subject: The study.
        baseline: What the explanation was measured against, or what is to stand where a region is
            taken away.
        target: What was explained.
        attribution: The map.
        settings: Limits.
        progress: Called with the checks done and the checks there are.
    """
    one = Baseline(baseline.name, baseline.versions[:1])
    case = _Case(network, subject, one, target, attribution, settings)
    checks = []
    for number, check in enumerate(
        (_check_completeness, _check_stability, _check_faithfulness, _check_agreement)
    ):
        if progress is not None:
            progress(number, 4)
        checks.append(check(case))
    if progress is not None:
        progress(4, 4)
    return Badge(tuple(checks))


def _check_completeness(case: _Case) -> Check:
    gap, most = case.attribution.completeness_gap, case.settings.gap
    if gap is None:
        message = f"{case.attribution.method} promises no completeness, so there is none to check."
        return Check("completeness", 0.0, most, True, message)
    message = f"The map accounts for the output but for {gap:.2%} (at most {most:.1%} is good)."
    return Check("completeness", gap, most, gap <= most, message)


def _check_stability(case: _Case) -> Check:
    """Compare the map with that of copies whose noise does not move the probability.

    Both are computed anew, alike and with few points: what differs is the noise alone.
    """
    quick = _make_quick(case.attribution.method, case.settings)
    compared = _compare_on(
        case.subject, quick.method, tuple(case.attribution.values), case.settings
    )
    copies, moved = _add_noise(case.network, compared, case.target, case.settings)
    clean = attribute(case.network, compared, case.baseline, case.target, quick).values
    likeness = {m: 0.0 for m in MODALITIES if m in clean}
    for copy in copies:
        noisy = attribute(
            case.network, replace(compared, inputs=copy), case.baseline, case.target, quick
        ).values
        for modality in likeness:
            pair = [compared.regions.total(modality, each[modality]) for each in (clean, noisy)]
            # A modality that the output never reads has no map, which noise does not change.
            nought = not any(totals.any() for totals in pair)
            likeness[modality] += (1.0 if nought else _cosine(*pair)) / len(copies)
    worst = min(likeness, key=lambda modality: likeness[modality])
    value = likeness[worst]
    message = (
        f"Under noise that moves the probability by {moved:.3f} at most, the {worst.value} keeps "
        f"{value:.2f} of its map (1 is all; at least {case.settings.stability:.2f} is good)."
    )
    return Check(
        "stability", value, case.settings.stability, value >= case.settings.stability, message
    )


def _check_faithfulness(case: _Case) -> Check:
    """Compare the map's order of regions with random ones, at the same stages."""
    modalities = tuple(m for m in MODALITIES if m in case.attribution.values)
    version = case.baseline.versions[0]
    totals = list_totals(case.subject.regions, case.attribution.values)
    order = np.argsort(-totals, kind="stable")
    (curves,) = trace_curves(
        case.network, case.subject, version, case.target, modalities, [order], case.settings.stages
    )
    rng = np.random.default_rng(case.settings.seed)
    drawn = trace_curves(
        case.network,
        case.subject,
        version,
        case.target,
        modalities,
        [rng.permutation(len(totals)) for _ in range(case.settings.orders)],
        case.settings.order_stages,
    )
    # Read backwards, an order takes away last what it took away first: the area changes its sign.
    random = np.array([sign * each.area for each in drawn for sign in (1, -1)])
    area = curves.every(case.settings.stages // case.settings.order_stages).area
    beaten = int((area > random).sum())
    value = beaten / len(random)
    figures = (
        "Along the map's order of regions, putting them back differs from taking them away by "
        f"{curves.area:+.2f}, which beats {beaten} of {len(random)} random orders (at least "
        f"{case.settings.faithfulness:.0%} is good)."
    )
    if curves.span < case.settings.least_change:
        message = (
            f"The output moves by {curves.span:.3f} at most, whatever is taken away, so there is "
            f"nothing to explain (less than {case.settings.least_change:.2f}). {figures}"
        )
        return Check("faithfulness", value, case.settings.faithfulness, False, message)
    passed = value >= case.settings.faithfulness
    return Check("faithfulness", value, case.settings.faithfulness, passed, figures)


def _check_agreement(case: _Case) -> Check:
    """Compare the map with one by the other family, rank by rank within each modality."""
    other: Method = (
        "integrated_gradients" if case.attribution.method == "occlusion" else "occlusion"
    )
    quick = _make_quick(other, case.settings)
    modalities = tuple(m for m in MODALITIES if m in case.attribution.values)
    compared = replace(
        case.subject,
        regions=merge_regions(
            case.subject.regions, modalities, case.settings.patches, case.settings.parts
        ),
    )
    second = attribute(case.network, compared, case.baseline, case.target, quick).values
    ranks: list[list[Float64[np.ndarray, " r"]]] = [[], []]
    for modality in modalities:
        for values, kept in zip((case.attribution.values, second), ranks, strict=True):
            kept.append(_rank(compared.regions.total(modality, values[modality])))
    value = _cosine(*(np.concatenate(each) for each in ranks))
    message = (
        f"By patches, words and sounds the map ranks as {other} does with a correlation of "
        f"{value:.2f} (at least {case.settings.agreement:.2f} is good)."
    )
    return Check(
        "agreement", value, case.settings.agreement, value >= case.settings.agreement, message
    )


def _make_quick(method: str, settings: BadgeSettings) -> AttributionSettings:
    """Ask a method for few points, the same for every map of a comparison."""
    return AttributionSettings.model_validate(
        {
            "method": method,
            "steps": settings.points,
            "most_steps": settings.points,
            "samples": settings.points,
            "seed": settings.seed,
        }
    )


def _add_noise(
    network: Network, subject: Subject, target: Target, settings: BadgeSettings
) -> tuple[tuple[Inputs, ...], float]:
    """Make noisy copies, each with as much noise as leaves the probability where it is.

    Only what belongs to a region gets noise: padding and special pieces are no content.

    Returns:
        The copies, and the largest change of a probability among them.
    """
    rng = np.random.default_rng(settings.seed)
    present = subject.inputs.present
    drawn = {}
    for modality in present:
        own = subject.inputs.values[modality]
        real = subject.regions.labels[modality] != NO_REGION
        if modality is Modality.NOTE:
            real = real[:, None]
        deviation = own.dtype.type(own.std(dtype=np.float64))
        normal = rng.standard_normal((settings.copies, *own.shape[1:]), dtype=np.float32)
        drawn[modality] = deviation * normal * real

    def make(size: Float64[np.ndarray, " n"]) -> Inputs:
        values = dict(subject.inputs.values)
        for modality, noise in drawn.items():
            own = values[modality]
            shares = size.astype(own.dtype).reshape(-1, *[1] * (own.ndim - 1))
            values[modality] = own + shares * noise
        masks = {
            m: np.broadcast_to(mask, (settings.copies, *mask.shape[1:]))
            for m, mask in subject.inputs.masks.items()
        }
        for modality in MODALITIES:
            if modality not in drawn:
                own = values[modality]
                values[modality] = np.broadcast_to(own, (settings.copies, *own.shape[1:]))
        return Inputs(values, masks)

    size = np.full(settings.copies, settings.noise)
    before = expit(score(network, subject.inputs, target)[0])
    for _ in range(HALVINGS):
        copies = make(size)
        moved = np.abs(expit(score(network, copies, target)) - before)
        too_far = moved > settings.moved
        if not too_far.any():
            break
        size[too_far] /= 2
    parts = tuple(
        Inputs(
            {m: v[i : i + 1] for m, v in copies.values.items()},
            {m: v[i : i + 1] for m, v in copies.masks.items()},
        )
        for i in range(settings.copies)
    )
    return parts, float(moved.max())


def _compare_on(
    subject: Subject, method: Method, modalities: Sequence[Modality], settings: BadgeSettings
) -> Subject:
    """Let occlusion take away fewer and larger regions, since it asks an answer for each."""
    if method in GRADIENT_FAMILY:
        return subject
    return replace(
        subject,
        regions=merge_regions(subject.regions, modalities, settings.patches, settings.parts),
    )


def merge_regions(
    regions: Regions, modalities: Sequence[Modality], patches: int, parts: int
) -> Regions:
    """Join regions of some modalities to larger ones; the others have none left.

    Every larger region is whole regions, so that totals are sums of theirs.
    """
    labels: dict[Modality, Int32[np.ndarray, ...]] = {}
    for modality, fine in regions.labels.items():
        if modality not in modalities:
            labels[modality] = np.full_like(fine, NO_REGION)
            continue
        if modality is Modality.IMAGE:
            frames, side, _ = fine.shape
            place = (np.arange(side) * CELLS // side) * min(patches, CELLS) // CELLS
            grid = place[:, None] * patches + place
            coarse = grid + patches * patches * np.arange(frames)[:, None, None]
        elif modality is Modality.NOTE:
            coarse = fine * min(parts, regions.counts[modality]) // regions.counts[modality]
        else:
            bands = min(BANDS, fine.shape[1])
            windows = -(-regions.counts[modality] // bands)
            spans = fine // bands * min(parts // 2, windows) // windows
            coarse = 2 * spans + fine % bands * 2 // bands
        merged = np.where(fine == NO_REGION, NO_REGION, coarse).astype(np.int32)
        real = merged != NO_REGION
        merged[real] = np.unique(merged[real], return_inverse=True)[1]
        labels[modality] = merged
    return Regions(labels, {m: int(each.max(initial=NO_REGION)) + 1 for m, each in labels.items()})


def _rank(totals: Float[np.ndarray, " r"]) -> Float64[np.ndarray, " r"]:
    """Give ranks from -1 to 1; what is equal shares its mean rank."""
    if len(totals) < 2:
        return np.zeros(len(totals))
    return np.asarray((rankdata(totals) - 1) / (len(totals) - 1) * 2 - 1)


def _cosine(a: Float[np.ndarray, " r"], b: Float[np.ndarray, " r"]) -> float:
    """Compare two lists of numbers by direction; 0 where one of them is all zero."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0
