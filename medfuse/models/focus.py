"""How a classification's loss weighs easy answers against hard ones; read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Focus:
    """The asymmetric loss's numbers (Ridnik et al. 2021, eq. 7); all zero is cross-entropy.

    Attributes:
        present: Exponent of one minus the right answer's chance, where the finding is there.
        absent: The same where it is not there.
        margin: Chance of a finding below which its absence costs nothing.
    """

    present: float = 0.0
    absent: float = 0.0
    margin: float = 0.0


PLAIN = Focus()

FOCI: Mapping[str, Focus] = {
    "cross_entropy": PLAIN,
    "focal": Focus(present=2.0, absent=2.0),  # Lin et al. 2017
    "asymmetric": Focus(present=0.0, absent=4.0, margin=0.05),
}
