"""Integrated gradients: answers by hand, completeness, and what is absent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from medfuse.config import Task, TaskKind, VoiceSettings
from medfuse.data.note import load_tokenizer
from medfuse.data.voice import SILENCE, log_mel
from medfuse.errors import SettingsError
from medfuse.explain.baseline import BASELINES, blank_study
from medfuse.explain.integrated_gradients import integrated_gradients, target_index
from medfuse.explain.settings import ExplainSettings
from medfuse.models.fused import FusedModel, Outputs
from medfuse.models.settings import ModelSettings
from medfuse.models.weights import tokenizer_path
from medfuse.training.checkpoint import load_checkpoint
from medfuse.types import MODALITIES, SUBSETS, Batch, Modality, subset_name

TASK = Task(name="findings", kind=TaskKind.MULTILABEL, classes=("none", "sum"))
TOKENIZER = load_tokenizer(tokenizer_path(ModelSettings()))
MASK_PIECE = 103  # of BERT's vocabulary, as [CLS] is 101 and [SEP] is 102


class SumModel(FusedModel):
    """A model one can work out: the second logit is a weighted sum, bent where it is negative."""

    def __init__(self, bend: float = 1.0, offset: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.tasks = (TASK,)
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0, 0.5]))
        self.bend, self.offset = bend, offset
        self.eval()

    def embed_note(self, pieces: Int64[Tensor, "b l"]) -> Float[Tensor, "b l e"]:
        return torch.stack([pieces.float(), -2.0 * pieces.float()], dim=2)

    def forward_embedded(
        self,
        image: Float[Tensor, "b s h w"],
        image_mask: Bool[Tensor, "b s"],
        note_embeddings: Float[Tensor, "b l e"],
        note_mask: Bool[Tensor, "b l"],
        voice: Float[Tensor, "b t f"],
        voice_mask: Bool[Tensor, "b t"],
    ) -> Outputs:
        sums = [
            torch.where(mask, values.flatten(2).sum(dim=2), 0.0).sum(dim=1)
            for values, mask in (
                (image, image_mask),
                (note_embeddings, note_mask),
                (voice, voice_mask),
            )
        ]
        total = torch.stack(sums, dim=1) @ self.weight - self.offset
        bent = torch.where(total > 0, total, self.bend * total)
        empty = torch.zeros(len(total), 1)
        return Outputs(torch.stack([empty[:, 0], bent], dim=1), empty, empty, empty, empty)


def draw_batch(
    studies: int, lengths: tuple[int, int, int] = (2, 6, 20), bands: int = 4, side: int = 3
) -> Batch:
    """Draw studies that have everything; the note's ends are special pieces."""
    rng = np.random.default_rng(0)
    frames, pieces, mel_frames = lengths
    note = rng.integers(2000, 20_000, (studies, pieces))
    note[:, 0], note[:, -1] = 101, 102
    return Batch(
        values={
            Modality.IMAGE: rng.random((studies, frames, side, side), dtype=np.float32),
            Modality.NOTE: note,
            Modality.VOICE: rng.random((studies, mel_frames, bands), dtype=np.float32) * 2 - 1,
        },
        masks={
            m: np.ones((studies, n), dtype=bool) for m, n in zip(MODALITIES, lengths, strict=True)
        },
    )


def test_a_linear_model_gets_its_weights_times_the_way_from_the_baseline() -> None:
    batch = draw_batch(1)
    (attribution,) = integrated_gradients(
        SumModel(), batch, blank_study(batch, TOKENIZER), "findings.sum", ExplainSettings()
    )
    image, note, voice = (batch.values[m][0] for m in MODALITIES)
    np.testing.assert_allclose(attribution.values[Modality.IMAGE], 2 * image, rtol=1e-5)
    # The two numbers of an embedding are p and -2p, so they sum to -p.
    expected = 3 * -(note - MASK_PIECE).astype(np.float64)
    expected[[0, -1]] = 0
    np.testing.assert_allclose(attribution.values[Modality.NOTE], expected, rtol=1e-5)
    np.testing.assert_allclose(attribution.values[Modality.VOICE], 0.5 * (voice + 1), rtol=1e-5)
    assert attribution.completeness_gap < 1e-5
    assert attribution.details["steps"] == 64


def test_a_target_the_input_does_not_move_gets_nothing_and_leaves_no_gap() -> None:
    batch = draw_batch(1)
    model = SumModel()
    with torch.no_grad():
        model.weight.zero_()
    baseline = blank_study(batch, TOKENIZER)
    (attribution,) = integrated_gradients(model, batch, baseline, "findings.sum", ExplainSettings())
    assert attribution.completeness_gap == 0
    assert not any(values.any() for values in attribution.values.values())


def test_points_double_until_the_gap_is_small_and_stop_at_the_most() -> None:
    # One pixel from 0 to 1, weight 2: flat up to 0.7, then straight, so the integral has a corner.
    batch = draw_batch(1, side=1, lengths=(1, 2, 1))
    batch.values[Modality.IMAGE][:] = 1
    for modality in (Modality.NOTE, Modality.VOICE):
        batch.masks[modality][:] = False
    baseline = blank_study(batch, TOKENIZER)
    model = SumModel(bend=0.0, offset=1.4)

    def explain(**options: float) -> tuple[float, float, float]:
        chosen = ExplainSettings.model_validate({"steps": 2, **options})
        (attribution,) = integrated_gradients(model, batch, baseline, "findings.sum", chosen)
        return (
            float(attribution.values[Modality.IMAGE].item()),
            attribution.completeness_gap,
            attribution.details["steps"],
        )

    value, gap, steps = explain(gap=0.005)
    assert steps > 2
    assert gap <= 0.005
    assert value == pytest.approx(0.6, rel=0.005)
    value, gap, steps = explain(gap=0.005, most_steps=7)
    assert steps == 4  # 8 would be more than 7
    assert gap == pytest.approx(abs(value - 0.6) / 0.6, rel=1e-3)
    assert gap > 0.005


def test_progress_counts_points_up_to_those_wanted() -> None:
    batch = draw_batch(1)
    seen: list[tuple[int, int]] = []
    integrated_gradients(
        SumModel(),
        batch,
        blank_study(batch, TOKENIZER),
        "findings.sum",
        ExplainSettings(steps=20, most_steps=20),
        lambda done, wanted: seen.append((done, wanted)),
    )
    assert seen == [(8, 20), (16, 20), (20, 20)]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> FusedModel:
    return load_checkpoint(tiny_checkpoint).model


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
def test_attributions_add_up_to_the_change_of_the_answer_for_every_subset(
    model: FusedModel, subset: frozenset[Modality]
) -> None:
    batch = draw_batch(1, lengths=(1, 8, 24), bands=32, side=64)
    for modality in MODALITIES:
        batch.masks[modality][:] = modality in subset
    baseline = blank_study(batch, TOKENIZER)
    target = "stage.at_least_severe"
    (attribution,) = integrated_gradients(
        model, batch, baseline, target, ExplainSettings(steps=64, most_steps=64)
    )
    assert set(attribution.values) == subset

    def answer(study: Batch) -> float:  # through the word pieces, not the embeddings
        arrays = [part for m in MODALITIES for part in (study.values[m], study.masks[m])]
        with torch.no_grad():
            outputs: Outputs = model(*map(torch.from_numpy, arrays))
        return float(outputs.logits[0, target_index(model.tasks, target)])

    change = answer(batch) - answer(baseline)
    total = sum(float(values.sum(dtype=np.float64)) for values in attribution.values.values())
    error = abs(total - change) / max(abs(change), 0.01)
    assert error == pytest.approx(attribution.completeness_gap, abs=1e-3)
    if Modality.IMAGE not in subset:  # an untrained ReLU network's kinks on noise need more points
        assert error < 1e-3


def test_a_study_is_explained_alike_alone_and_padded_beside_others(model: FusedModel) -> None:
    batch = draw_batch(2, lengths=(2, 10, 30), bands=32, side=64)
    for modality, length in zip(MODALITIES, (1, 6, 17), strict=True):
        batch.masks[modality][0, length:] = False
        # Rubbish behind the mask, which must not be read.
        batch.values[modality][0, length:] = 7
    alone = Batch(
        values={m: batch.values[m][:1][:, batch.masks[m][0]] for m in MODALITIES},
        masks={m: batch.masks[m][:1][:, batch.masks[m][0]] for m in MODALITIES},
    )
    chosen = ExplainSettings(steps=8, most_steps=8)
    first, second = (
        integrated_gradients(model, b, blank_study(b, TOKENIZER), "findings.nodule", chosen)[0]
        for b in (batch, alone)
    )
    for modality in MODALITIES:
        assert np.array_equal(first.values[modality], second.values[modality])


def test_the_baseline_is_black_wordless_and_silent_and_as_long_as_the_study() -> None:
    batch = draw_batch(1, lengths=(1, 4, 3))
    blank = BASELINES["blank"](batch, TOKENIZER)
    assert not blank.values[Modality.IMAGE].any()
    assert blank.values[Modality.NOTE].tolist() == [[101, MASK_PIECE, MASK_PIECE, 102]]
    assert (blank.values[Modality.VOICE] == SILENCE).all()
    assert all(np.array_equal(blank.masks[m], batch.masks[m]) for m in MODALITIES)


def test_silence_is_what_log_mel_makes_of_no_sound() -> None:
    np.testing.assert_allclose(
        log_mel(np.zeros(1600, dtype=np.float32), VoiceSettings()), SILENCE, atol=1e-6
    )


def test_an_unknown_target_is_refused_by_the_names_there_are() -> None:
    with pytest.raises(SettingsError, match=r"'sum' is unknown; .* findings\.none, findings\.sum"):
        target_index((TASK,), "sum")


def test_most_steps_below_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="most_steps is less than steps"):
        ExplainSettings(steps=8, most_steps=4)


def test_the_code_shown_in_the_docs_explains_every_study_of_a_batch() -> None:
    page = (Path(__file__).parents[1] / "docs" / "explain.md").read_text()
    code = page.split("```python\n")[1].split("```")[0].replace("findings.nodule", "findings.sum")
    names: dict[str, Any] = {"model": SumModel(), "batch": draw_batch(2), "tokenizer": TOKENIZER}
    exec(code, names)
    assert [a.target for a in names["attributions"]] == ["findings.sum"] * 2
