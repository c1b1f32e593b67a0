"""The feature map of an encoder: what dense tasks put their heads on.

feature_map(backbone, images)       # (B, C, h, w), before what pools it into one vector
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_tasks.transfer.base import Context, IntArray

ROWS = 64
"""Samples that go through a network at once."""
LEAST_DEVIATION = 1e-6
MOST_SIDE = 64


def require_map(backbone: nn.Module) -> None:
    """Refuse networks without a feature map.

    Raises:
        RequestError: it is none of timm's, such as the network of a table.
    """
    if not (hasattr(backbone, "forward_intermediates") or hasattr(backbone, "forward_features")):
        raise RequestError(
            f"pretrain.backbone: {type(backbone).__name__} has no feature map, and transfer.task=segmentation and "
            "localization need one; use a network of timm"
        )


def feature_map(backbone: Any, inputs: Tensor) -> Tensor:
    """(B, C, h, w) of the last stage; of a ViT its patch tokens after the last norm, in their places.

    Args:
        inputs: (B, C, H, W).

    Raises:
        RequestError: as `require_map`.
    """
    require_map(backbone)
    if hasattr(backbone, "forward_intermediates"):
        maps = backbone.forward_intermediates(inputs, indices=1, norm=True, intermediates_only=True)[-1]
    else:
        maps = backbone.forward_features(inputs)
    if maps.ndim != 4:
        raise RequestError(
            f"pretrain.backbone: {type(backbone).__name__} gives {tuple(maps.shape[1:])} for an image, no feature map"
        )
    found: Tensor = maps
    return found


def shrunk(images: Tensor) -> Tensor:
    """(B, C, H, W) with at most `MOST_SIDE` pixels a side: a map of a photograph's own pixels would fill the disk."""
    from torch.nn import functional as F

    height, width = images.shape[2:]
    if max(height, width) <= MOST_SIDE:
        return images
    return F.adaptive_avg_pool2d(images, (min(height, MOST_SIDE), min(width, MOST_SIDE)))


def trunk(backbone: nn.Module) -> nn.Module:
    """`backbone` as a module that gives its feature map."""
    from torch import nn

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, inputs: Tensor) -> Tensor:
            return feature_map(self.backbone, inputs)

    return Trunk()


def maps(context: Context, method: str | None, rows: IntArray, train: IntArray, total: int) -> NDArray[np.float32]:
    """(N, C, h, w) feature maps of some rows, on disk and mapped: each channel with mean 0 and deviation 1 over train.

    Args:
        method: whose network gives them; None for the input itself, averaged down to `MOST_SIDE` pixels a side.
        rows: positions; the others are left 0, and take no room.
        train: those of the rows that mean and deviation are of.
        total: N.
    """
    import torch

    def through(positions: IntArray) -> NDArray[np.float32]:
        inputs = context.to_input(context.payload(positions))
        return (shrunk(inputs) if network is None else network(inputs)).float().cpu().numpy()

    network = None if method is None else trunk(context.networks[method]()).eval().to(context.payload(rows[:1]).device)
    with torch.inference_mode():
        shape = (total, *through(rows[:1]).shape[1:])
        with tempfile.TemporaryFile() as file:
            stored = np.memmap(file, np.float32, "w+", shape=shape)
        for at in range(0, len(rows), ROWS):
            stored[rows[at : at + ROWS]] = through(rows[at : at + ROWS])
    _standardize(stored, rows, train)
    return np.asarray(stored)  # a plain array over the map: what is sent to another process must not look for the file


def _standardize(stored: NDArray[np.float32], rows: IntArray, train: IntArray) -> None:
    mean = _mean(lambda part: part, stored, train)
    variance = _mean(lambda part: (part - mean) ** 2, stored, train)
    deviation = np.sqrt(np.maximum(variance, LEAST_DEVIATION**2))
    for at in range(0, len(rows), ROWS):
        chosen = rows[at : at + ROWS]
        stored[chosen] = ((stored[chosen] - mean) / deviation).astype(np.float32)


def _mean(
    of: Callable[[NDArray[np.float64]], NDArray[np.float64]], stored: NDArray[np.float32], train: IntArray
) -> NDArray[np.float64]:
    """(C, 1, 1) over train rows and places."""
    sums = sum(
        of(stored[train[at : at + ROWS]].astype(np.float64)).sum(axis=(0, 2, 3)) for at in range(0, len(train), ROWS)
    )
    count = len(train) * stored.shape[2] * stored.shape[3]
    return np.asarray(sums / count)[:, None, None]
