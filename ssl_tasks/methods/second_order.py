"""What losses need that hold a gradient: layers whose gradient has a gradient."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_tasks.training.collectives import CpuSyncBatchNorm, activate, world_size
from ssl_tasks.training.timing import EXCHANGE


class _Sum(torch.autograd.Function):
    """The sum over ranks; backward is the gradient of the sum of all ranks' losses, and is such a sum itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        with EXCHANGE:
            distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(grads[0])
        return total


@contextmanager
def twice_differentiable(module: nn.Module) -> Iterator[None]:
    """Within it `module`'s forward gives a graph that can be differentiated twice.

    Synchronized batch norms run fused kernels whose backward autograd does not record: a second gradient would
    silently lack what the statistics owe to the inputs. Fused attention has no second gradient at all.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, (CpuSyncBatchNorm, nn.SyncBatchNorm))]
    for norm in norms:
        norm.forward = functools.partial(_forward, norm)  # type: ignore[method-assign]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for norm in norms:
            del norm.forward


def _forward(norm: Any, x: Tensor) -> Tensor:
    if not norm.training or world_size() == 1:
        y: Tensor = type(norm).forward(norm, x)
        return y
    return activate(norm, _normalize(norm, x))


def _normalize(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Batch norm over all ranks' rows in plain operations, running statistics as `nn.BatchNorm2d` keeps them."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    axes = [axis for axis in range(x.ndim) if axis != 1]
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = _Sum.apply(wide.mean(axes)) / world_size()  # every rank brings the same number of rows
        centred = wide - mean.view(shape)
        var = _Sum.apply(centred.square().mean(axes)) / world_size()
        y: Tensor = centred * torch.rsqrt(var + norm.eps).view(shape)
        if norm.weight is not None:
            y = y * norm.weight.view(shape) + norm.bias.view(shape)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
        count = world_size() * x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean.detach().to(norm.running_mean.dtype), share)
        norm.running_var.lerp_((var.detach() * count / (count - 1)).to(norm.running_var.dtype), share)
    return y.to(x.dtype)
