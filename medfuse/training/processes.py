"""Several processes that train one model: settings in, each process's share of the work out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import lightning
import torch
from lightning.fabric.strategies.ddp import DDPStrategy as FabricStrategy
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from medfuse.errors import TrainingError
from medfuse.training.settings import FitSettings

PATIENCE = timedelta(hours=24)
"""How long a process waits for the others, such as for features to be computed by the first."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of each batch a process has: rows ``index``, ``index + of``, and so on."""

    index: int = 0
    of: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that prepares, measures and writes."""
        return self.index == 0


WHOLE = Share()


def require_one(settings: FitSettings) -> None:
    """Refuse settings that ask for several processes, where only one fits.

    Raises:
        TrainingError: They do.
    """
    if settings.processes * settings.nodes > 1:
        raise TrainingError(
            "only medfuse train fits a model in several processes; set fit.processes and "
            "fit.nodes to 1"
        )


def leads(settings: FitSettings) -> bool:
    """Whether this is the first process, as the environment says before they have met."""
    return settings.processes * settings.nodes == 1 or getattr(rank_zero_only, "rank", 0) == 0


def join(settings: FitSettings, device: torch.device) -> Share:
    """Meet the other processes, and start those of this machine if nobody else does.

    torchrun and SLURM start processes themselves. Otherwise the command line is run again for each
    of the others.
    """
    if settings.processes * settings.nodes == 1:
        return WHOLE
    fabric = lightning.Fabric(
        accelerator=name_accelerator(device),
        devices=settings.processes,
        num_nodes=settings.nodes,
        strategy=FabricStrategy(process_group_backend=_backend(device), timeout=PATIENCE),
    )
    fabric.launch()
    return Share(fabric.global_rank, fabric.world_size)


def choose_strategy(share: Share, device: torch.device) -> DDPStrategy | str:
    """Choose how Lightning brings the processes' gradients together: by their mean."""
    if share == WHOLE:
        return "auto"
    return DDPStrategy(
        process_group_backend=_backend(device),
        timeout=PATIENCE,
        # A share may lack a modality, whose network then has no part in it.
        find_unused_parameters=True,
        forward_sync_buffers=False,  # batch norms have the same statistics everywhere
    )


def wait(share: Share) -> None:
    """Wait until all processes have come this far."""
    if share.of > 1:
        distributed.barrier()


@contextmanager
def leader_first(share: Share) -> Iterator[None]:
    """Let the first process do what follows before the others do."""
    if not share.leads:
        wait(share)
    yield
    if share.leads:
        wait(share)


def name_accelerator(device: torch.device) -> str:
    """Name a device in Lightning's words."""
    return "gpu" if device.type == "cuda" else "cpu"


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"
