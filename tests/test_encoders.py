"""What every encoder promises: masks, frozen backbones and finite gradients; and each by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.vit import ViT
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
)

from medfuse.config import SAMPLE_RATE, VoiceSettings
from medfuse.data.voice import log_mel
from medfuse.errors import SettingsError
from medfuse.models.attention import place_waves
from medfuse.models.image import IMAGE_NETWORKS, build_image_encoder
from medfuse.models.image.backbone import Backbone
from medfuse.models.image.encoder import ImageEncoder
from medfuse.models.image.folder import build_image_folder
from medfuse.models.image.repvgg import Branches, Folded, RepVgg, fold_branches
from medfuse.models.image.vit import Maps, build_vit_tiny
from medfuse.models.note import NOTE_NETWORKS, build_note_encoder
from medfuse.models.note.recurrent import RecurrentText, turn_around
from medfuse.models.note.transformer import KINDS
from medfuse.models.settings import ModelSettings
from medfuse.models.voice import VOICE_NETWORKS, build_voice_encoder
from medfuse.models.voice.speaker import NEEDED, SpeakerVoiceEncoder, build_speaker
from medfuse.models.voice.transformer import TransformerVoiceEncoder
from medfuse.models.weights import speaker_weights
from medfuse.types import Modality

# Frames


def test_a_frames_share_of_the_pooled_embedding_is_that_of_its_cells() -> None:
    """By hand: equal scores but for one cell, whose weight is that of three others."""
    backbone = Backbone(nn.AvgPool2d(4), 3)
    encoder = ImageEncoder(backbone, cells=4, width=4, dropout=0.0, frozen=True).eval()
    with torch.no_grad():
        encoder.pool.hidden.weight.copy_(torch.eye(4))
        encoder.pool.hidden.bias.zero_()
        encoder.pool.score.weight.zero_()
        encoder.pool.score.weight[:, 0] = torch.log(torch.tensor(3.0)) / torch.tanh(torch.ones(()))
    mask = torch.tensor([[True, True, False], [False, False, False]])
    encoded = encoder(torch.zeros(2, 3, 4, 3), mask)
    tokens = torch.zeros_like(encoded.tokens)
    tokens[0, 5, 0] = 1.0  # the second frame's second cell
    shares = encoder.attend_frames(encoded._replace(tokens=tokens))
    torch.testing.assert_close(shares, torch.tensor([[0.4, 0.6, 0.0], [0.0, 0.0, 0.0]]))


def test_the_shares_of_real_frames_add_up_to_one_and_move_with_the_frames() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(Backbone(nn.AvgPool2d(4), 3), 4, 8, 0.0, frozen=True).eval()
    mask = torch.tensor([[True, True, True, False]])
    image = torch.rand(1, 4, 8, 8)
    shares = encoder.attend_frames(encoder(encoder.extract(image, mask), mask))
    torch.testing.assert_close(shares.sum(), torch.ones(()))
    turned = image[:, [2, 0, 1, 3]]
    moved = encoder.attend_frames(encoder(encoder.extract(turned, mask), mask))
    torch.testing.assert_close(moved, shares[:, [2, 0, 1, 3]])
    assert len(set(shares[0].tolist())) == 4


# A network that folds


def shake(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and scales as a training leaves them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def test_one_channel_of_branches_folds_to_the_kernel_worked_out_by_hand() -> None:
    layer = Branches(1, 1, 1).eval()
    weights = dict(layer.named_parameters())
    with torch.no_grad():
        for norm, (mean, variance, scale, shift) in zip(
            (layer.rbr_dense[1], layer.rbr_1x1[1], layer.rbr_identity),
            ((1.0, 4.0, 2.0, 0.5), (0.0, 1.0, 3.0, 0.0), (2.0, 0.25, 1.0, 1.0)),
            strict=True,
        ):
            assert isinstance(norm, nn.BatchNorm2d)
            norm.eps = 0.0
            norm.running_mean = torch.tensor([mean])
            norm.running_var = torch.tensor([variance])
            norm.weight.fill_(scale)
            norm.bias.fill_(shift)
        weights["rbr_dense.conv.weight"].copy_(torch.arange(9.0).view(1, 1, 3, 3))
        weights["rbr_1x1.conv.weight"].fill_(0.5)
    folded = layer.fold()
    # Factors 2 / 2 = 1, 3 / 1 = 3 and 1 / 0.5 = 2: the middle is 4 * 1 + 0.5 * 3 + 1 * 2.
    expected = torch.tensor([[0.0, 1.0, 2.0], [3.0, 7.5, 5.0], [6.0, 7.0, 8.0]])
    assert torch.equal(folded.conv.weight[0, 0], expected)
    # (0.5 - 1 * 1) + 0 + (1 - 2 * 2)
    assert folded.conv.bias is not None
    assert folded.conv.bias.tolist() == [-3.5]


def test_the_folded_network_gives_the_maps_and_gradients_of_the_branched_one() -> None:
    torch.manual_seed(0)
    branched = shake(RepVgg()).double()
    folded = fold_branches(branched)
    assert sum(isinstance(m, Branches) for m in branched.modules()) == 22
    assert sum(isinstance(m, Folded) for m in folded.modules()) == 22
    assert not any(isinstance(m, Branches | nn.BatchNorm2d) for m in folded.modules())
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    maps = []
    for network in (branched, folded):
        own = x.clone().requires_grad_()
        out = network(own)
        out.square().sum().backward()
        maps.append((out.detach(), own.grad))
    assert maps[0][0].shape == (2, 1280, 2, 2)
    for one, other in zip(*maps, strict=True):
        # 22 layers, each rounded otherwise, in float64.
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12 * float(one.abs().max()))


def test_a_module_with_nothing_to_fold_is_not_copied() -> None:
    plain = nn.Conv2d(3, 4, 3)
    assert fold_branches(plain) is plain


# A transformer over patches


def test_a_cell_of_the_transformer_is_the_patch_that_lies_there() -> None:
    network = Maps(ViT(3, 48, 16, 8, 32, num_layers=0, num_heads=2, spatial_dims=2), 3)
    x = torch.zeros(1, 3, 48, 48)
    x[..., 16:32, 32:48] = 1.0
    changed = (network(x) - network(torch.zeros_like(x))).detach().abs().sum(dim=1)[0] > 0
    assert changed.nonzero().tolist() == [[1, 2]]


def test_frames_that_patches_do_not_fill_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"do not fill image\.size = 100"):
        build_vit_tiny(None, 100, pretrained=False)


# Local Hugging Face folders of image networks

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
    "patch_size": 16,
}


def make_image_network(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "vit":
        return ViTForImageClassification(ViTConfig(**SMALL))
    if kind == "deit":
        return DeiTModel(DeiTConfig(**SMALL))
    if kind == "dinov2":
        return Dinov2Model(Dinov2Config(**SMALL))
    if kind == "swin":
        config = SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
        )
        return SwinModel(config)
    if kind == "resnet":
        return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    return ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("vit", (16, 4, 4)),  # after one class token
        ("deit", (16, 4, 4)),  # after a distillation token too
        ("dinov2", (16, 4, 4)),
        ("swin", (16, 8, 8)),  # patches of 4 pixels, two by two merged
        ("resnet", (16, 8, 8)),
        ("convnext", (16, 8, 8)),
    ],
)
def test_a_local_folder_gives_the_cells_that_its_network_gives(
    tmp_path: Path, kind: str, shape: tuple[int, int, int]
) -> None:
    original = make_image_network(kind).eval()
    original.save_pretrained(tmp_path)
    scaling = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(scaling))
    backbone = build_image_folder(tmp_path, None, 64, pretrained=True).eval()
    frames = torch.rand(2, 64, 64)
    rgb = frames[:, None].expand(2, 3, 64, 64)
    mean, std = (torch.tensor(scaling[k]).view(3, 1, 1) for k in ("image_mean", "image_std"))
    inner = getattr(original, original.base_model_prefix, original)
    with torch.no_grad():
        state = inner(pixel_values=(rgb - mean) / std).last_hidden_state
        found = backbone(frames)
    channels, rows, columns = shape
    cells = state.flatten(2).transpose(1, 2) if state.ndim == 4 else state[:, -rows * columns :]
    assert found.shape == (2, rows * columns, channels)
    torch.testing.assert_close(found, cells)


def test_an_image_folder_that_does_not_fit_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    def refuse(folder: Path, match: str, size: int = 64) -> None:
        with pytest.raises(SettingsError, match=match):
            build_image_folder(folder, None, size, pretrained=True)

    refuse(tmp_path / "densenet", "neither a network's name nor a folder")
    folder = tmp_path / "vit"
    original = make_image_network("vit")
    original.save_pretrained(folder)
    refuse(folder, r"image\.size = 96 .*doesn't match", size=96)
    config = json.loads((folder / "config.json").read_text())
    code = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config | code))
    refuse(folder, "not a network that can be loaded")
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    refuse(folder, "not a network that can be loaded|not those that config.json describes")
    (folder / "model.safetensors").unlink()
    torch.save(original.state_dict(), folder / "pytorch_model.bin")
    refuse(folder, "pickled weights are not read")


# A recurrent network over word pieces


def test_only_the_real_part_of_a_sequence_is_turned_around() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])
    sequence = torch.arange(4.0)[None, :, None].repeat(3, 1, 1)
    found = turn_around(sequence, mask)[..., 0]
    assert found.tolist() == [[2, 1, 0, 3], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_the_recurrent_text_network_is_torchs_over_packed_sequences() -> None:
    torch.manual_seed(0)
    ours = RecurrentText(50, 0, embedding=6, hidden=5)
    packed = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, parameter in packed.named_parameters():
            lstm = ours.back if name.endswith("_reverse") else ours.ahead
            parameter.copy_(getattr(lstm, name.removesuffix("_reverse")))
    lengths = torch.tensor([7, 1, 4])
    mask = torch.arange(7) < lengths[:, None]
    x = torch.where(mask[..., None], torch.randn(3, 7, 6), 0.0)
    with torch.no_grad():
        found = torch.where(mask[..., None], ours(x, mask), 0.0)
        sequences = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        expected, _ = nn.utils.rnn.pad_packed_sequence(packed(sequences)[0], batch_first=True)
    torch.testing.assert_close(found, expected)


# Local Hugging Face folders of transformers over word pieces


@pytest.mark.parametrize("name", KINDS)
def test_a_transformer_reads_embeddings_and_masks_as_its_original_reads_pieces(
    tmp_path: Path, name: str
) -> None:
    torch.manual_seed(0)
    kind = KINDS[name]
    sizes: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 24,
    }
    if name == "distilbert":
        sizes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    config = kind.config(**sizes | ({"embedding_size": 8} if name == "electra" else {}))
    original: Any = kind.network(config)
    original.eval().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    longest = 22 if config.pad_token_id == 1 else 24
    encoder = build_note_encoder(ModelSettings(note=tmp_path, width=8), longest, pretrained=True)
    pieces = torch.randint(5, 50, (2, longest))
    mask = torch.arange(longest) < torch.tensor([[longest], [9]])
    with torch.no_grad():
        expected = original(torch.where(mask, pieces, config.pad_token_id), mask.long())
        found = encoder.extract(pieces, mask)
    torch.testing.assert_close(found[mask], expected.last_hidden_state[mask])
    with pytest.raises(SettingsError, match=f"reads at most {longest}"):
        build_note_encoder(ModelSettings(note=tmp_path, width=8), longest + 1, pretrained=True)


# The pretrained speaker network

SPEECH = VoiceSettings.model_validate(NEEDED)


def say(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    """Noise through a slow filter, louder and softer over time."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.standard_normal(round(seconds * SAMPLE_RATE)), np.ones(6) / 6, "same")
    swell = 1 + 0.8 * np.sin(np.linspace(0, 20, len(noise)))
    sound = noise * swell
    return np.asarray(level * sound / np.sqrt(np.mean(sound**2)), dtype=np.float32)


def tensor_of(mel: np.ndarray) -> tuple[Tensor, Tensor]:
    values = torch.from_numpy(mel)[None]
    return values, torch.ones(values.shape[:2], dtype=torch.bool)


@pytest.fixture(scope="module")
def speaker() -> SpeakerVoiceEncoder:
    torch.manual_seed(0)
    chosen = ModelSettings(voice="speaker", width=16)
    return build_speaker(chosen, SPEECH, pretrained=True).eval()


def test_the_speaker_network_hears_the_mel_power_it_was_trained_on(
    speaker: SpeakerVoiceEncoder,
) -> None:
    """By transformers' implementation, which is checked against librosa's."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    waveform = say(2.0, level=0.1)  # louder than -30 dBFS, so it is left as it is
    filters = mel_filter_bank(201, 40, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    window = window_function(400, "hann")
    expected = spectrogram(
        waveform, window, 400, 160, 400, power=2.0, center=False, mel_filters=filters
    ).T
    found = speaker.hear(*tensor_of(log_mel(waveform, SPEECH)))[0].numpy()
    assert found.shape == expected.shape == (198, 40)
    # Relative to what is there; the logarithm in float32 has some 1e-6 of it.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7 * expected.max())


def test_a_quiet_recording_is_brought_to_the_loudness_of_training(
    speaker: SpeakerVoiceEncoder,
) -> None:
    loud, quiet = (
        speaker.hear(*tensor_of(log_mel(say(2.0, level), SPEECH))) for level in (10**-1.5, 0.004)
    )
    # By mel power, which lacks what is below the first triangle's middle, so 3 % of this noise.
    assert float(quiet.sum() / loud.sum()) == pytest.approx(1.0, abs=1e-3)
    louder = speaker.hear(*tensor_of(log_mel(say(2.0, 0.2), SPEECH)))
    assert float(louder.sum() / loud.sum()) == pytest.approx(0.2**2 / 10**-3, rel=0.05)


def test_the_speaker_network_is_that_of_the_package_on_windows_of_160_frames(
    speaker: SpeakerVoiceEncoder,
) -> None:
    state = torch.load(speaker_weights(), map_location="cpu", weights_only=True)["model_state"]
    lstm = nn.LSTM(40, 256, 3, batch_first=True)
    lstm.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("lstm.")})
    values, mask = tensor_of(log_mel(say(3.0, 0.1), SPEECH))
    with torch.no_grad():
        mel = nn.functional.pad(speaker.hear(values, mask), (0, 0, 0, 200))
        found = speaker.extract(values, mask)
        for window in range(4):
            _, (hidden, _) = lstm(mel[:, 80 * window : 80 * window + 160])
            raw = torch.relu(hidden[-1] @ state["linear.weight"].T + state["linear.bias"])
            torch.testing.assert_close(found[:, window], raw / raw.norm(), rtol=0, atol=1e-5)
    assert found.shape == (1, 4, 256)
    # 298 frames: the windows from 0, 80 and 160 hold three quarters; the one from 240 does not.
    assert speaker.cover(mask).tolist() == [[True, True, True, False]]


def test_two_takes_of_one_voice_are_nearer_than_two_voices(speaker: SpeakerVoiceEncoder) -> None:
    """A weak test of the whole way: the same pitch and timbre with other noise."""

    def hum(pitch: float, seed: int) -> Tensor:
        time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
        wobble = 1 + 0.01 * np.sin(2 * np.pi * (4 + seed) * time)
        phase = 2 * np.pi * pitch * np.cumsum(wobble) / SAMPLE_RATE
        sound = sum(np.sin(k * phase) / k for k in range(1, 20))
        sound = 0.05 * sound + 0.001 * np.random.default_rng(seed).standard_normal(len(time))
        with torch.no_grad():
            return speaker.extract(*tensor_of(log_mel(sound.astype(np.float32), SPEECH)))[0, 0]

    low, low_again, high = hum(110, 0), hum(110, 1), hum(230, 2)
    assert float(low @ low_again) > float(low @ high) + 0.1


def test_recordings_prepared_otherwise_are_refused_with_what_to_set() -> None:
    chosen = ModelSettings(voice="speaker")
    with pytest.raises(
        SettingsError, match=r"set mel_bands = 40, mel_scale = 'slaney', low_hz = 0\.0 under"
    ):
        build_voice_encoder(chosen, VoiceSettings(), pretrained=True)


# A transformer over log-mel


def test_places_in_time_are_waves_worked_out_by_hand() -> None:
    waves = place_waves(torch.zeros(1, 3, 4))
    # Of 1 and of 1 / 100 radian a step: 10,000 ** (-2 / 4).
    expected = [
        [0.0, 0.0, 1.0, 1.0],
        [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)],
        [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)],
    ]
    torch.testing.assert_close(waves, torch.tensor(expected, dtype=torch.float32))


def test_the_transformer_over_log_mel_hears_what_is_far_and_where_it_is() -> None:
    torch.manual_seed(0)
    encoder = TransformerVoiceEncoder(8, 16, 0.0).eval()
    mask = torch.ones(1, 160, dtype=torch.bool)
    silent = torch.full((1, 160, 8), -1.0)
    early, late = silent.clone(), silent.clone()
    early[:, 8:16] = late[:, 136:144] = 1.0
    with torch.no_grad():
        still, soon, later = (encoder(x, mask).tokens[0] for x in (silent, early, late))
    assert (still[-1] - soon[-1]).abs().max() > 1e-4
    assert (soon[-1] - later[-1]).abs().max() > 1e-4


# What all of them promise


def build(modality: Modality, name: str) -> tuple[Any, Tensor]:
    """Build an encoder without weights, and two rows of what it reads."""
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "width": 16,
        modality.value: name,
        f"freeze_{modality.value}": name in {"efficientnet_lite0", "minilm", "speaker"},
    }
    settings = ModelSettings.model_validate(chosen)
    if modality is Modality.IMAGE:
        values = torch.rand(3, 3, 64, 64)
        return build_image_encoder(settings, 64, pretrained=False), values
    if modality is Modality.NOTE:
        values = torch.randint(5, 20_000, (3, 9))
        return build_note_encoder(settings, 16, pretrained=False), values
    voice = SPEECH if name == "speaker" else VoiceSettings(mel_bands=40)
    values = torch.rand(3, 250, 40) * 1.5 - 1
    return build_voice_encoder(settings, voice, pretrained=False), values


EVERY = [
    (modality, name)
    for modality, names in (
        (Modality.IMAGE, IMAGE_NETWORKS),
        (Modality.NOTE, NOTE_NETWORKS),
        (Modality.VOICE, VOICE_NETWORKS),
    )
    for name in names
]


@pytest.mark.parametrize(("modality", "name"), EVERY, ids=[name for _, name in EVERY])
def test_an_encoder_hears_nothing_of_padding_and_sends_finite_gradients(
    modality: Modality, name: str
) -> None:
    encoder, values = build(modality, name)
    longest = values.shape[1]
    mask = torch.arange(longest) < torch.tensor([[longest], [longest // 3 + 1], [0]])

    encoder.eval()
    rubbish = values.clone()
    rubbish[~mask] = 2**62 if values.dtype == torch.int64 else torch.nan
    with torch.no_grad():
        clean, dirty = (
            encoder(encoder.extract(x, mask), encoder.cover(mask)) for x in (values, rubbish)
        )
    for was, now in zip(clean, dirty, strict=True):
        assert torch.equal(was, now)
    assert clean.mask.any(dim=1).tolist() == [True, True, False]
    assert clean.pooled[:2].abs().sum(dim=1).min() > 0
    assert not clean.pooled[2].any()
    assert not clean.tokens[~clean.mask].any()

    encoder.train()
    encoded = encoder(encoder.extract(rubbish, mask), encoder.cover(mask))
    encoded.pooled.square().sum().backward()
    moved = {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    if encoder.frozen:
        assert not any(module.training for module in encoder.backbone.modules())
        assert not any(n.startswith("backbone.") for n in moved)
    elif encoder.backbone is not None:
        assert any(n.startswith("backbone.") for n in moved)
    assert moved - {n for n in moved if n.startswith("backbone.")}
