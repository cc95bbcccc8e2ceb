"""Findings text: the loop, the places and the thresholds by hand; what the decoder may not do."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medfuse.config import Task, TaskKind
from medfuse.models.decoder import FindingsDecoder, place_on_grid
from medfuse.models.fused import FusedModel, build_model
from medfuse.models.settings import ModelSettings
from medfuse.models.tokens import Tokens
from medfuse.text.places import Layout, find_evidence
from medfuse.text.record import TextRecord
from medfuse.text.say import say_findings
from medfuse.text.thresholds import choose_threshold, choose_thresholds
from medfuse.text.vocabulary import (
    END,
    MOST_WORDS,
    PADDING,
    SPECIALS,
    START,
    UNKNOWN,
    build_vocabulary,
)
from medfuse.text.writing import Draft, Steps, weigh_parts, write_drafts
from medfuse.training.dataset import SentenceBatch, Told, stack_sentences
from medfuse.training.objectives.findings_text import FindingsTextObjective, choose_sentences
from medfuse.training.objectives.step import Step
from medfuse.training.settings import FindingsTextSettings, TrainSettings
from medfuse.training.text import measure_mel_step
from medfuse.types import (
    MODALITIES,
    FrameGeometry,
    Modality,
    Prepared,
    PreparedImage,
    PreparedNote,
    PreparedVoice,
    TaskPrediction,
)
from tests.test_objectives import make_batch, make_step
from tests.tiny import PREPARE, TASKS, write_bert

IMAGE, NOTE, VOICE = MODALITIES
WORDS = build_vocabulary(["a b c d e f"])
A, B, C = (len(SPECIALS) + i for i in range(3))


class Scripted:
    """Says what a finding's script says, whatever the study, and reads one token a word."""

    def __init__(self, scripts: list[list[int]]) -> None:
        self.scripts, self.calls = scripts, 0

    def __call__(
        self,
        memory: np.ndarray,
        mask: np.ndarray,
        study: np.ndarray,
        finding: np.ndarray,
        words: np.ndarray,
    ) -> Steps:
        self.calls += 1
        rows, length = words.shape
        logits = np.zeros((rows, length, len(WORDS)))
        logits[..., [PADDING, START, UNKNOWN]] = 50.0  # which must never be said
        energy = np.zeros((rows, length, memory.shape[1]))
        for row, number in enumerate(finding):
            for i in range(length):
                script = self.scripts[number]
                logits[row, i, script[i] if i < len(script) else A] = 20.0
                energy[row, i, i % memory.shape[1]] = 0.64
        return Steps(logits, energy)


def test_the_loop_says_the_likeliest_word_until_the_end_of_each_sentence() -> None:
    writer = Scripted([[A, B, C, END], [B, END], [END], [A] * 100])
    memory, mask = np.zeros((4, 2)), np.ones(4, bool)
    first, second, empty = write_drafts(writer, memory, mask, [0, 1, 2])
    assert writer.calls == 4
    assert first is not None
    assert second is not None
    assert empty is None
    assert first.words.tolist() == [A, B, C]
    assert second.words.tolist() == [B]
    # Words 1 to 3 were read from the first three tokens, and the end from the fourth.
    np.testing.assert_allclose(first.reading, [0.8 / 3, 0.8 / 3, 0.8 / 3, 0.0])
    np.testing.assert_allclose(second.reading, [0.8, 0.0, 0.0, 0.0])
    chance = 1 / (1 + (len(WORDS) - 4) * np.exp(-20.0))
    assert first.lead == pytest.approx(20.0)
    assert first.likelihood == pytest.approx(chance, abs=1e-12)
    assert write_drafts(writer, memory, mask, [3]) == [None]
    assert writer.calls == 4 + MOST_WORDS + 1
    assert write_drafts(writer, memory, mask, []) == []


def test_a_part_is_owed_what_the_sentence_loses_without_it() -> None:
    def writer(
        memory: np.ndarray,
        mask: np.ndarray,
        study: np.ndarray,
        finding: np.ndarray,
        words: np.ndarray,
    ) -> Steps:
        assert (finding == 1).all()
        logits = np.zeros((len(study), words.shape[1], len(WORDS)))
        logits[..., [PADDING, START, UNKNOWN]] = 50.0
        # The first word is likelier by what can be read of the tokens, the end is not.
        logits[:, 0, B] = (memory[..., 0] * mask).sum(axis=1)[study]
        return Steps(logits, np.zeros((len(study), words.shape[1], memory.shape[1])))

    memory = np.array([[2.0], [1.0], [-3.0], [9.0]])
    mask = np.array([True, True, True, False])
    draft = Draft(np.array([B]), 0.5, np.zeros(4), 1.0)
    parts = [np.arange(4) == i for i in range(4)]
    dues = weigh_parts(writer, memory, mask, 1, draft, parts)
    others = len(WORDS) - 4  # that may be said beside B

    def chance(logit: float) -> float:
        return logit - float(np.log(np.exp(logit) + others))

    whole = chance(2.0 + 1.0 - 3.0)
    expected = [whole - chance(-2.0), whole - chance(-1.0), 0.0, 0.0]
    np.testing.assert_allclose(dues, expected, atol=1e-12)


def test_a_threshold_is_the_lowest_that_is_precise_enough_over_enough_studies() -> None:
    chances = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    labels = np.array([1, 1, 1, 0, 1, 0, 1, 0], float)
    # Precise are 5 of 7 (0.71) and 4 of 5 (0.8); below, 5 of 8 are not.
    assert choose_threshold(chances, labels, 0.7) == pytest.approx(0.25)
    assert choose_threshold(chances, labels, 0.75) == pytest.approx(0.45)
    assert choose_threshold(chances, labels, 0.9) is None  # 3 of 3 are too few to believe
    assert choose_threshold(chances[::-1], labels[::-1], 0.75) == pytest.approx(0.45)
    labels[0] = np.nan
    assert choose_threshold(chances, labels, 0.75) is None
    tied = np.full(6, 0.5)
    assert choose_threshold(tied, np.array([1, 1, 1, 1, 1, 0.0]), 0.8) == 0.5
    assert choose_threshold(tied, np.array([1, 1, 1, 1, 0, 0.0]), 0.8) is None
    assert choose_threshold(np.zeros(0), np.zeros(0), 0.8) is None


def test_only_yes_or_no_tasks_have_thresholds() -> None:
    tasks = [
        Task(name="size", kind=TaskKind.REGRESSION, classes=("size",)),
        Task(name="found", kind=TaskKind.BINARY, classes=("it",)),
    ]
    chances = np.tile([[0.1, 0.6]], (6, 1))
    labels = np.tile([[3.0, 1.0]], (6, 1))
    assert choose_thresholds(tasks, chances, labels, 0.5) == {"found.it": 0.6}


def make_prepared(text: str = "He has a cough.") -> Prepared:
    """Two frames of 100 by 50 pixels in squares of 40, a note, and half a second of voice."""
    frames = tuple(
        FrameGeometry(i, 0, rows=100, columns=50, size=40, top=0, left=10, height=40, width=20)
        for i in range(2)
    )
    spans = [(0, 0), (0, 2), (3, 6), (7, 8), (9, 11), (11, 14), (14, 15), (0, 0)]
    note = PreparedNote(np.zeros(len(spans), np.int64), np.array(spans, np.int64), text)
    voice = PreparedVoice(np.zeros((50, 4), np.float32), 0.005, 0.01, 0.5)
    return Prepared(PreparedImage(np.zeros((2, 40, 40), np.float32), frames), note, voice)


LAYOUT = Layout(frames=3, pieces=9, cells=16, mel_step=8.0)


def test_a_reading_is_brought_to_native_pixels_characters_and_seconds() -> None:
    reading = np.zeros(3 * 16 + 9 + 8)
    reading[16 + 4 + 0] = 0.4  # the second frame's second row, first column: padding alone
    reading[16 + 4 + 1] = 0.3  # and the second column
    reading[48 + 4], reading[48 + 5], reading[48 + 3] = 0.2, 0.2, 0.05
    reading[48 + 0] = 9.0  # a special piece, which has no characters
    reading[57 + 2], reading[57 + 3], reading[57 + 4] = 0.4, 0.3, 0.1
    prepared = make_prepared()
    found = find_evidence(reading, {IMAGE: 0.1, NOTE: 0.6, VOICE: 0.3}, LAYOUT, prepared)
    assert found.pointed == {NOTE, VOICE}
    assert found.image is None
    assert not find_evidence(reading, dict.fromkeys(MODALITIES, 0.0), LAYOUT, prepared).pointed
    found = find_evidence(reading, dict.fromkeys(MODALITIES, 2.0), LAYOUT, prepared)
    assert found.shares == pytest.approx(dict.fromkeys(MODALITIES, 1 / 3))
    assert found.pointed == set(MODALITIES)
    assert found.image is not None
    # Columns 10 to 20 of the square are native columns 0 to 25, rows 10 to 20 are 25 to 50.
    assert (found.image.instance, found.image.frame) == (1, 0)
    assert (found.image.top, found.image.left) == (25, 0)
    assert (found.image.bottom, found.image.right) == (50, 25)
    assert found.note is not None
    assert prepared.note is not None
    assert prepared.note.text[found.note.start : found.note.end] == "cough"
    assert found.voice is not None
    # Tokens 2 and 3 are mel frames 16 to 31, centred from 0.165 s on.
    assert (found.voice.start_s, found.voice.end_s) == pytest.approx((0.16, 0.32))


def test_a_finding_is_said_from_its_threshold_on_and_otherwise_left_out() -> None:
    task = Task(name="found", kind=TaskKind.MULTILABEL, classes=("one", "two", "three", "four"))
    record = TextRecord(
        words=WORDS.words,
        findings=task.targets,
        thresholds={"found.one": 0.5, "found.two": 0.5, "found.three": None, "found.four": 0.5},
        precision=0.75,
        cells=16,
        mel_step=8.0,
    )
    answers = TaskPrediction(task, np.zeros(4), np.array([0.5, 0.49, 0.99, 0.9]))
    writer = Scripted([[A, B, END], [A, END], [A, END], [A] * 100])
    memory = np.zeros((3 * 16 + 9 + 8, 2))
    said = say_findings(
        record, (answers,), writer, memory, np.ones(len(memory), bool), LAYOUT, make_prepared()
    )
    (sentence,) = said.sentences
    assert (sentence.target, sentence.text) == ("found.one", "A b")
    assert (sentence.probability, sentence.threshold) == (0.5, 0.5)
    assert said.left_out == ("found.two", "found.three", "found.four")


def test_a_record_whose_parts_do_not_fit_is_refused() -> None:
    fine = {
        "words": WORDS.words,
        "findings": ("found.one",),
        "thresholds": {"found.one": None},
        "precision": 0.75,
        "cells": 16,
        "mel_step": 8.0,
    }
    assert TextRecord.model_validate(fine).vocabulary == WORDS
    with pytest.raises(ValueError, match="special words"):
        TextRecord.model_validate(fine | {"words": ("a",)})
    with pytest.raises(ValueError, match="thresholds"):
        TextRecord.model_validate(fine | {"thresholds": {}})


def make_sentences(*told: tuple[int, int, frozenset[Modality] | None]) -> SentenceBatch:
    """Make sentences of (study, finding, needs) for three studies."""
    by_study: list[tuple[Told, ...]] = []
    for study in range(3):
        own = [Told(f, n, np.array([START, A, END])) for s, f, n in told if s == study]
        by_study.append(tuple(own))
    stacked = stack_sentences(by_study)
    assert stacked is not None
    return stacked


def test_the_sentence_that_rests_on_most_of_what_is_left_is_learnt() -> None:
    both = frozenset({IMAGE, NOTE})
    sentences = make_sentences(
        (0, 0, frozenset({IMAGE})),  # 0
        (0, 0, both),  # 1
        (0, 0, frozenset({NOTE})),  # 2
        (0, 1, None),  # 3: rests on all that there is
        (1, 0, frozenset({VOICE})),  # 4
        (2, 1, None),  # 5
        (2, 1, both),  # 6
    )
    present = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    assert choose_sentences(sentences, present, present) == [1, 3, 4, 5]
    kept = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0]], bool)
    assert choose_sentences(sentences, present, kept) == [2, 5]
    kept = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0]], bool)
    assert choose_sentences(sentences, present, kept) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FusedModel:
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    write_bert(folder)
    chosen = ModelSettings(note=folder, width=16, findings_text=True)
    return build_model(chosen, PREPARE, TASKS, pretrained=False, words=len(WORDS)).eval()


def test_a_model_without_a_vocabulary_is_the_same_but_for_its_decoder(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    states = []
    for words, asked in ((0, False), (0, True), (9, True)):
        torch.manual_seed(0)
        chosen = ModelSettings(note=tmp_path / "bert", width=16, findings_text=asked)
        states.append(build_model(chosen, PREPARE, TASKS, pretrained=False, words=words))
    assert [m.decoder is not None for m in states] == [False, False, True]
    for key, value in states[0].state_dict().items():
        assert torch.equal(value, states[2].state_dict()[key]), key


def ask(decoder: FindingsDecoder, encoded: dict[Modality, Tokens], words: Tensor) -> Tensor:
    rows = torch.arange(len(words))
    with torch.no_grad():
        written = decoder(*decoder.remember(encoded), rows, torch.zeros_like(rows), words)
    both: Tensor = torch.cat([written.logits, written.energy], dim=2)
    return both


def test_an_absent_modality_changes_no_bit_and_adds_nothing(model: FusedModel) -> None:
    decoder = model.decoder
    assert decoder is not None
    step = make_step(model, make_batch(model))
    encoded = dict(step.encoded)
    words = torch.tensor([[START, A, B, C]] * 8)
    before = ask(decoder, encoded, words)
    wild = {
        m: Tokens(torch.where(t.mask[..., None], t.tokens, torch.inf), t.mask, t.pooled)
        for m, t in encoded.items()
    }
    assert torch.equal(before, ask(decoder, wild, words))
    energy = before[:, :, len(WORDS) :]
    mask = torch.cat([encoded[m].mask for m in MODALITIES], dim=1)
    assert not energy.masked_select(~mask[:, None]).any()
    assert energy.masked_select(mask[:, None]).min() > 0


def test_the_energy_of_a_token_is_that_of_its_part_of_what_was_read(model: FusedModel) -> None:
    assert model.decoder is not None
    read = model.decoder.read
    torch.manual_seed(0)
    words, memory = torch.randn(2, 3, 16), torch.randn(1, 5, 16)
    mask, study = torch.ones(1, 5, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        whole, energy = read(words, memory, mask, study)
        q, k, v = (
            read._split(x) for x in (read.query(words), read.key(memory), read.value(memory))
        )
        nothing = [part.reshape(1, read.heads, 1, 4) for part in read.nothing]
        keys, values = (torch.cat([a, b], dim=2) for a, b in zip(nothing, (k, v), strict=True))
        weights = (q @ keys.transpose(2, 3) / 2).softmax(dim=3)
        parts = weights[..., None] * values[:, :, None]  # (R, heads, L, 1 + N, E)
        flat = parts.permute(0, 2, 3, 1, 4).flatten(3)
        parts = flat @ read.out.weight.T
    torch.testing.assert_close(parts.sum(dim=2) + read.out.bias, whole)
    torch.testing.assert_close(parts[:, :, 1:].square().sum(dim=3), energy)


def test_cells_in_a_row_share_its_waves_and_those_in_a_column_theirs() -> None:
    grid = place_on_grid(9, 16).reshape(3, 3, 16)
    assert torch.equal(grid[1, 0, :8], grid[1, 2, :8])
    assert torch.equal(grid[0, 1, 8:], grid[2, 1, 8:])
    assert not torch.equal(grid[0, 1, :8], grid[2, 1, :8])
    assert not torch.equal(grid[1, 0, 8:], grid[1, 2, 8:])


def test_no_word_hears_of_those_after_it(model: FusedModel) -> None:
    assert model.decoder is not None
    encoded = dict(make_step(model, make_batch(model)).encoded)
    words = torch.tensor([[START, A, B, C]] * 8)
    other = torch.tensor([[START, A, C, A]] * 8)
    one, two = (ask(model.decoder, encoded, w) for w in (words, other))
    torch.testing.assert_close(one[:, :2], two[:, :2], rtol=0, atol=1e-6)
    assert not torch.allclose(one[:, 2], two[:, 2], atol=1e-3)


def test_eight_mel_frames_become_one_token(model: FusedModel) -> None:
    assert measure_mel_step(model, PREPARE.voice.mel_bands) == 8.0


def test_the_decoder_learns_what_to_say_of_what_it_sees_and_no_more(model: FusedModel) -> None:
    """Two findings: of the first the image tells a or b, of the second the note c or d."""
    torch.manual_seed(0)
    decoder = FindingsDecoder(2, len(WORDS), 4, 16, 0.0)
    objective = FindingsTextObjective(FindingsTextSettings(modality_dropout=0.5))
    vocabulary = build_vocabulary(["a b c d"])
    batch = replace(make_batch(model), sentences=None)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    fused = deepcopy(model)
    fused.decoder = decoder

    def draw(n: int, seed: int) -> tuple[dict[Modality, Tokens], SentenceBatch]:
        rng = np.random.default_rng(seed)
        kinds, places = rng.integers(2, size=(n, 2)), rng.integers(4, size=(n, 2))
        encoded, told = {}, []
        for m in MODALITIES:
            tokens = torch.from_numpy(rng.normal(size=(n, 4, 16)) * 0.3).float()
            if m is not VOICE:
                column = MODALITIES.index(m)
                rows = torch.arange(n)
                tokens[rows, places[:, column], 2 * column + kinds[:, column]] += 4.0
            encoded[m] = Tokens(tokens, torch.ones(n, 4, dtype=torch.bool), tokens.mean(dim=1))
        for image, note in kinds:
            told.append(
                (
                    Told(0, frozenset({IMAGE}), vocabulary.encode("ab"[image])),
                    Told(1, frozenset({NOTE}), vocabulary.encode("cd"[note])),
                )
            )
        sentences = stack_sentences(told)
        assert sentences is not None
        return encoded, sentences

    for i in range(120):
        encoded, sentences = draw(32, i)
        step = Step(fused, replace(batch, sentences=sentences), {}, {}, encoded, (0, 0, i))
        loss = objective(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoded, sentences = draw(64, 1000)
    memory, mask = decoder.eval().remember(encoded)
    with torch.no_grad():
        written = decoder(memory, mask, sentences.study, sentences.finding, sentences.words[:, :1])
    right = written.logits[:, 0].argmax(dim=1) == sentences.words[:, 1]
    assert right.float().mean() > 0.95
    # What it says of the image it read where the image tells it, and likewise of the note.
    peaks = written.energy[:, 0].argmax(dim=1).reshape(-1, 2)
    told = torch.stack([encoded[m].tokens.amax(dim=2).argmax(dim=1) for m in (IMAGE, NOTE)], 1)
    assert (peaks == told + torch.tensor([0, 4])).float().mean() > 0.85


def test_text_without_what_it_is_learnt_from_is_refused(tmp_path: Path) -> None:
    task = {"name": "found", "kind": "binary", "classes": ["it"]}
    cohort = {"table": "t.csv", "sentences": "s.csv"}
    fine = {
        "cohort": cohort,
        "tasks": [task],
        "model": {"findings_text": True},
        "objectives": {"findings_text": {}},
    }
    assert TrainSettings.model_validate(fine).objectives.findings_text is not None
    for wrong, why in (
        ({"model": {}}, "goes with model.findings_text"),
        ({"objectives": {}}, "goes with model.findings_text"),
        ({"cohort": {"table": "t.csv"}}, "cohort.sentences"),
        ({"tasks": [task | {"kind": "regression"}]}, "binary or multilabel"),
        (
            {"objectives": {"findings_text": {}, "masked": {}, "supervised": {"weight": 0}}},
            "give supervised a weight",
        ),
    ):
        with pytest.raises(ValueError, match=why):
            TrainSettings.model_validate(fine | wrong)
