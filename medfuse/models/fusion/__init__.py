"""The ways to fuse: every modality's tokens, masks and pooled embeddings in, one embedding out."""

from collections.abc import Callable

from torch import nn

from medfuse.models.fusion.cross_attention import CrossAttentionFusion
from medfuse.models.fusion.gated import GatedFusion

FUSIONS: dict[str, Callable[[int, float], nn.Module]] = {
    "gated": GatedFusion,
    "cross_attention": CrossAttentionFusion,
}
"""By name, what takes the width and the dropout and gives a module from ``dict[Modality, Tokens]``
to ``(B, D)``."""
