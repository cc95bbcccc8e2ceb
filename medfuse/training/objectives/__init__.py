"""What training strives for: settings in, the losses that a step adds up out."""

from collections.abc import Mapping, Sequence

from medfuse.models.fused import FusedModel
from medfuse.training.objectives.adversarial import AdversarialObjective
from medfuse.training.objectives.contrastive import ContrastiveObjective
from medfuse.training.objectives.findings_text import FindingsTextObjective
from medfuse.training.objectives.generation import GenerationObjective
from medfuse.training.objectives.masked import MaskedObjective
from medfuse.training.objectives.supervised import SupervisedObjective
from medfuse.training.settings import FitSettings, ObjectiveSettings

Objective = (
    SupervisedObjective
    | ContrastiveObjective
    | MaskedObjective
    | GenerationObjective
    | AdversarialObjective
    | FindingsTextObjective
)


def build_objectives(
    model: FusedModel,
    settings: ObjectiveSettings,
    fit: FitSettings,
    weights: Sequence[Mapping[float, float]] = (),
) -> dict[str, Objective]:
    """Build the objectives that are asked for, by name; each maps a `Step` to its loss.

    What an objective learns beside the model (a discriminator, a predictor of masked features) is
    in it, and is left behind when training ends.

    Args:
        model: What is trained.
        settings: Which objectives.
        fit: How the supervised one leaves modalities out.
        weights: Of each label column's values; empty for none.
    """
    supervised = SupervisedObjective(settings.supervised, fit, weights, len(model.tasks))
    objectives: dict[str, Objective] = {}
    if settings.supervised.weight:
        objectives["supervised"] = supervised
    if settings.contrastive is not None:
        objectives["contrastive"] = ContrastiveObjective(settings.contrastive)
    if settings.masked is not None:
        objectives["masked"] = MaskedObjective(settings.masked, model)
    if settings.generation is not None:
        objectives["generation"] = GenerationObjective(settings.generation, model)
    if settings.adversarial is not None:
        objectives["adversarial"] = AdversarialObjective(settings.adversarial, supervised)
    if settings.findings_text is not None:
        objectives["findings_text"] = FindingsTextObjective(settings.findings_text)
    return objectives
