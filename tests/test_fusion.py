"""The fusions: the core of each by hand, and the laws that all of them hold to."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medfuse.models.attention import Attention, TransformerBlock
from medfuse.models.fusion import FUSIONS
from medfuse.models.fusion.bottleneck import BottleneckFusion
from medfuse.models.fusion.expert_mixture import ExpertMixtureFusion
from medfuse.models.fusion.film import FilmFusion
from medfuse.models.fusion.gated import GatedFusion
from medfuse.models.fusion.late_average import LateAverageFusion
from medfuse.models.fusion.low_rank import LowRankFusion
from medfuse.models.fusion.pooled import apply_each, average_present, gather
from medfuse.models.fusion.shared_specific import SharedSpecificFusion
from medfuse.models.fusion.single_stream import SingleStreamFusion
from medfuse.models.fusion.squeeze_excite import SqueezeExciteFusion
from medfuse.models.fusion.stacked_late import StackedLateFusion
from medfuse.models.tokens import Tokens
from medfuse.types import MODALITIES, Modality
from tests.fusion_laws import (
    WIDTH,
    check_absence_is_told_from_zero,
    check_gradients_reach_everything,
    check_padding_and_company_change_rounding_at_most,
    check_reads_present_modalities_alone,
    draw_encoded,
    encode,
    every_subset,
    learn_exclusive_or,
)

ADDITIVE = {"late_average"}
"""Fusions that are sums of what each modality says alone, so can't learn what only two tell."""

IMAGE, NOTE, VOICE = MODALITIES


# The laws, for every fusion in the table


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_is_finite_and_reads_present_modalities_and_real_tokens_alone(name: str) -> None:
    check_reads_present_modalities_alone(FUSIONS[name])


@pytest.mark.parametrize("name", FUSIONS)
def test_a_study_is_fused_alone_as_it_is_padded_beside_others(name: str) -> None:
    check_padding_and_company_change_rounding_at_most(FUSIONS[name])


@pytest.mark.parametrize("name", FUSIONS)
def test_presence_alone_changes_what_is_fused(name: str) -> None:
    check_absence_is_told_from_zero(FUSIONS[name])


@pytest.mark.parametrize("name", FUSIONS)
def test_every_weight_and_every_present_embedding_moves_the_result(name: str) -> None:
    check_gradients_reach_everything(FUSIONS[name])


@pytest.mark.parametrize("name", [name for name in FUSIONS if name not in ADDITIVE])
def test_fusion_learns_what_neither_of_two_modalities_tells_alone(name: str) -> None:
    assert min(learn_exclusive_or(FUSIONS[name])) > 0.97


@pytest.mark.parametrize("name", ADDITIVE)
def test_a_sum_over_modalities_cannot_learn_what_only_two_tell(name: str) -> None:
    # Its logits of "both" and "neither" add up to those of "one" and "the other", so that three of
    # the four can be right at the very best; training, which is torn both ways, finds chance.
    assert max(learn_exclusive_or(FUSIONS[name])) < 0.7


# What several share


def test_an_average_counts_the_present_and_is_zero_without_any() -> None:
    values = torch.tensor([[[2.0], [4.0], [90.0]]]).expand(3, 3, 1)
    present = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    assert average_present(values, present)[:, 0].tolist() == [3.0, 90.0, 0.0]


def test_the_joint_row_is_every_embedding_and_then_the_flags() -> None:
    present = torch.tensor([[True, False, True]])
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    study = gather(encode(values, present))
    assert study.joint.tolist() == [[1.0, 2.0, 0.0, 0.0, 5.0, 6.0, 1.0, 0.0, 1.0]]
    assert study.embeddings.tolist() == [[[1.0, 2.0], [0.0, 0.0], [5.0, 6.0]]]


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


def test_a_transformer_block_is_the_one_of_torch() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(WIDTH, 0.0)
    other = nn.TransformerEncoderLayer(
        WIDTH, 4, 2 * WIDTH, 0.0, functional.gelu, batch_first=True, norm_first=True
    )
    read = block.read
    with torch.no_grad():
        parts = (read.query, read.key, read.value)
        other.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        other.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    for mine, theirs in (
        (read.out, other.self_attn.out_proj),
        (block.think[0], other.linear1),
        (block.think[3], other.linear2),
    ):
        theirs.load_state_dict(mine.state_dict())
    tokens = torch.randn(2, 5, WIDTH)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    expected = other(tokens, src_key_padding_mask=~mask)
    torch.testing.assert_close(block(tokens, mask), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(block(tokens, mask, first=2), expected[:, :2], rtol=1e-5, atol=1e-5)


# The core of each, by hand


def test_gates_share_one_among_the_present_modalities_in_proportion_to_their_odds() -> None:
    fusion = GatedFusion(WIDTH, dropout=0.0)
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.bias.copy_(torch.tensor([1.0, 3.0, 4.0]).log())
    present = torch.tensor([[True, True, True], [True, True, False], [False, False, True]])
    gates = fusion.gates(torch.zeros(3, 3 * (WIDTH + 1)), present)
    expected = [[1 / 8, 3 / 8, 4 / 8], [1 / 4, 3 / 4, 0.0], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(gates, torch.tensor(expected))


def test_logits_of_a_late_average_are_the_average_of_each_modalitys_own() -> None:
    torch.manual_seed(0)
    fusion, head = LateAverageFusion(WIDTH, 0.0), nn.Linear(WIDTH, 4)
    present = every_subset()
    encoded = draw_encoded(present)
    logits = head(fusion(encoded))
    alone = []
    for modality in MODALITIES:
        others = {m: _without(e) for m, e in encoded.items() if m != modality}
        alone.append(head(fusion({modality: encoded[modality], **others})))
    for row, there in enumerate(present):
        own = [alone[i][row] for i in range(3) if there[i]]
        torch.testing.assert_close(logits[row], torch.stack(own).mean(dim=0), rtol=0, atol=1e-6)


def _without(part: Tokens) -> Tokens:
    nothing = torch.zeros_like(part.mask)
    return Tokens(torch.zeros_like(part.tokens), nothing, torch.zeros_like(part.pooled))


def test_votes_are_bounded_and_an_absent_modality_abstains() -> None:
    torch.manual_seed(0)
    fusion = StackedLateFusion(WIDTH, 0.0, votes=2)
    with torch.no_grad():
        for i in range(3):
            fusion.get_parameter(f"alone.{i}.3.weight").zero_()
            odds = torch.tensor([math.atanh(0.5), 50.0])
            fusion.get_parameter(f"alone.{i}.3.bias").copy_(odds)
    votes = fusion.votes(gather(draw_encoded(torch.tensor([[True, False, True]]))))
    torch.testing.assert_close(votes, torch.tensor([[[0.5, 1.0], [0.0, 0.0], [0.5, 1.0]]]))


def test_nothing_but_votes_crosses_between_stacked_modalities() -> None:
    torch.manual_seed(0)
    fusion = StackedLateFusion(WIDTH, 0.0, votes=2)
    present = torch.ones(1, 3, dtype=torch.bool)
    encoded, other = draw_encoded(present), draw_encoded(present)
    was = fusion(encoded)
    assert not torch.equal(fusion({**encoded, IMAGE: other[IMAGE]}), was)
    with torch.no_grad():
        fusion.get_parameter("alone.0.3.weight").zero_()  # the image always votes the same
    assert torch.equal(fusion({**encoded, IMAGE: other[IMAGE]}), fusion(encoded))


@pytest.mark.parametrize("present", [[True, True, True], [True, False, True], [False, True, False]])
def test_a_low_rank_product_contracts_the_whole_outer_product(present: list[bool]) -> None:
    torch.manual_seed(0)
    width, rank = 3, 2
    fusion = LowRankFusion(width, 0.0, rank=rank)
    study = gather(encode(torch.randn(1, 3, width), torch.tensor([present])))
    # One weight for every output and every triple of entries of (1, z), as in tensor fusion.
    factors = []
    extended = []
    for i in range(3):
        if present[i]:
            weight = fusion.get_parameter(f"factors.{i}.weight").reshape(rank, width, width)
            bias = fusion.get_parameter(f"factors.{i}.bias").reshape(rank, width, 1)
            factors.append(torch.cat([bias, weight], dim=2))  # (rank, D, 1 + width)
            extended.append(torch.cat([torch.ones(1), study.embeddings[0, i]]))
        else:
            factors.append(torch.ones(rank, width, 1))
            extended.append(torch.ones(1))
    weights = torch.einsum("rda,rdb,rdc->dabc", *factors)
    outer = torch.einsum("a,b,c->abc", *extended)
    expected = torch.einsum("dabc,abc->d", weights, outer)
    torch.testing.assert_close(fusion.multiply(study)[0], expected, rtol=1e-5, atol=1e-5)


def test_modulators_of_zero_leave_every_modality_as_it_is() -> None:
    torch.manual_seed(0)
    fusion = FilmFusion(WIDTH, 0.0)
    study = gather(draw_encoded(torch.ones(2, 3, dtype=torch.bool)))
    values = apply_each(fusion.values, study.embeddings)
    assert not torch.allclose(fusion.modulate(study), values, atol=0.1)
    with torch.no_grad():
        for parameter in fusion.modulators.parameters():
            parameter.zero_()
    assert torch.equal(fusion.modulate(study), values)
    with torch.no_grad():  # the voice is scaled by 1 + 2 and shifted by 5
        change = torch.tensor([2.0, 5.0]).repeat_interleave(WIDTH)
        fusion.get_parameter("modulators.2.bias").copy_(change)
    torch.testing.assert_close(fusion.modulate(study)[:, 2], 3 * values[:, 2] + 5)


def test_a_modality_does_not_modulate_itself() -> None:
    torch.manual_seed(0)
    fusion = FilmFusion(WIDTH, 0.0)
    with torch.no_grad():
        fusion.get_parameter("values.0.0.weight").zero_()  # the image has nothing to say itself
    encoded = draw_encoded(torch.ones(2, 3, dtype=torch.bool))
    other = draw_encoded(torch.ones(2, 3, dtype=torch.bool))
    was = fusion.modulate(gather(encoded))[:, 0]
    assert torch.equal(fusion.modulate(gather({**encoded, IMAGE: other[IMAGE]}))[:, 0], was)
    assert not torch.equal(fusion.modulate(gather({**encoded, NOTE: other[NOTE]}))[:, 0], was)


def test_excitation_multiplies_a_channel_by_up_to_two() -> None:
    fusion = SqueezeExciteFusion(WIDTH, 0.0)
    odds = torch.tensor([3.0, 1.0, 1 / 3]).log()  # of modality 1, 2 and 3, all channels alike
    with torch.no_grad():
        fusion.excite.weight.zero_()
        fusion.excite.bias.copy_(odds.repeat_interleave(WIDTH))
    gates = fusion.gates(torch.randn(1, 3 * (WIDTH + 1)))
    expected = torch.tensor([1.5, 1.0, 0.5])[None, :, None].expand(1, 3, WIDTH)
    torch.testing.assert_close(gates, expected)
    with torch.no_grad():
        fusion.excite.bias.fill_(
            -200.0
        )  # all gates shut: neither tokens nor embeddings come through
    present = torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(fusion(draw_encoded(present)), fusion(draw_encoded(present)))


def test_each_subset_of_modalities_begins_with_an_expert_of_its_own() -> None:
    torch.manual_seed(0)
    fusion = ExpertMixtureFusion(WIDTH, 0.0)
    study = gather(draw_encoded(every_subset()))
    assert torch.allclose(fusion.weights(study.joint, study.present).sum(dim=1), torch.ones(7))
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.favour.copy_(fusion.favour / 2.0 * math.log(6))
    # Odds of 6 against six others of 1.
    expected = torch.full((7, 7), 1 / 12) + torch.eye(7) * (6 / 12 - 1 / 12)
    torch.testing.assert_close(fusion.weights(study.joint, study.present), expected)


def test_shared_features_are_one_average_and_specific_ones_are_kept_apart() -> None:
    torch.manual_seed(0)
    fusion = SharedSpecificFusion(WIDTH, 0.0)
    same = torch.randn(1, 1, WIDTH).expand(1, 3, WIDTH)
    seen: list[Tensor] = []
    fusion.mix.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for present in ([True, True, True], [False, True, False]):
        fusion(encode(same, torch.tensor([present])))
    (all_three,), (note,) = seen
    # What three equal modalities share is what one of them says.
    torch.testing.assert_close(all_three[:WIDTH], note[:WIDTH], rtol=0, atol=1e-6)
    image, note_own, voice = note[WIDTH:-3].reshape(3, WIDTH)
    assert torch.equal(note_own, all_three[WIDTH:-3].reshape(3, WIDTH)[1])
    assert not image.any()
    assert not voice.any()
    assert note[-3:].tolist() == [0.0, 1.0, 0.0]


def test_modalities_meet_in_the_bottleneck_alone() -> None:
    torch.manual_seed(0)
    fusion = BottleneckFusion(WIDTH, 0.0)
    present = torch.ones(1, 3, dtype=torch.bool)
    encoded, other = draw_encoded(present), draw_encoded(present)
    streams: list[Tensor] = []
    last = fusion.layers[-1]
    assert isinstance(last, nn.ModuleList)
    last[0].register_forward_hook(lambda module, inputs, output: streams.append(inputs[0]))
    fusion(encoded)
    fusion({**encoded, VOICE: other[VOICE]})
    was, now = streams
    bottleneck = slice(1, 1 + len(fusion.bottleneck))
    # Hearing another voice, the image's own tokens are the same when they reach the last block.
    assert torch.equal(was[:, :1], now[:, :1])
    assert torch.equal(was[:, bottleneck.stop :], now[:, bottleneck.stop :])
    assert (was[:, bottleneck] != now[:, bottleneck]).any(dim=2).all()


def test_the_bottleneck_is_averaged_over_the_present_modalities() -> None:
    torch.manual_seed(0)
    fusion = BottleneckFusion(WIDTH, 0.0)
    written: list[Tensor] = []
    read: list[Tensor] = []
    first, last = fusion.layers
    assert isinstance(first, nn.ModuleList)
    assert isinstance(last, nn.ModuleList)
    for block in first:
        block.register_forward_hook(lambda module, inputs, output: written.append(output))
    last[0].register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    fusion(draw_encoded(present))
    bottleneck = slice(1, 1 + len(fusion.bottleneck))
    image, note, voice = (output[:, bottleneck] for output in written)
    expected = torch.stack([(image + note + voice)[0] / 3, (image + voice)[1] / 2, note[2]])
    torch.testing.assert_close(read[0][:, bottleneck], expected, rtol=1e-6, atol=1e-6)


def test_the_order_of_a_modalitys_tokens_does_not_matter_but_their_modality_does() -> None:
    torch.manual_seed(0)
    fusion = SingleStreamFusion(WIDTH, 0.0)
    encoded = draw_encoded(torch.ones(1, 3, dtype=torch.bool), padding=0)
    turned: dict[Modality, Tokens] = {
        m: part._replace(tokens=part.tokens.flip(1)) for m, part in encoded.items()
    }
    torch.testing.assert_close(fusion(turned), fusion(encoded), rtol=1e-5, atol=1e-5)
    swapped = {IMAGE: encoded[VOICE], NOTE: encoded[NOTE], VOICE: encoded[IMAGE]}
    assert not torch.allclose(fusion(swapped), fusion(encoded), atol=1e-3)
