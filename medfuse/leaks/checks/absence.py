"""Which modalities a study lacks; whether that tells a label, out."""

import numpy as np

from medfuse.leaks.association import flag
from medfuse.leaks.checks.telling import find_telling
from medfuse.leaks.examined import Examined
from medfuse.leaks.report import LeakFinding
from medfuse.types import MODALITIES


def check_absence(examined: Examined) -> list[LeakFinding]:
    """Test whether having an image, a note or a recording tells a label."""
    present = examined.present
    everywhere = np.asarray(present.any(axis=1))
    if not everywhere.any():
        return []
    features = [
        flag(f"having {'an image' if m.value == 'image' else 'a ' + m.value}", has, everywhere)
        for m, has in zip(MODALITIES, present.T, strict=True)
        if has.any() and not has.all()
    ]
    return find_telling(examined, "absence", features)
