"""The fusions: gates by hand, absent modalities, and evidence that only two modalities tell."""

import pytest
import torch
from torch import Tensor, nn

from medfuse.models.fusion import FUSIONS
from medfuse.models.fusion.cross_attention import Attention
from medfuse.models.fusion.gated import GatedFusion
from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, SUBSETS, Modality, subset_name

WIDTH = 16


def _encode(values: Tensor, present: Tensor) -> dict[Modality, Tokens]:
    """Make one-token modalities of values (B, 3, D)."""
    encoded = {}
    for i, modality in enumerate(MODALITIES):
        mask = present[:, i : i + 1]
        tokens = torch.where(mask[..., None], values[:, i : i + 1], 0.0)
        encoded[modality] = Tokens(tokens, mask, tokens[:, 0])
    return encoded


def test_gates_share_one_among_the_present_modalities_in_proportion_to_their_odds() -> None:
    fusion = GatedFusion(WIDTH, dropout=0.0)
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.bias.copy_(torch.tensor([1.0, 3.0, 4.0]).log())
    present = torch.tensor([[True, True, True], [True, True, False], [False, False, True]])
    gates = fusion.gates(torch.zeros(3, 3 * (WIDTH + 1)), present)
    expected = [[1 / 8, 3 / 8, 4 / 8], [1 / 4, 3 / 4, 0.0], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(gates, torch.tensor(expected))


def test_attention_reads_real_keys_in_proportion_to_the_exponent_of_their_score() -> None:
    attention = Attention(width=1, heads=1)
    with torch.no_grad():
        for layer in (attention.query, attention.key, attention.value, attention.out):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    keys = torch.tensor([[[0.0], [3.0], [50.0]]]).log1p()  # exp(key) is 1, 4 and 51
    mask = torch.tensor([[True, True, False]])
    read = attention(torch.ones(1, 1, 1), keys, mask)
    torch.testing.assert_close(read, (4 / 5 * torch.tensor(4.0).log()).reshape(1, 1, 1))


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
def test_fusion_without_dropout_is_finite_and_reads_present_modalities_alone(
    name: str, subset: frozenset[Modality]
) -> None:
    torch.manual_seed(0)
    fusion = FUSIONS[name](WIDTH, 0.0)
    present = torch.tensor([[m in subset for m in MODALITIES]])
    values = torch.randn(1, 3, WIDTH)
    fused = fusion(_encode(values, present))
    assert fused.isfinite().all()
    for i, modality in enumerate(MODALITIES):
        changed = values.clone()
        changed[:, i] += 1
        same = torch.equal(fusion(_encode(changed, present)), fused)
        assert same == (modality not in subset)


@pytest.mark.parametrize("name", FUSIONS)
def test_presence_alone_changes_what_is_fused(name: str) -> None:
    torch.manual_seed(0)
    fusion = FUSIONS[name](WIDTH, 0.0)
    values = torch.zeros(2, 3, WIDTH)
    present = torch.tensor([[True, True, True], [True, True, False]])
    both, one = fusion(_encode(values, present))
    assert not torch.allclose(both, one, atol=1e-3)


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_fusion_learns_what_neither_of_two_modalities_tells_alone(
    name: str, pair: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    directions = torch.randn(3, WIDTH)

    def draw(studies: int) -> tuple[dict[Modality, Tokens], Tensor]:
        bits = torch.randint(0, 2, (studies, 3)).float()
        values = (2 * bits - 1)[..., None] * directions + 0.3 * torch.randn(studies, 3, WIDTH)
        labels = (bits[:, pair[0]] != bits[:, pair[1]]).float()
        return _encode(values, torch.ones(studies, 3, dtype=torch.bool)), labels

    model = nn.ModuleList([FUSIONS[name](WIDTH, 0.0), nn.Linear(WIDTH, 1)])
    fusion, out = model
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        encoded, labels = draw(64)
        loss = nn.functional.binary_cross_entropy_with_logits(out(fusion(encoded))[:, 0], labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    encoded, labels = draw(500)
    assert (((out(fusion(encoded))[:, 0] > 0) == (labels > 0)).float().mean()) > 0.97
