"""What one run of de-identification shares: the key, the settings, the limits and its counts."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from medfuse.config import Limits
from medfuse.deidentify.pseudonyms import Person, Pseudonyms
from medfuse.deidentify.settings import DeidentifySettings

TELLING = re.compile(r"(?=.*\d)[\w./-]{5,64}")
"""An identifier that is looked for in text; a shorter one may be any number."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run.

    Attributes:
        pseudonyms: Replaces identifiers.
        settings: What is kept.
        limits: What an input may declare.
        counts: What was replaced and removed so far, by kind; holds nothing of what it was.
    """

    pseudonyms: Pseudonyms
    settings: DeidentifySettings = field(default_factory=DeidentifySettings)
    limits: Limits = field(default_factory=Limits)
    counts: Counter[str] = field(default_factory=Counter)

    def person(
        self, patient_id: str, names: Sequence[str] = (), identifiers: Sequence[str] = ()
    ) -> Person:
        """Say who a patient becomes."""
        keep = self.settings.keep_ids
        return Person(
            pseudonym=patient_id if keep else self.pseudonyms.name("P", patient_id),
            shift_days=self.pseudonyms.shift_days(patient_id),
            names=tuple(names),
            identifiers=tuple(i for i in identifiers if TELLING.fullmatch(i)),
        )
