"""A bundle's or a checkpoint's folder in; all that explaining its answers needs out.

A bundle is opened without torch, a checkpoint with it.
"""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from medfuse.attribution.attribute import Attribute, attribute
from medfuse.attribution.background import Background, from_bytes
from medfuse.attribution.network import Inputs, Network
from medfuse.attribution.scale import Scales
from medfuse.attribution.subject import take_up
from medfuse.bundle import BACKGROUND, MANIFEST, TOKENIZER, open_bundle
from medfuse.config import PrepareSettings
from medfuse.data.note import read_tokenizer
from medfuse.data.prepare import prepare
from medfuse.data.studies import find_studies, read_study
from medfuse.errors import BundleError, InputError

CHECKPOINT = "checkpoint.json"

SAMPLES = 8
"""Studies that the baseline ``marginal`` is made from: each costs a whole integral."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A model whose answers can be explained.

    Attributes:
        network: It answers and differentiates.
        by: What computes maps: the torch-free methods, or Captum.
        tokenizer: The note's.
        prepare: How its input is prepared.
        background: The training set's mean study.
        scales: Where its maps' colours are full.
        digest: The bundle's or checkpoint's SHA-256, as hex.
        exported_from: The digest of the checkpoint that a bundle was made from; None of a
            checkpoint.
    """

    network: Network
    by: Attribute
    tokenizer: Tokenizer
    prepare: PrepareSettings
    background: Background
    scales: Scales
    digest: str
    exported_from: str | None


def open_model(folder: Path, provider: str | None) -> Opened:
    """Open a bundle or a checkpoint, whichever the folder is.

    Args:
        folder: It holds ``manifest.json`` or ``checkpoint.json``.
        provider: Execution provider of a bundle; the first that is there by default.

    Raises:
        BundleError: The folder is neither, or the bundle is damaged or cannot be explained.
        TrainingError: The checkpoint is damaged.
    """
    if (folder / MANIFEST).is_file():
        return _open_bundle(folder, provider)
    if (folder / CHECKPOINT).is_file():
        return _open_checkpoint(folder)
    raise BundleError(
        f"{folder}: neither a bundle ({MANIFEST}) nor a checkpoint ({CHECKPOINT}) is here"
    )


def take_samples(opened: Opened, folder: Path) -> tuple[Inputs, ...]:
    """Take up the first `SAMPLES` studies of a folder, as the network reads them.

    Raises:
        InputError: There is none, or one cannot be used; the message gives its place.
    """
    samples = []
    for number, files in enumerate(find_studies(folder)[:SAMPLES], start=1):
        try:
            study = read_study(files, opened.prepare.limits)
            prepared = prepare(study, opened.prepare, opened.tokenizer)
        except InputError as error:
            raise InputError(f"{folder}: study {number}: {error}") from error
        samples.append(take_up(opened.network, prepared, opened.prepare).inputs)
    return tuple(samples)


def _open_bundle(folder: Path, provider: str | None) -> Opened:
    from medfuse.runtime import open_network  # ONNX Runtime, which a checkpoint does without

    bundle = open_bundle(folder)
    network = open_network(bundle, provider)
    assert bundle.manifest.explain is not None  # or there would be no network
    return Opened(
        network=network,
        by=attribute,
        tokenizer=read_tokenizer(bundle.read(TOKENIZER)),
        prepare=bundle.manifest.prepare,
        background=from_bytes(bundle.read(BACKGROUND)),
        scales=bundle.manifest.explain.scales,
        digest=bundle.digest,
        exported_from=bundle.manifest.checkpoint,
    )


def _open_checkpoint(folder: Path) -> Opened:
    from medfuse.explain.reference import by_captum
    from medfuse.explain.torch_network import TorchNetwork
    from medfuse.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    return Opened(
        network=TorchNetwork(checkpoint.model),
        by=by_captum(checkpoint.model),
        tokenizer=checkpoint.tokenizer,
        prepare=checkpoint.prepare,
        background=checkpoint.background,
        scales=Scales(),
        digest=checkpoint.digest,
        exported_from=None,
    )
