"""Weights, gradients and optimizer state in parts, one on each rank (FSDP2), and activations computed twice.

For backbones whose training state is too much for one device. Checkpoints and encoders stay whole: a sharded run goes
on with another number of workers or without sharding, and the other way round.

    refuse(method, config)
    recompute(method)                           activations, in place
    shard(method, ranks.device)                 in place; the method is then called as before
    with whole(method): ...                     all its weights on every rank, to look at
    gathered(method.state_dict())               on every rank, at the same time
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Method
from ssl_tasks.training.collectives import world_size
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.timing import EXCHANGE


def blocks(module: nn.Module) -> list[nn.Module]:
    """The innermost parts that stand in lists or sequences of their own kind: the blocks of a ViT or a ResNet.

    What is fetched and freed, or computed again, at once.
    """
    found = [block for child in module.children() for block in blocks(child)]
    children = list(module.children())
    alike = isinstance(module, (nn.ModuleList, nn.Sequential)) and len({type(child) for child in children}) == 1
    if found or not alike:
        return found
    return [child for child in children if any(True for _ in child.children())]  # no bare layers


def refuse(method: Method, config: PretrainConfig) -> None:
    """What cannot be done to a method or network.

    Raises:
        RequestError: its weights cannot be cut, or it has no blocks to compute again.
    """
    parts = [part for part in method.modules() if isinstance(part, Method) and not part.shards]
    if config.sharding != "none" and parts:
        raise RequestError(
            f"pretrain.sharding: {parts[0].config.name} needs its weights whole on each worker; set it to none"
        )
    if config.activation_checkpointing and not blocks(method):
        raise RequestError(
            f"pretrain.activation_checkpointing: {config.backbone} has no blocks whose activations could be computed "
            "again; set it to false"
        )


def recompute(method: Method) -> None:
    """Let every block keep its inputs alone, in place; names of weights stay."""
    for block in blocks(method):
        block.forward = functools.partial(_recomputed, block, block.forward)


def _recomputed(block: nn.Module, forward: Any, *inputs: Any, **more: Any) -> Any:
    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _buffers_kept(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **more)


@contextlib.contextmanager
def _buffers_kept(block: nn.Module) -> Iterator[None]:
    """The second forward of a batch must not count in running statistics again."""
    kept = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


def shard(method: Method, device: torch.device) -> None:
    """Cut the parameters of `method` into one part for each rank, in place.

    Blocks are put together one at a time, all else (stem, norms, heads) for the whole of a step: methods look into
    backbones from outside of their `forward`, where nothing would fetch what is theirs.
    """
    mesh = init_device_mesh(device.type, (world_size(),))
    scalars = {weight for weight in method.parameters() if weight.ndim == 0}  # FSDP2 takes none
    for weight in scalars:
        weight.register_post_accumulate_grad_hook(_average)  # type: ignore[no-untyped-call]  # untyped in torch
    for block in blocks(method):
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    fully_shard(method, mesh=mesh, reshard_after_forward=False, ignored_params=scalars)


def _average(weight: Tensor) -> None:
    assert weight.grad is not None
    with EXCHANGE:
        distributed.all_reduce(weight.grad)
    weight.grad /= world_size()


@contextlib.contextmanager
def whole(method: Method) -> Iterator[None]:
    """What is not in a block is on every rank inside; blocks come and go as they are called. All ranks at once."""
    if not isinstance(method, FSDPModule):
        yield
        return
    method.unshard()
    try:
        yield
    finally:
        method.reshard()


@contextlib.contextmanager
def no_sync(method: Method) -> Iterator[None]:
    """Gradients are added up on each rank inside, and exchanged at the next backward pass outside."""
    assert isinstance(method, FSDPModule)
    method.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        method.set_requires_gradient_sync(True)


def gathered(value: Any, *, keep: bool = True) -> Any:
    """A state with whole tensors in the place of parts; all ranks at once.

    Args:
        keep: whether this rank wants it; the others have None there, and one tensor at a time in memory.
    """
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, dict):
        return {key: gathered(item, keep=keep) for key, item in value.items()}
    return [gathered(item, keep=keep) for item in value] if isinstance(value, list) else value


def load(method: Method, state: dict[str, Tensor]) -> None:
    """Load a whole state dict into a method, sharded or not."""
    parts = method.state_dict()
    method.load_state_dict({name: _like(parts.get(name), tensor) for name, tensor in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """As `load`."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of = dict(zip(numbers, weights, strict=True))
    parts = {
        number: {name: _like(of[number], value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _like(part: Any, tensor: Any) -> Any:
    """`tensor` cut as `part` is, where it has its shape: a step count of an optimizer stays what it is."""
    if not isinstance(part, DTensor) or not isinstance(tensor, Tensor) or part.shape != tensor.shape:
        return tensor
    return distribute_tensor(tensor.to(part.device), part.device_mesh, part.placements)
