"""What processes that train one model together share: totals, and the statistics of batch norms.

Each process has its share of every batch. What is measured over a batch must be measured over all
shares, so that several processes train as one does on the whole batch. In one process all of this
changes nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional


def count_processes() -> int:
    """Count the processes that train together; one where nothing was said of others."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def sum_across(value: Tensor) -> Tensor:
    """Add up what every process has; no gradient passes."""
    value = value.detach().clone()
    if count_processes() > 1:
        distributed.all_reduce(value)
    return value


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm (Ioffe & Szegedy 2015) whose statistics are of the rows of all processes.

    torch's own ``SyncBatchNorm`` is for GPUs alone. A process without rows takes part as well.

    Args:
        norm: What it replaces, with its weights and statistics.
        group: The processes; one of its own, since gradients of weights are being added up in the
            other at the same time, and not in the same order everywhere.
    """

    def __init__(
        self, norm: nn.modules.batchnorm._BatchNorm, group: distributed.ProcessGroup | None
    ) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        self.load_state_dict(norm.state_dict())
        for own, old in zip(self.parameters(), norm.parameters(), strict=True):
            own.requires_grad_(old.requires_grad)
        self.train(norm.training)
        self.group = group

    def forward(self, x: Float[Tensor, "n c *rest"]) -> Float[Tensor, "n c *rest"]:
        """Normalise each channel; a single row in all processes becomes zero."""
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64, device=x.device)
        total = self._add(torch.cat([x.sum(axes, dtype=torch.float64), count]))
        n = total[-1].detach().clamp(min=1.0)
        centred = x - (total[:-1] / n).to(x.dtype).view(shape)
        squares = self._add(centred.square().sum(axes, dtype=torch.float64))
        self._remember(total[:-1].detach() / n, squares.detach(), n)
        scale = (squares / n + self.eps).rsqrt().to(x.dtype)
        if self.weight is not None:
            scale = scale * self.weight
        normed = centred * scale.view(shape)
        return normed if self.bias is None else normed + self.bias.view(shape)

    def _add(self, value: Tensor) -> Tensor:
        """Add up over the processes, and the gradient likewise on its way back."""
        if count_processes() == 1:
            return value
        group = distributed.group.WORLD if self.group is None else self.group
        added: Tensor = _SumAcross.apply(value, group)  # type: ignore[no-untyped-call]
        return added

    @torch.no_grad()
    def _remember(self, mean: Tensor, squares: Tensor, n: Tensor) -> None:
        """Move the running statistics; one row has no variance and leaves them."""
        if self.running_mean is None or self.running_var is None or n < 2:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((squares / (n - 1)).to(self.running_var.dtype), weight)


class _SumAcross(torch.autograd.Function):
    """Adds up what every process has; what each does with the sum comes back to all of them."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, group: distributed.ProcessGroup) -> Tensor:
        ctx.group = group  # type: ignore[attr-defined]
        added = value.clone()
        distributed.all_reduce(added, group=group)
        return added

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        added = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(added, group=ctx.group)  # type: ignore[attr-defined]
        return added, None


def share_batch_norms(model: nn.Module, group: distributed.ProcessGroup | None = None) -> None:
    """Replace every batch norm in a model by one that looks at all processes."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, SharedBatchNorm(child, group))
