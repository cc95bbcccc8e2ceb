"""A call in a process of its own: the error it ends in and the memory it takes at its peak."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import sys
from pathlib import Path

{imports}

def memory_kb(name):
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))

data = Path(sys.argv[1]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use now
before = memory_kb("VmRSS")
try:
    {call}
    error = "none"
except Exception as caught:
    error = type(caught).__name__
print(error, memory_kb("VmHWM") - before)
"""

MOST_BYTES = 256 * 2**20
"""What a refused input may take beyond its own bytes."""


@dataclass(frozen=True)
class Outcome:
    error: str
    extra_bytes: int


def measure(imports: str, call: str, file: Path) -> Outcome:
    """Run ``call`` on the file's bytes, named ``data``, in a new process (Linux alone)."""
    program = _PROGRAM.format(imports=imports, call=call)
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    error, extra_kb = done.stdout.split()
    return Outcome(error, int(extra_kb) * 1024)
