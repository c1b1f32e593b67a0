"""Batch norms of a network that is not trained: the statistics that rows give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

NORM_ROWS = 8192
"""Rows that are enough to settle a network's batch norms."""
IntArray = NDArray[np.int64]


def evenly(positions: IntArray, count: int) -> IntArray:
    """At most `count` of the positions, evenly from all."""
    return positions[np.linspace(0, len(positions) - 1, min(len(positions), count)).astype(np.int64)]


def sample(positions: IntArray) -> IntArray:
    """At most `NORM_ROWS` of the positions, evenly from all."""
    return evenly(positions, NORM_ROWS)


def settle(network: nn.Module, take: Callable[[IntArray], Tensor], positions: IntArray, batch_size: int) -> None:
    """Set the running statistics of all batch norms to the mean over batches of these rows; ends in eval mode.

    Args:
        take: positions to what `network` takes, on its device.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    for start in range(0, max(1, len(positions) // batch_size) * batch_size, batch_size):  # no short last batch
        with torch.inference_mode():
            network(take(positions[start : start + batch_size]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
