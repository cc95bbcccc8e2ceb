"""A bundle's folder in; what an audit asks, and the same with its weights permuted, out."""

from pathlib import Path

from medfuse.attribution.background import from_bytes
from medfuse.audit.evaluate import Model
from medfuse.bundle import BACKGROUND, TOKENIZER, open_bundle
from medfuse.data.note import read_tokenizer


def open_audited(folder: Path, provider: str | None, seed: int) -> tuple[Model, str]:
    """Open a bundle twice: as it is, and as a control.

    Args:
        folder: The bundle's.
        provider: Execution provider; the first that is there by default.
        seed: Of the control's permutation.

    Returns:
        Both networks with what they need, and the bundle's digest.

    Raises:
        BundleError: It is damaged, or cannot be explained.
    """
    from medfuse.runtime import load_weights, open_network  # ONNX Runtime, a second of imports

    bundle = open_bundle(folder)
    weights = load_weights(bundle)
    model = Model(
        network=open_network(bundle, provider, weights=weights),
        randomised=open_network(bundle, provider, weights=weights, randomise=seed),
        prepare=bundle.manifest.prepare,
        tokenizer=read_tokenizer(bundle.read(TOKENIZER)),
        background=from_bytes(bundle.read(BACKGROUND)),
    )
    return model, bundle.digest
