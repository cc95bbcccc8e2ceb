"""What a decoder's answers are read with; it travels in checkpoint and bundle."""

from pydantic import Field, model_validator

from medfuse.config import Settings
from medfuse.text.vocabulary import SPECIALS, Vocabulary


class TextRecord(Settings):
    """How a decoder is asked and its answers are read.

    Attributes:
        words: Its vocabulary, in the order of its logits.
        findings: The targets that it can be asked of, in the order of its numbers for them.
        thresholds: The calibrated probability from which a finding is stated; None for one that
            is never stated, since no threshold was precise enough on the validation studies.
        precision: What the thresholds were chosen for.
        cells: Cells of an image frame.
        mel_step: Mel frames of one token of the voice.
    """

    words: tuple[str, ...]
    findings: tuple[str, ...] = Field(min_length=1)
    thresholds: dict[str, float | None]
    precision: float = Field(gt=0, lt=1)
    cells: int = Field(gt=0)
    mel_step: float = Field(gt=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> "TextRecord":
        if self.words[: len(SPECIALS)] != SPECIALS:
            raise ValueError("the vocabulary does not begin with the special words")
        if set(self.thresholds) != set(self.findings):
            raise ValueError("the thresholds are not those of the findings")
        return self

    @property
    def vocabulary(self) -> Vocabulary:
        """The words."""
        return Vocabulary(self.words)
