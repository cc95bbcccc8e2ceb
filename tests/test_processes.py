"""Several processes train as one does on the whole batch."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from medfuse.config import read_settings
from medfuse.data.cohort import Split, read_cohort
from medfuse.errors import SettingsError
from medfuse.models.processes import SharedBatchNorm, share_batch_norms
from medfuse.training.dataset import BatchShares, EpochSampler
from medfuse.training.dropout import drop_modalities, step_rng
from medfuse.training.processes import Share
from medfuse.training.settings import TrainSettings
from tests.process_of_several import train_widened
from tests.tiny_run import add_sentences, write_config

SCRIPT = Path(__file__).with_name("process_of_several.py")


def write(folder: Path, cohort: Path, bert: Path, batch_size: int, processes: int) -> Path:
    """Write the settings of a run without dropout inside the network."""
    folder.mkdir()
    config = write_config(folder, cohort, bert)
    model = "[model]\ndropout = 0.0\nfindings_text = true\n"
    text = add_sentences(config.read_text().replace("[model]\n", model), cohort)
    text += "[objectives.findings_text]\n"
    fit = f'batch_size = {batch_size}\nprocesses = {processes}\nbalance = "weight"'
    config.write_text(text.replace("batch_size = 8", fit))
    return config


@pytest.mark.slow
def test_two_gloo_processes_end_with_the_weights_of_one(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings(write_config(tmp_path, small_cohort, tiny_bert), TrainSettings)
    studies = len(read_cohort(settings.cohort, settings.tasks).part(Split.TRAIN))
    # The last batch of an epoch has one study, so that one of the processes has none.
    size = next(b for b in range(6, studies) if studies % b == 1)
    configs = [write(tmp_path / str(n), small_cohort, tiny_bert, size, n) for n in (1, 2)]
    one, two = (config.parent / "out" for config in configs)
    train_widened(configs[0], one, monkeypatch.setattr)
    command = [sys.executable, str(SCRIPT), str(configs[1]), str(two)]
    path = os.pathsep.join([str(SCRIPT.parents[1]), *sys.path])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    whole, shared = (load_file(out / "checkpoint" / "model.safetensors") for out in (one, two))
    assert whole.keys() == shared.keys()
    for name, value in whole.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-6, atol=1e-12, msg=name)
    fresh = [k for k in whole if "backbone" not in k and "bert" not in k]
    assert any("running_mean" in k for k in fresh)
    losses = []
    for out in (one, two):
        with (out / "logs/csv/version_0/metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        losses.append([float(r[k]) for r in rows for k in r if k.endswith("loss") and r[k]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert len(losses[0]) == 4


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4))
def test_shares_are_dealt_from_the_very_batches_of_one_process(
    studies: int, batch_size: int, processes: int
) -> None:
    def cut(share: Share) -> list[list[int | None]]:
        return list(BatchShares(EpochSampler(studies, 0, None), batch_size, share))

    whole = cut(Share())
    parts = [cut(Share(index, processes)) for index in range(processes)]
    assert sorted(i for batch in whole for i in batch if i is not None) == list(range(studies))
    for batch, *shares in zip(whole, *parts, strict=True):
        dealt = [i for share in shares for i in share if i is not None]
        assert sorted(dealt) == sorted(i for i in batch if i is not None)
        assert all(shares)


@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 99))
def test_a_study_loses_the_same_modalities_in_whatever_share_it_is(
    studies: int, processes: int, seed: int
) -> None:
    present = np.random.default_rng(seed).random((studies, 3)) < 0.8
    whole = drop_modalities(present, 0.4, step_rng(seed, 0, 0))
    for index in range(processes):
        own = present[index::processes]
        kept = drop_modalities(own, 0.4, step_rng(seed, 0, 0), Share(index, processes))
        np.testing.assert_array_equal(kept, whole[index::processes])


def test_a_shared_batch_norm_alone_is_torchs_batch_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm.weight.data, norm.bias.data = torch.randn(3), torch.randn(3)
    x = (torch.randn(4, 3, 2, 5) * 3 + 7).requires_grad_()
    model = nn.Sequential(norm)
    results = []
    for _ in range(2):
        out = model(x)
        (gradient,) = torch.autograd.grad(out.pow(3).sum(), x)
        evaluated = model.eval()(x)
        model.train()
        results.append((out, gradient, evaluated, norm.state_dict()))
        norm.reset_running_stats()
        share_batch_norms(model)
        (norm,) = model  # type: ignore[assignment]
    assert isinstance(norm, SharedBatchNorm)
    for first, second in zip(*(r[:3] for r in results), strict=True):
        torch.testing.assert_close(second, first, rtol=2e-5, atol=2e-5)
    for name, value in results[0][3].items():
        torch.testing.assert_close(results[1][3][name], value)


def test_more_processes_than_a_batch_has_studies_are_refused(
    tmp_path: Path, small_cohort: Path, tiny_bert: Path
) -> None:
    config = write_config(tmp_path, small_cohort, tiny_bert)
    config.write_text(re.sub("batch_size = 8", "batch_size = 8\nprocesses = 9", config.read_text()))
    with pytest.raises(SettingsError, match="below their number"):
        read_settings(config, TrainSettings)
