"""Why a model gave its answer: a study and a target in; its maps, shares and badge out."""

from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from medfuse.attribution.attribute import Attribute, attribute
from medfuse.attribution.background import Background
from medfuse.attribution.badge import BadgeSettings, judge
from medfuse.attribution.baselines import available_baselines, make_baseline
from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.shapley import shares
from medfuse.attribution.subject import Subject
from medfuse.attribution.target import Target
from medfuse.types import Attribution, Explanation, Modality, ModalityShares

GLANCE_STEPS = 4
"""Points of the integral of a coarse map."""

QUICK = frozenset({"integrated_gradients", "grad_cam", "gradients"})
"""Methods that have a coarse map."""

WANTED = 1000
_ATTRIBUTED, _SHARED = 450, 500
"""What progress counts up to, and how far it is after the attribution and after the shares."""


def explain_study(
    network: Network,
    subject: Subject,
    target: Target,
    settings: AttributionSettings,
    badge: BadgeSettings,
    tokenizer: Tokenizer,
    background: Background | None,
    samples: Sequence[Inputs],
    model_digest: str,
    *,
    band: bool = False,
    progress: Callable[[int, int], None] | None = None,
    by: Attribute = attribute,
) -> Explanation:
    """Explain one target of one study, and judge whether the explanation can be relied on.

    Args:
        network: What is explained.
        subject: The study.
        target: What is explained of it.
        settings: Method, baseline and their options.
        badge: What the explanation is held to.
        tokenizer: The note's.
        background: The training set's means, for the baseline `mean`.
        samples: Other studies, for the baseline `marginal`.
        model_digest: The bundle's or checkpoint's SHA-256, as hex.
        band: Share the output out against every other baseline that there is, too.
        progress: Called with the work done, which never falls, of `WANTED`.
        by: What computes the maps; shares and badge are the same whoever does.

    Raises:
        SettingsError: The baseline's needs are missing, or the study has nothing that the method
            can explain.
    """
    bar = _Progress(progress)
    baseline = make_baseline(settings.baseline, subject, network, tokenizer, background, samples)
    attribution = by(network, subject, baseline, target, settings, bar.part(0, _ATTRIBUTED))
    shared = shares(network, subject, target, None)
    others: list[ModalityShares] = []
    if band:
        names = available_baselines(tokenizer, background, samples, subject.inputs.present)
        count = bar.part(_ATTRIBUTED, _SHARED)
        for i, name in enumerate(names):
            other = make_baseline(name, subject, network, tokenizer, background, samples)
            others.append(shares(network, subject, target, other))
            count(i + 1, len(names))
    judged = judge(
        network, subject, baseline, target, attribution, badge, bar.part(_SHARED, WANTED)
    )
    return Explanation(
        attribution=attribution,
        shares=shared,
        badge=judged,
        model_digest=model_digest,
        frame_attention=_attend(network, subject),
        shares_by_baseline=tuple(others),
    )


def glance(
    network: Network,
    subject: Subject,
    target: Target,
    settings: AttributionSettings,
    tokenizer: Tokenizer,
    background: Background | None,
) -> Attribution | None:
    """Attribute coarsely, in a small part of the time, for who waits for the explanation.

    The integral has `GLANCE_STEPS` points, so its completeness gap may be far above what an
    explanation is held to; nothing of it was checked.

    Returns:
        The maps; None where the method or the baseline has no quick way.

    Raises:
        SettingsError: As `explain_study`.
    """
    if settings.method not in QUICK or settings.baseline == "marginal":
        return None
    coarse = settings.model_copy(update={"steps": GLANCE_STEPS, "most_steps": GLANCE_STEPS})
    baseline = make_baseline(settings.baseline, subject, network, tokenizer, background, ())
    return attribute(network, subject, baseline, target, coarse)


def _attend(network: Network, subject: Subject) -> tuple[float, ...]:
    if Modality.IMAGE not in subject.inputs.present:
        return ()
    return tuple(map(float, network.attend_frames(subject.inputs)[0]))


class _Progress:
    """Joins the progress of parts into one that never falls, though a part may want more."""

    def __init__(self, report: Callable[[int, int], None] | None) -> None:
        self._report = report
        self._done = 0

    def part(self, start: int, end: int) -> Callable[[int, int], None]:
        """Give a part that covers the work from ``start`` to ``end`` its own progress."""
        return lambda done, wanted: self._move(start + (end - start) * done // max(wanted, 1))

    def _move(self, done: int) -> None:
        if done > self._done:
            self._done = done
            if self._report is not None:
                self._report(done, WANTED)
