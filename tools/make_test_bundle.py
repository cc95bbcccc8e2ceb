"""Write the bundle that tests/torchfree runs on: make_test_bundle.py FOLDER."""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from medfuse_export.export import ExportOptions, export_bundle
from tests.tiny import make_checkpoint


def main(folder: Path) -> None:
    """Export the tests' small network anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = make_checkpoint(Path(temporary) / "checkpoint")
        options = ExportOptions(certify=14)
        export_bundle(checkpoint, folder, lambda step, done: None, options=options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
