"""What every fusion must hold to: functions that take what builds one, and assert."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, SUBSETS, Modality

WIDTH = 16
PAIRS = ((0, 1), (0, 2), (1, 2))

Build = Callable[[int, float], nn.Module]
Encoded = dict[Modality, Tokens]


class SideBySide(nn.Module):
    """Several fusions of the same modalities, their results in one row."""

    def __init__(self, builds: Mapping[str, Build], width: int) -> None:
        super().__init__()
        self.fusions = nn.ModuleDict({name: build(width, 0.0) for name, build in builds.items()})

    def forward(self, encoded: Encoded) -> Tensor:
        """Fuse in every way."""
        return torch.cat([fusion(encoded) for fusion in self.fusions.values()], dim=1)


def encode(values: Tensor, present: Tensor) -> Encoded:
    """Make one-token modalities of values (B, 3, D)."""
    encoded = {}
    for i, modality in enumerate(MODALITIES):
        mask = present[:, i : i + 1]
        tokens = torch.where(mask[..., None], values[:, i : i + 1], 0.0)
        encoded[modality] = Tokens(tokens, mask, tokens[:, 0])
    return encoded


def draw_encoded(present: Tensor, padding: int = 2) -> Encoded:
    """Draw modalities of 2, 3 and 4 tokens for the studies that have them, and padding."""
    encoded = {}
    for i, modality in enumerate(MODALITIES):
        real = i + 2
        mask = torch.zeros(len(present), real + padding, dtype=torch.bool)
        mask[:, :real] = present[:, i : i + 1]
        tokens = torch.randn(len(present), real + padding, WIDTH) * mask[..., None]
        pooled = tokens.sum(dim=1) / real**0.5
        encoded[modality] = Tokens(tokens, mask, pooled)
    return encoded


def every_subset() -> Tensor:
    """Give the presence flags of seven studies, one per subset of modalities."""
    return torch.tensor([[m in subset for m in MODALITIES] for subset in SUBSETS])


def check_reads_present_modalities_alone(build: Build) -> None:
    """What an absent modality or padding holds changes no bit; what a present one holds does."""
    torch.manual_seed(0)
    fusion = build(WIDTH, 0.0)
    present = every_subset()
    encoded = draw_encoded(present)
    fused = fusion(encoded)
    assert fused.shape == (len(SUBSETS), WIDTH)
    assert fused.isfinite().all()
    for i, modality in enumerate(MODALITIES):
        tokens, mask, pooled = encoded[modality]
        rubbish = torch.where(mask[..., None], tokens, 1e4 * torch.randn(tokens.shape))
        assert torch.equal(fusion({**encoded, modality: Tokens(rubbish, mask, pooled)}), fused)
        changed = draw_encoded(present)[modality]
        rows = (fusion({**encoded, modality: changed}) != fused).any(dim=1)
        assert rows.tolist() == present[:, i].tolist()


def check_padding_and_company_change_rounding_at_most(build: Build) -> None:
    """A study is fused alone as it is padded beside others."""
    torch.manual_seed(0)
    fusion = build(WIDTH, 0.0)
    present = every_subset()
    encoded = draw_encoded(present)
    fused = fusion(encoded)
    for row in range(len(present)):
        alone = {
            m: Tokens(e.tokens[row : row + 1, :-2], e.mask[row : row + 1, :-2], e.pooled[row][None])
            for m, e in encoded.items()
        }
        # Sums of other lengths round otherwise.
        torch.testing.assert_close(fusion(alone)[0], fused[row], rtol=1e-5, atol=1e-5)


def check_absence_is_told_from_zero(build: Build) -> None:
    """Presence alone changes what is fused."""
    torch.manual_seed(0)
    fusion = build(WIDTH, 0.0)
    present = torch.tensor([[True, True, True], [True, True, False]])
    both, one = fusion(encode(torch.zeros(2, 3, WIDTH), present))
    assert not torch.allclose(both, one, atol=1e-3)


def check_gradients_reach_everything(build: Build) -> None:
    """Every weight and every present modality's embedding moves the result, and finitely so."""
    torch.manual_seed(0)
    fusion = build(WIDTH, 0.0)
    present = every_subset()
    encoded = draw_encoded(present)
    for part in encoded.values():
        part.pooled.requires_grad_()
    (fusion(encoded) * torch.randn(len(SUBSETS), WIDTH)).sum().backward()
    # Adding one number to every score of a softmax changes nothing, so these move by rounding.
    named = {
        n: p for n, p in fusion.named_parameters() if not n.endswith(("score.bias", "key.bias"))
    }
    assert [n for n, p in named.items() if p.grad is None or not p.grad.any()] == []
    for i, modality in enumerate(MODALITIES):
        gradient = encoded[modality].pooled.grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient[present[:, i]].any(dim=1).all()


def learn_exclusive_or(build: Build, steps: int = 100) -> list[float]:
    """Train on "one but not both" of each of `PAIRS` at once; give the accuracy of each.

    Either modality alone tells nothing of it, nor does any sum of what they tell alone.
    """
    torch.manual_seed(0)
    directions = torch.randn(3, WIDTH)
    present = torch.ones(500, 3, dtype=torch.bool)

    def draw(studies: int) -> tuple[Encoded, Tensor]:
        bits = torch.randint(0, 2, (studies, 3)).float()
        values = (2 * bits - 1)[..., None] * directions + 0.3 * torch.randn(studies, 3, WIDTH)
        labels = torch.stack([(bits[:, a] != bits[:, b]).float() for a, b in PAIRS], dim=1)
        return encode(values, present[:studies]), labels

    fusion, out = build(WIDTH, 0.0), nn.Linear(WIDTH, len(PAIRS))
    optimiser = torch.optim.Adam([*fusion.parameters(), *out.parameters()], lr=1e-2)
    for _ in range(steps):
        encoded, labels = draw(64)
        loss = nn.functional.binary_cross_entropy_with_logits(out(fusion(encoded)), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    encoded, labels = draw(500)
    with torch.no_grad():
        right = (out(fusion(encoded)) > 0) == (labels > 0)
    found: list[float] = right.float().mean(dim=0).tolist()
    return found
