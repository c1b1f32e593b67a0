"""Optimizers, the learning rate of a step, gradient clipping, and averaged weights.

optimizer = build_optimizer(method.param_groups("main"), OptimizerConfig(name="lars", lr=0.3))
for group in optimizer.param_groups:
    group["lr"] = lr_at(step, total_steps, warmup_steps, base_lr)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ssl_tasks.training.config import OptimizerConfig


def build_optimizer(param_groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of `param_groups`, whose own settings (weight decay 0 for biases) win over the config's.

    AdamW is fused, one kernel a weight: torch's own choice on CPUs is a loop in Python over several operations each.
    SGD is not: torch cannot cut its fused kernel into the parts of a sharded run.
    """
    if config.name == "adamw":
        return torch.optim.AdamW(
            param_groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
    if config.name == "sgd":
        return torch.optim.SGD(param_groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return LARS(param_groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rates (arXiv 1708.03888, algorithm 1).

    v <- momentum v + lr * trust * |w| / (|g| + decay |w|) * (g + decay w);  w <- w - v

    As in SimCLR (arXiv 2002.05709, section 2.2) biases and norms, all that has fewer than two dimensions, take
    neither adaptation nor decay: plain SGD with momentum. The same holds where |w| or |g| is zero.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""  # torch overloads `step` for each kind of closure
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if weight.ndim >= 2:
            decay = group["weight_decay"]
            weight_norm, grad_norm = weight.norm(), grad.norm()
            ratio = group["trust"] * weight_norm / (grad_norm + decay * weight_norm)
            # stays a tensor, so that a GPU is not waited for at every layer
            grad = torch.where((weight_norm > 0) & (grad_norm > 0), ratio, 1.0) * (grad + decay * weight)
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        state["velocity"].mul_(group["momentum"]).add_(grad, alpha=group["lr"])
        weight.sub_(state["velocity"])


def lr_at(step: int, total_steps: int, warmup_steps: int, base_lr: float, final_fraction: float = 0.0) -> float:
    """Learning rate of `step` (from 0): linear warm-up, then half a cosine (SGDR, arXiv 1608.03983, equation 5).

    Warm-up climbs from base_lr / (warmup_steps + 1) and reaches `base_lr` at step `warmup_steps`; the cosine
    would reach `final_fraction * base_lr` at step `total_steps`, the first that is not taken.
    """
    if step < warmup_steps:
        return base_lr * (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return base_lr * (final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def decay_at(step: int, total_steps: int, start: float, end: float) -> float:
    """Weight decay of `step` (from 0): half a cosine from `start`, which would reach `end` at step `total_steps`."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * step / total_steps))


def clip(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale all gradients so that their joint norm is at most `max_norm`; None leaves them alone.

    Returns:
        The norm before clipping, a scalar on the gradients' device.
    """
    moved = [weight for weight in parameters if weight.grad is not None]
    kinds = [[weight for weight in moved if isinstance(weight, DTensor) == is_part] for is_part in (False, True)]
    norms = [_norm(kind) for kind in kinds if kind]  # sharded weights and others do not go into one operation
    norm = torch.stack(norms).norm() if len(norms) > 1 else _norm(moved)
    if max_norm is not None:
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return norm


def _norm(weights: list[nn.Parameter]) -> Tensor:
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm  # each rank has the norm of its part


@torch.no_grad()
def average_into(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * module, parameter by parameter."""
    for kept, current in zip(average.parameters(), module.parameters(), strict=True):
        kept.lerp_(current.to(kept.dtype), 1.0 - decay)


class Ema(nn.Module):
    """A moving average of a module's parameters; buffers are copied.

    With `warmup` the decay of step t is at most (1 + t) / (10 + t), so that the random start is forgotten.
    Its state dict is the averaged module's, below `averaged`.
    """

    def __init__(self, module: nn.Module, decay: float, *, warmup: bool = True) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay: {decay} is not in [0, 1)")
        super().__init__()
        self.averaged = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights of `module` after step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        average_into(self.averaged, module, decay)
        for kept, buffer in zip(self.averaged.buffers(), module.buffers(), strict=True):
            kept.copy_(buffer)
