"""Who a study is of: its number in, the same patient's anatomy seed, sex, site and split out."""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum

import numpy as np

from medfuse.synthetic.options import CohortOptions

SITES = ("north", "south", "east")
"""The hospitals, each with its own machine, microphone and habits of writing."""

SITE_SHARES = (0.5, 0.3, 0.2)
"""The chance that a patient is of each."""

SPLITS = ("train",) * 7 + ("validation",) + ("test",) * 2
"""How every ten patients are divided, in an order drawn for each ten."""

STUDIES_PER_PATIENT = (3, 2, 1, 1, 1)
"""How many studies every five patients have, in an order drawn for each five."""


class Stream(IntEnum):
    """The independent streams of random numbers; a number is never given to another stream."""

    PATIENTS = 0
    PATIENT = 1
    SPLIT = 2
    NETWORK = 3
    PRESENCE = 4
    IMAGE = 5
    NOTE = 6
    VOICE = 7
    BODY = 8
    SPEAKER = 9
    MOOD = 10
    FINDINGS = 11


def open_stream(options: CohortOptions, stream: Stream, number: int) -> np.random.Generator:
    """Start the random numbers of one stream of one study, patient or group of patients.

    They depend on nothing else, so a study's bytes are the same whichever process makes it, and
    however many studies there are.
    """
    return np.random.default_rng([options.seed, int(stream), number])


@dataclass(frozen=True, slots=True)
class Patient:
    """What the studies of one patient share; none of it depends on a finding."""

    number: int
    sex: str
    birth_date: date
    site: str
    split: str
    first_visit: date

    @property
    def patient_id(self) -> str:
        """The identifier in the table, and PatientID in the images."""
        return f"P{self.number:06d}"

    def age_on(self, day: date) -> int:
        """Whole years of age."""
        birthday_ahead = (day.month, day.day) < (self.birth_date.month, self.birth_date.day)
        return day.year - self.birth_date.year - birthday_ahead


def find_patient(options: CohortOptions, index: int) -> tuple[Patient, int]:
    """Say whose study a number is, and which of that patient's visits, from 0."""
    group, place = divmod(index, sum(STUDIES_PER_PATIENT))
    sizes = open_stream(options, Stream.PATIENTS, group).permutation(STUDIES_PER_PATIENT)
    ends = np.cumsum(sizes)
    member = int(np.searchsorted(ends, place, side="right"))
    visit = place - int(ends[member] - sizes[member])
    return make_patient(options, group * len(STUDIES_PER_PATIENT) + member), visit


def make_patient(options: CohortOptions, number: int) -> Patient:
    """Draw one patient."""
    rng = open_stream(options, Stream.PATIENT, number)
    sex = "F" if rng.random() < 0.5 else "M"
    age_days = int(365.25 * rng.uniform(25, 88))
    first_visit = date(2024, 1, 1) + timedelta(days=int(rng.integers(0, 365)))
    site = SITES[int(rng.choice(len(SITES), p=SITE_SHARES))]
    ten, place = divmod(number, len(SPLITS))
    order = open_stream(options, Stream.SPLIT, ten).permutation(len(SPLITS))
    return Patient(
        number=number,
        sex=sex,
        birth_date=first_visit - timedelta(days=age_days),
        site=site,
        split=SPLITS[int(order[place])],
        first_visit=first_visit,
    )


def date_visit(patient: Patient, visit: int) -> date:
    """The day of a patient's visit: every three months."""
    return patient.first_visit + timedelta(days=91 * visit)
