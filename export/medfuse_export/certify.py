"""The bundle's own attributions against Captum's: unseen studies in, the certificate out."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import numpy as np
import onnxruntime

from medfuse.attribution.baselines import make_baseline, usual_baseline
from medfuse.attribution.grad_cam import grad_cam
from medfuse.attribution.gradients import gradients
from medfuse.attribution.integrated_gradients import integrated_gradients
from medfuse.attribution.scale import Scales, choose_scale, measure_peak
from medfuse.attribution.settings import AttributionSettings
from medfuse.attribution.subject import Subject, take_up
from medfuse.attribution.target import Target, parse_target
from medfuse.bundle import Certificate, ModalityCertificate
from medfuse.errors import ExportError
from medfuse.explain.compare import Comparison, compare_maps
from medfuse.explain.integrated_gradients import integrated_gradients as by_captum
from medfuse.models.fused import FusedModel
from medfuse.overlay import sum_words
from medfuse.runtime import PROVIDERS, OnnxNetwork
from medfuse.training.checkpoint import Checkpoint
from medfuse.types import MODALITIES, SUBSETS, Attribution, Modality, Prepared, subset_name

STUDIES = 210
"""Thirty for each subset of modalities."""

POINTS = 2
"""Of the integral. Each tests the whole gradient graph; what more of them would test besides, the
quadrature, has answers by hand."""

LIMIT = 1e-4
"""Of the median relative L2 difference from Captum."""

RATIO = 1.5
"""How much further from the model in float64 than Captum in float32 ONNX Runtime may be."""


@dataclass(slots=True)
class _Peaks:
    """The largest number of each map as it is displayed, by method, target and modality."""

    found: dict[tuple[str, str, Modality], list[float]] = field(default_factory=dict)

    def take(self, attribution: Attribution, subject: Subject) -> None:
        for modality, values in attribution.values.items():
            note = subject.prepared.note
            if modality is Modality.NOTE and note is not None:
                words = sum_words(note.text, note.spans, values)
                values = np.array([word.value for word in words])
            key = (attribution.method, attribution.target, modality)
            self.found.setdefault(key, []).append(measure_peak(modality, values))

    def scales(self) -> Scales:
        """Choose each scale; a method that was not measured has that of the one in its units."""
        full: dict[str, dict[str, dict[Modality, float]]] = {}
        for (method, target, modality), peaks in self.found.items():
            scale = choose_scale(peaks)
            if scale is not None:
                full.setdefault(method, {}).setdefault(target, {})[modality] = scale
        for method, like in (
            ("occlusion", "integrated_gradients"),
            ("smooth_gradients", "gradients"),
        ):
            if like in full:
                full[method] = full[like]
        return Scales(full=full)


def count_studies(targets: int, least: int = STUDIES) -> int:
    """Say how many studies show every target, and every subset alike often: at least so many."""
    return len(SUBSETS) * -(-max(least, targets) // len(SUBSETS))


def certify(
    network: OnnxNetwork,
    checkpoint: Checkpoint,
    pool: Sequence[Prepared],
    progress: Callable[[float], None],
) -> tuple[Certificate, Scales]:
    """Compare integrated gradients by ONNX Runtime, by Captum, and by Captum in float64.

    Args:
        network: Over the graph that is to be certified.
        checkpoint: What the graph was made from; its model is in evaluation mode.
        pool: Full studies that no training has seen; each is cut to one subset of modalities, and
            subsets and targets take turns.
        progress: Told how much is done, from 0 to 1.

    Returns:
        The certificate, and the scales that the maps' pictures are to be drawn on.
    """
    exact = deepcopy(checkpoint.model).double()
    baseline = usual_baseline(checkpoint.tokenizer, checkpoint.background)
    settings = AttributionSettings(baseline=baseline, steps=POINTS, most_steps=POINTS)
    peaks, compared = _Peaks(), []
    subsets: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    for done, full in enumerate(pool):
        turn, place = divmod(done, len(SUBSETS))
        subset = SUBSETS[place]
        name = network.targets[(turn + place) % len(network.targets)]
        target = parse_target(name, network.targets)
        subject = take_up(network, _cut(full, subset), checkpoint.prepare)
        compared.append(_compare(network, checkpoint, exact, subject, target, settings, peaks))
        subsets[subset_name(subset)] += 1
        targets[name] += 1
        progress((done + 1) / len(pool))
    return (
        Certificate(
            studies=len(pool),
            by_subset=dict(subsets),
            by_target=dict(targets),
            points=POINTS,
            baseline=baseline,
            provider=PROVIDERS[network.provider][0],
            limit=LIMIT,
            ratio=RATIO,
            modalities={m: _summarise([c[m] for c in compared if m in c]) for m in MODALITIES},
            versions={name: version(name) for name in ("torch", "captum", "onnx")}
            | {"onnxruntime": onnxruntime.__version__},
        ),
        peaks.scales(),
    )


def check_certificate(certificate: Certificate) -> None:
    """Refuse a graph that doesn't explain as Captum does.

    Raises:
        ExportError: In some modality it neither agrees with Captum nor is about as near to the
            exact attribution as Captum is.
    """
    for modality, found in certificate.modalities.items():
        if not found.holds(certificate.limit, certificate.ratio):
            raise ExportError(
                f"the bundle's attributions to the {modality} differ from Captum's by "
                f"{found.relative_l2:.1e} (median of {found.studies} studies, and "
                f"{certificate.limit:.0e} is allowed), and are {found.onnx_to_float64:.1e} from "
                f"the model in float64, where Captum's are {found.captum_to_float64:.1e}; no "
                "bundle was written"
            )


def _compare(
    network: OnnxNetwork,
    checkpoint: Checkpoint,
    exact: FusedModel,
    subject: Subject,
    target: Target,
    settings: AttributionSettings,
    peaks: _Peaks,
) -> dict[Modality, Comparison]:
    """Compare the maps of one study, and note the peaks of what is displayed."""
    baseline = make_baseline(
        settings.baseline, subject, network, checkpoint.tokenizer, checkpoint.background, ()
    )
    ours = integrated_gradients(network, subject, baseline, target, settings)
    peaks.take(ours, subject)
    peaks.take(gradients(network, subject, baseline, target, settings), subject)
    if Modality.IMAGE in subject.inputs.present:
        peaks.take(grad_cam(network, subject, baseline, target, settings), subject)
    captum, judge = (
        by_captum(model, subject, baseline, target, settings).values
        for model in (checkpoint.model, exact)
    )
    return compare_maps(ours.values, captum, judge)


def _cut(prepared: Prepared, subset: frozenset[Modality]) -> Prepared:
    return replace(
        prepared,
        image=prepared.image if Modality.IMAGE in subset else None,
        note=prepared.note if Modality.NOTE in subset else None,
        voice=prepared.voice if Modality.VOICE in subset else None,
    )


def _summarise(found: Sequence[Comparison]) -> ModalityCertificate:
    return ModalityCertificate(
        studies=len(found),
        relative_l2=float(np.median([c.relative_l2 for c in found])),
        worst_relative_l2=max(c.relative_l2 for c in found),
        worst_difference=max(c.largest for c in found),
        onnx_to_float64=float(np.median([c.onnx_to_float64 for c in found])),
        captum_to_float64=float(np.median([c.captum_to_float64 for c in found])),
    )
