"""What ``medfuse benchmark`` is asked for: where data lie, how often and by which seed."""

from pathlib import Path

from pydantic import Field

from medfuse.config import Settings


class BenchmarkOptions(Settings):
    """How every benchmark is run.

    Attributes:
        data: Folder of the tables, pictures and recordings.
        out: Gets the report, imported cohorts and the feature cache.
        open_i: Open-I's reports; None where they are not at hand.
    """

    data: Path
    out: Path
    open_i: Path | None = None
    repeats: int = Field(default=5, gt=0, description="cross-validations, each split anew")
    folds: int = Field(default=5, ge=2, description="of each")
    inner_folds: int = Field(default=5, ge=2, description="within training patients, for stacking")
    network_repeats: int = Field(
        default=1, ge=0, description="of these, how many the fused network takes part in"
    )
    resamples: int = Field(default=2000, ge=0, description="of patients, for the intervals")
    seed: int = Field(default=0, ge=0)

    @property
    def features(self) -> Path:
        """Folder of the feature cache."""
        return self.out / "features"
