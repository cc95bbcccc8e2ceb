"""How much memory this process takes, as Linux counts it."""

import re
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def measure_growth(work: Callable[[], object]) -> float:
    """Do some work and give the most memory it took beyond what there was before, in MiB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew here
    before = _resident_mib("VmRSS")
    work()
    return _resident_mib("VmHWM") - before


def _resident_mib(key: str) -> float:
    found = re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024
