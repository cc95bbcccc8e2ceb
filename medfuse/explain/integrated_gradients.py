"""Integrated gradients by Captum: a batch and a target in, every modality's attribution out.

Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks". This is the reference that a
bundle's own explanations are held to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float
from torch import Tensor

from medfuse.config import Task
from medfuse.errors import SettingsError
from medfuse.explain.settings import ExplainSettings
from medfuse.models.fused import FusedModel
from medfuse.types import MODALITIES, Attribution, Batch, Modality

METHOD = "integrated_gradients"

LEAST_CHANGE = 0.01
"""Change of a logit below which the completeness gap is relative to this instead: it is no change
that an answer shows, and a ratio to nearly nothing says nothing."""


@dataclass(frozen=True, slots=True)
class StudyInputs:
    """One study where gradients can reach it, without padding.

    Attributes:
        values: Image (1, S, H, W), word-piece embeddings (1, L, E) and log-mel (1, T, F); of an
            absent modality one token, which nothing reads.
        masks: (1, S), (1, L) and (1, T): all true, or one false.
    """

    values: Mapping[Modality, Tensor]
    masks: Mapping[Modality, Tensor]

    @property
    def present(self) -> tuple[Modality, ...]:
        """The modalities that can be attributed to."""
        return tuple(m for m in MODALITIES if self.masks[m].any())


def target_index(tasks: Sequence[Task], target: str) -> int:
    """Find a target among all tasks' logits.

    Raises:
        SettingsError: No task has it; the message lists those there are.
    """
    names = [name for task in tasks for name in task.targets]
    if target not in names:
        raise SettingsError(f"target {target!r} is unknown; expected one of {', '.join(names)}")
    return names.index(target)


def integrated_gradients(
    model: FusedModel,
    batch: Batch,
    baseline: Batch,
    target: str,
    settings: ExplainSettings,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Attribution, ...]:
    """Attribute a target's logit to every input of each study, all present modalities jointly.

    The path runs straight from the baseline to the study in all modalities at once. Its integral is
    a Gauss-Legendre sum whose number of points doubles until the completeness gap is small enough
    or ``most_steps`` is reached; the gap that remains is in the answer. Where the study's logit
    differs from the baseline's by less than `LEAST_CHANGE`, the gap is relative to that.

    Args:
        model: In evaluation mode; dropout would break completeness.
        batch: The studies.
        baseline: The same studies as they would be without their content; see `BASELINES`.
        target: A name from `Task.targets`.
        settings: Steps and tolerance.
        progress: Called with the points done and the points wanted.

    Raises:
        SettingsError: The model does not have the target.
    """
    assert not model.training
    index = target_index(model.tasks, target)
    return tuple(
        _attribute(
            model,
            gather_inputs(model, batch, i),
            gather_inputs(model, baseline, i),
            index,
            target,
            settings,
            progress,
        )
        for i in range(len(batch.present))
    )


def gather_inputs(model: FusedModel, batch: Batch, i: int) -> StudyInputs:
    """Take one study out of a batch and look up its word pieces."""
    device = next(model.parameters()).device
    values, masks = {}, {}
    for modality in MODALITIES:
        real = batch.masks[modality][i]
        length = max(1, int(real.sum()))
        values[modality] = torch.from_numpy(batch.values[modality][i][None, :length]).to(device)
        masks[modality] = torch.from_numpy(real[None, :length]).to(device)
    with torch.no_grad():
        values[Modality.NOTE] = model.embed_note(values[Modality.NOTE])
    return StudyInputs(values, masks)


def score(model: FusedModel, study: StudyInputs, index: int) -> Float[Tensor, " n"]:
    """Answer one target; any modality's values may come in ``n`` versions, the rest in one."""
    n = max(len(values) for values in study.values.values())
    parts = [part for m in MODALITIES for part in (study.values[m], study.masks[m])]
    image, image_mask, note, note_mask, voice, voice_mask = (
        part.expand(n, *part.shape[1:]) for part in parts
    )
    outputs = model.forward_embedded(image, image_mask, note, note_mask, voice, voice_mask)
    return outputs.logits[:, index]


def _attribute(
    model: FusedModel,
    study: StudyInputs,
    baseline: StudyInputs,
    index: int,
    target: str,
    settings: ExplainSettings,
    progress: Callable[[int, int], None] | None,
) -> Attribution:
    present = study.present
    done = wanted = 0

    def score_versions(*versions: Tensor) -> Float[Tensor, " n"]:
        nonlocal done
        done += len(versions[0])
        if progress is not None and wanted:
            progress(min(done, wanted), wanted)
        values = {**study.values, **dict(zip(present, versions, strict=True))}
        return score(model, replace(study, values=values), index)

    ends = tuple(study.values[m] for m in present)
    starts = tuple(baseline.values[m] for m in present)
    with torch.no_grad():
        output, origin = score_versions(*ends).item(), score_versions(*starts).item()
    steps = settings.steps
    while True:
        done, wanted = 0, steps
        parts = IntegratedGradients(score_versions).attribute(
            ends,
            starts,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=settings.internal_batch_size,
        )
        total = sum(part.double().sum().item() for part in parts)
        gap = abs(total - (output - origin)) / max(abs(output - origin), LEAST_CHANGE)
        if gap <= settings.gap or 2 * steps > settings.most_steps:
            break
        steps *= 2
    values = {m: _to_axes(m, part) for m, part in zip(present, parts, strict=True)}
    return Attribution(
        target=target,
        values=values,
        method=METHOD,
        baseline=settings.baseline,
        completeness_gap=gap,
        details={
            "output": output,
            "baseline_output": origin,
            "steps": float(steps),
            "internal_batch_size": float(settings.internal_batch_size),
        },
    )


def _to_axes(modality: Modality, part: Float[Tensor, "1 ..."]) -> Float[np.ndarray, "..."]:
    """Give an attribution its modality's own axes; a word piece's is the sum over its embedding."""
    values = part[0].sum(dim=-1) if modality is Modality.NOTE else part[0]
    return np.asarray(values.detach().cpu())
