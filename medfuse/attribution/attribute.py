"""The methods by name: a study, its baseline and a target in, an attribution out."""

from collections.abc import Callable, Mapping

from medfuse.attribution.baselines import Baseline
from medfuse.attribution.grad_cam import grad_cam
from medfuse.attribution.gradients import gradients, smooth_gradients
from medfuse.attribution.integrated_gradients import integrated_gradients
from medfuse.attribution.network import Network
from medfuse.attribution.occlusion import occlusion
from medfuse.attribution.settings import AttributionSettings, Method
from medfuse.attribution.subject import Subject
from medfuse.attribution.target import Target
from medfuse.types import Attribution

Attribute = Callable[
    [
        Network,
        Subject,
        Baseline,
        Target,
        AttributionSettings,
        Callable[[int, int], None] | None,
    ],
    Attribution,
]
"""What computes maps: a network, a study, its baseline, a target, settings and progress in."""

METHODS: Mapping[Method, Attribute] = {
    "integrated_gradients": integrated_gradients,
    "grad_cam": grad_cam,
    "gradients": gradients,
    "smooth_gradients": smooth_gradients,
    "occlusion": occlusion,
}


def attribute(
    network: Network,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Explain a target by the method that the settings name.

    Args:
        network: What is explained.
        subject: The study.
        baseline: What it is measured against, by the methods that measure against anything.
        target: The output of it.
        settings: Method and its options.
        progress: Called with the work done and the work wanted, in the method's own units.

    Raises:
        SettingsError: The study has nothing that the method can explain.
    """
    return METHODS[settings.method](network, subject, baseline, target, settings, progress)
