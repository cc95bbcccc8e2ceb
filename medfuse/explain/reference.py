"""The same attributions by Captum, on a torch model: what a bundle's own are held to.

A method is here under the name that it has in `medfuse.attribution.attribute`, and gives its
numbers in the same units.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from captum.attr import FeatureAblation, LayerAttribution, LayerGradCam, Saliency
from jaxtyping import Float
from torch import Tensor

from medfuse.attribution import grad_cam as own_grad_cam
from medfuse.attribution import gradients as own_gradients
from medfuse.attribution import occlusion as own_occlusion
from medfuse.attribution.attribute import Attribute
from medfuse.attribution.baselines import Baseline
from medfuse.attribution.network import Inputs, Network, repeat
from medfuse.attribution.settings import AttributionSettings, Method
from medfuse.attribution.subject import Subject
from medfuse.attribution.target import Target
from medfuse.errors import SettingsError
from medfuse.explain.integrated_gradients import integrated_gradients
from medfuse.explain.score import Scorer, to_maps
from medfuse.models.fused import FusedModel
from medfuse.types import MODALITIES, Attribution, Modality

ROWS = 8
"""Versions that go through the model at once."""


def gradients(
    model: FusedModel,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Take the signed gradient at the study by Captum's Saliency, a word's times its embedding."""
    scorer = Scorer(model, subject.inputs, target)
    parts = Saliency(scorer).attribute(scorer.leaves(subject.inputs), abs=False)
    if progress is not None:
        progress(1, 1)
    return Attribution(
        target=target.name,
        values=_round(to_maps(scorer, _weigh_words(scorer, parts))),
        method=own_gradients.METHOD,
        baseline=own_gradients.NO_BASELINE,
        completeness_gap=None,
        details={"output": scorer.answer(subject.inputs)},
    )


def smooth_gradients(
    model: FusedModel,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Average Captum's Saliency over noisy copies of the study.

    Captum's own NoiseTunnel draws from torch's global generator; the noise here is, number for
    number, that of `medfuse.attribution.gradients.smooth_gradients`.
    """
    inputs = subject.inputs
    scorer = Scorer(model, inputs, target)
    draws = {m: np.random.default_rng((settings.seed, MODALITIES.index(m))) for m in inputs.present}
    total: tuple[Tensor, ...] | None = None
    for first in range(0, settings.samples, ROWS):
        count = min(ROWS, settings.samples - first)
        noisy = {m: _add_noise(inputs.values[m], settings.noise, count, draws[m]) for m in draws}
        masks = repeat(inputs, count).masks
        copies = scorer.leaves(Inputs({**inputs.values, **noisy}, masks))
        found = Saliency(scorer).attribute(copies, abs=False)
        sums = tuple(part.double().sum(dim=0, keepdim=True) for part in found)
        total = sums if total is None else tuple(a + b for a, b in zip(total, sums, strict=True))
        if progress is not None:
            progress(first + count, settings.samples)
    assert total is not None
    parts = tuple(part / settings.samples for part in total)
    return Attribution(
        target=target.name,
        values=_round(to_maps(scorer, _weigh_words(scorer, parts))),
        method=own_gradients.SMOOTH_METHOD,
        baseline=own_gradients.NO_BASELINE,
        completeness_gap=None,
        details={
            "output": scorer.answer(inputs),
            "samples": float(settings.samples),
            "noise": settings.noise,
            "seed": float(settings.seed),
        },
    )


def grad_cam(
    model: FusedModel,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Map the image encoder's last features by Captum's LayerGradCam, the sign kept.

    Raises:
        SettingsError: The study has no image.
    """
    if Modality.IMAGE not in subject.inputs.present:
        raise SettingsError(
            "grad_cam explains images and the study has none; choose integrated_gradients"
        )
    scorer = Scorer(model, subject.inputs, target)
    # The network's own map, channels first, as Captum expects them.
    found = LayerGradCam(scorer, model.image.backbone.network).attribute(
        scorer.leaves(subject.inputs), relu_attributions=False
    )
    side = subject.inputs.values[Modality.IMAGE].shape[-1]
    frames = LayerAttribution.interpolate(found, (side, side), "bilinear")[:, 0]
    if progress is not None:
        progress(1, 1)
    return Attribution(
        target=target.name,
        values={Modality.IMAGE: np.asarray(frames.detach().float().cpu())},
        method=own_grad_cam.METHOD,
        baseline=own_gradients.NO_BASELINE,
        completeness_gap=None,
        details={"output": scorer.answer(subject.inputs)},
    )


def occlusion(
    model: FusedModel,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Put the baseline in the place of one region at a time by Captum's FeatureAblation.

    Captum gives every element the whole of its region's number; here it is spread over them.
    """
    regions, versions = subject.regions, baseline.versions
    done, wanted = 0, sum(regions.counts.values()) * len(versions)

    def count(answers: int) -> None:
        nonlocal done
        done = min(done + answers, wanted)
        if progress is not None:
            progress(done, wanted)

    scorer = Scorer(model, subject.inputs, target, count)
    values: dict[Modality, np.ndarray] = {}
    for modality in subject.inputs.present:
        falls = sum(_ablate(scorer, subject, version, modality) for version in versions)
        # One number per region: the mean of its elements, all of which have it.
        sizes = regions.total(modality, np.ones(regions.labels[modality].shape))
        totals = regions.total(modality, np.asarray(falls)) / np.maximum(sizes, 1)
        values[modality] = regions.spread(modality, totals / len(versions))
    return Attribution(
        target=target.name,
        values=_round(values),
        method=own_occlusion.METHOD,
        baseline=baseline.name,
        completeness_gap=None,
        details={
            "output": scorer.answer(subject.inputs),
            "baseline_output": float(np.mean([scorer.answer(version) for version in versions])),
            "regions": float(sum(regions.counts.values())),
        },
    )


METHODS: Mapping[
    Method,
    Callable[
        [
            FusedModel,
            Subject,
            Baseline,
            Target,
            AttributionSettings,
            Callable[[int, int], None] | None,
        ],
        Attribution,
    ],
] = {
    "integrated_gradients": integrated_gradients,
    "grad_cam": grad_cam,
    "gradients": gradients,
    "smooth_gradients": smooth_gradients,
    "occlusion": occlusion,
}


def reference_attribute(
    model: FusedModel,
    subject: Subject,
    baseline: Baseline,
    target: Target,
    settings: AttributionSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Explain a target by Captum, with the method that the settings name.

    Args:
        model: In evaluation mode, in any precision.
        subject: The study.
        baseline: What it is measured against, by the methods that measure against anything.
        target: The output of it.
        settings: Method and its options.
        progress: Called with the work done and the work wanted, in the method's own units.

    Raises:
        SettingsError: The study has nothing that the method can explain.
    """
    assert not model.training
    return METHODS[settings.method](model, subject, baseline, target, settings, progress)


def _weigh_words(
    scorer: Scorer, parts: tuple[Float[Tensor, "1 ..."], ...]
) -> tuple[Float[Tensor, "1 ..."], ...]:
    """Multiply word pieces' gradients by their embeddings, so that they are logits."""
    own = zip(scorer.inputs.present, parts, scorer.tensors(scorer.inputs), strict=True)
    return tuple(part * end if m is Modality.NOTE else part for m, part, end in own)


def _add_noise(
    values: Float[np.ndarray, "1 ..."], noise: float, count: int, draw: np.random.Generator
) -> Float[np.ndarray, "n ..."]:
    deviation = values.dtype.type(noise * values.std(dtype=np.float64))
    drawn = draw.standard_normal((count, *values.shape[1:]), dtype=np.float32)
    return np.asarray(values + deviation * drawn)


def _ablate(
    scorer: Scorer, subject: Subject, baseline: Inputs, modality: Modality
) -> Float[np.ndarray, "..."]:
    """Give each element of a modality how far the output falls without its region."""
    place = subject.inputs.present.index(modality)
    ends = scorer.tensors(subject.inputs)
    labels = torch.from_numpy(subject.regions.labels[modality].astype(np.int64))
    # What belongs to no region is one more, which the baseline leaves as it is.
    labels = torch.where(labels < 0, subject.regions.counts[modality], labels)
    mask = labels[None, ..., None] if modality is Modality.NOTE else labels[None]

    def score(versions: Tensor) -> Float[Tensor, " n"]:
        return scorer(*ends[:place], versions, *ends[place + 1 :])

    (found,) = FeatureAblation(score).attribute(
        (ends[place],),
        (scorer.tensors(baseline)[place],),
        feature_mask=(mask.expand(ends[place].shape).to(ends[place].device),),
        perturbations_per_eval=ROWS,
    )
    each = found[0, ..., 0] if modality is Modality.NOTE else found[0]
    return np.asarray(each.double().cpu())


def _round(maps: Mapping[Modality, Float[np.ndarray, "..."]]) -> dict[Modality, np.ndarray]:
    return {m: values.astype(np.float32) for m, values in maps.items()}


def by_captum(model: FusedModel) -> Attribute:
    """Let Captum compute the maps of an explanation of a model, whose network it need not ask."""

    def attribute_by_captum(
        network: Network,
        subject: Subject,
        baseline: Baseline,
        target: Target,
        settings: AttributionSettings,
        progress: Callable[[int, int], None] | None = None,
    ) -> Attribution:
        return reference_attribute(model, subject, baseline, target, settings, progress)

    return attribute_by_captum
