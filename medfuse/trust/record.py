"""What a model's answers are held to: thresholds chosen on validation studies, for the record."""

from pydantic import Field

from medfuse.config import Settings

ABSENT, PRESENT = "absent", "present"
"""The classes of a finding."""


class TrustSettings(Settings):
    """What is promised of an answer."""

    coverage: float = Field(
        default=0.9, gt=0.5, lt=1, description="share of studies whose set holds the truth"
    )
    risk: float = Field(
        default=0.1, gt=0, lt=0.5, description="share of sure answers that may be wrong"
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="with which the risk is kept")
    sensitivity: float = Field(default=0.9, gt=0, lt=1, description="of calling a finding positive")
    false_alarms: float = Field(
        default=0.01, gt=0, lt=0.5, description="share of usual inputs that are called novel"
    )


class QuestionTrust(Settings):
    """What is promised of one question from one subset of modalities.

    A question is a finding, whose classes are ``absent`` and ``present``, or a whole task.

    Attributes:
        studies: How many validation studies each class had; of a quantity, under its name.
        least: The calibrated probability from which on a class is in the set; 0 where the studies
            were too few to leave it out of any set.
        within: How far a quantity may be from its estimate, in its own unit; None where the
            studies were too few, and of other tasks.
        sure: The largest class's probability from which on an answer is sure; None where none is.
        positive: The probability from which on a finding is called positive; None where the
            studies were too few, and of other tasks.
        exact: Whether the studies have exactly the subset's modalities; if not, others were taken
            away from some, and the promise holds where a modality is missing for no reason that
            has to do with the patient. None of a record that does not say.
    """

    studies: dict[str, int]
    least: dict[str, float] = Field(default_factory=dict)
    within: float | None = None
    sure: float | None = None
    positive: float | None = None
    exact: bool | None = None


class TrustRecord(Settings):
    """What is promised of every question from every subset of modalities.

    Attributes:
        settings: What is promised.
        subsets: By a subset's name and a question's: a finding's target, or a task's name.
    """

    settings: TrustSettings = TrustSettings()
    subsets: dict[str, dict[str, QuestionTrust]] = Field(default_factory=dict)

    def of(self, subset: str, question: str) -> QuestionTrust | None:
        """Give what is promised; None where nothing is."""
        return self.subsets.get(subset, {}).get(question)
