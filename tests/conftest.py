"""What tests of several modules share: one small checkpoint, its bundle and one cohort per run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what opens a browser, so that it can be run apart."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session", autouse=True)
def own_uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each of a run's processes its own uploads, or one takes up the same file of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained network that is always the same; do not change it."""

    def make(folder: Path) -> None:
        from tests.tiny import make_checkpoint

        make_checkpoint(folder, findings_text=True)

    return _once(tmp_path_factory, "checkpoint", make)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The bundle exported from `tiny_checkpoint`; do not change it."""

    def make(folder: Path) -> None:
        from medfuse_export.export import ExportOptions, export_bundle

        options = ExportOptions(certify=14)
        export_bundle(tiny_checkpoint, folder, lambda step, done: None, options=options)

    return _once(tmp_path_factory, "bundle", make)


@pytest.fixture(scope="session")
def least_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is exported in seconds, with every part of the design; do not change it."""

    def make(folder: Path) -> None:
        from tests.tiny import make_least_checkpoint

        make_least_checkpoint(folder)

    return _once(tmp_path_factory, "least", make)


@pytest.fixture(scope="session")
def least_bundle(tmp_path_factory: pytest.TempPathFactory, least_checkpoint: Path) -> Path:
    """The bundle exported from `least_checkpoint`, which explains quickly; do not change it."""

    def make(folder: Path) -> None:
        from medfuse_export.export import ExportOptions, export_bundle

        options = ExportOptions(certify=7)
        export_bundle(least_checkpoint, folder, lambda step, done: None, options=options)

    return _once(tmp_path_factory, "least-bundle", make)


@pytest.fixture(scope="session")
def hand_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose graph is written by hand and answers at once; do not change it."""
    from tests.hand_bundle import make_bundle

    return make_bundle(tmp_path_factory.mktemp("hand") / "bundle")


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A known-truth cohort of 40 small studies; do not change it."""

    def make(folder: Path) -> None:
        from medfuse.synthetic.cohort import write_cohort
        from medfuse.synthetic.options import CohortOptions

        write_cohort(folder, CohortOptions(studies=40, seed=3, size=192), workers=1)

    return _once(tmp_path_factory, "cohort", make)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a small BERT that is always the same; do not change it."""

    def make(folder: Path) -> None:
        import torch

        from tests.tiny import write_bert

        with torch.random.fork_rng():
            torch.manual_seed(0)
            write_bert(folder)

    return _once(tmp_path_factory, "bert", make)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Make a folder in the first of a run's processes that wants it; the others wait for it."""
    from filelock import FileLock

    base = factory.getbasetemp()
    # With xdist each process has a folder of its own below the run's.
    shared = base.parent if base.name.startswith("popen-") else base
    folder = shared / "tiny" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            make(folder)
    return folder
