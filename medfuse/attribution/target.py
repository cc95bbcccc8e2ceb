"""What is explained: a target's name, or a weighting of several, in; a weight per logit out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from medfuse.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Target:
    """A weighted sum of logits.

    Attributes:
        name: As asked for, such as ``findings.nodule`` or
            ``findings.nodule=1,findings.pneumonia=-0.5``.
        weights: One per logit of the model.
    """

    name: str
    weights: Float32[np.ndarray, " k"]


def parse_target(text: str, names: Sequence[str]) -> Target:
    """Read a target's name, or several joined by commas, each with ``=`` and its weight.

    Args:
        text: Such as ``findings.nodule``; a name without a weight has weight 1.
        names: The name of each logit of the model, in order.

    Raises:
        SettingsError: A name is not among them (the message lists those there are) or comes twice,
            or a weight is not a number other than zero.
    """
    weights = np.zeros(len(names), np.float32)
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        name, number = (name.strip(), number.strip()) if equals else (number.strip(), "1")
        if name not in names:
            raise SettingsError(f"target {name!r} is unknown; expected one of {', '.join(names)}")
        index = list(names).index(name)
        if weights[index]:
            raise SettingsError(f"target {name!r} is named twice")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight) or not np.float32(weight):
            raise SettingsError(f"target {name!r} has weight {number!r}; expected a number, not 0")
        weights[index] = weight
    return Target(text, weights)
