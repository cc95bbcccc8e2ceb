"""The ways to fuse: every modality's tokens, masks and pooled embeddings in, one embedding out."""

from collections.abc import Callable

from torch import nn

from medfuse.models.fusion.bottleneck import BottleneckFusion
from medfuse.models.fusion.concatenation import ConcatenationFusion
from medfuse.models.fusion.cross_attention import CrossAttentionFusion
from medfuse.models.fusion.expert_mixture import ExpertMixtureFusion
from medfuse.models.fusion.film import FilmFusion
from medfuse.models.fusion.gated import GatedFusion
from medfuse.models.fusion.late_average import LateAverageFusion
from medfuse.models.fusion.low_rank import LowRankFusion
from medfuse.models.fusion.shared_specific import SharedSpecificFusion
from medfuse.models.fusion.single_stream import SingleStreamFusion
from medfuse.models.fusion.squeeze_excite import SqueezeExciteFusion
from medfuse.models.fusion.stacked_late import StackedLateFusion

FUSIONS: dict[str, Callable[[int, float], nn.Module]] = {
    "gated": GatedFusion,
    "cross_attention": CrossAttentionFusion,
    "concatenation": ConcatenationFusion,
    "late_average": LateAverageFusion,
    "stacked_late": StackedLateFusion,
    "bottleneck": BottleneckFusion,
    "single_stream": SingleStreamFusion,
    "low_rank": LowRankFusion,
    "film": FilmFusion,
    "squeeze_excite": SqueezeExciteFusion,
    "expert_mixture": ExpertMixtureFusion,
    "shared_specific": SharedSpecificFusion,
}
"""By name, what takes the width and the dropout and gives a module from ``dict[Modality, Tokens]``
to ``(B, D)``."""
