"""A cohort and its features in, the descriptions out that novelty is learnt from."""

from collections.abc import Collection

from medfuse.data.cohort import Cohort, Split
from medfuse.training.features import Features
from medfuse.trust.novelty_fitting import Described


def describe_rows(cohort: Cohort, features: Features, splits: Collection[Split]) -> list[Described]:
    """Give the descriptions of some splits' studies.

    Args:
        cohort: Every row with its split.
        features: Of the same rows.
        splits: Which of them.
    """
    return [
        Described(row.patient_id, features.describe(i))
        for i, row in enumerate(cohort.rows)
        if row.split in splits
    ]
