"""What de-identification keeps, and what it does with dates."""

from typing import Literal

from pydantic import Field

from medfuse.config import Settings

OLDEST_AGE = 90
"""Stands for every age above 89, as in the Safe Harbor rule (45 CFR 164.514(b)(2)(i)(C))."""


class DeidentifySettings(Settings):
    """How far de-identification goes. The defaults are right for data from a hospital."""

    dates: Literal["shift", "remove"] = Field(
        default="shift",
        description="shift: by days that are the same for all of one patient; remove: none is left",
    )
    characteristics: bool = Field(
        default=True, description="keep sex and age; ages above 89 become 90"
    )
    text: bool = Field(default=True, description="replace names, dates, numbers and places in text")
    day_first: bool | None = Field(
        default=None,
        description="whether 03/04/2020 is in April; such a date is masked where this is not said",
    )
    keep_ids: bool = Field(
        default=False,
        description="patient and study ids are pseudonyms already, as in published sets",
    )
