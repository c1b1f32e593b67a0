"""From stored images to planes as torchvision's functions take them (uint8, or floats from 0 to 1), and back."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ssl_tasks.policy import ResolvedPolicy

LARGEST = {torch.uint8: 255, torch.uint16: 65535}


def top_of(images: Tensor) -> float:
    """What white is among planes of this dtype."""
    return 255.0 if images.dtype == torch.uint8 else 1.0


class Storage:
    """The stored form of one data set. uint8 stands for itself; other dtypes are scaled from `low` and `high`."""

    def __init__(self, dtype: torch.dtype, policy: ResolvedPolicy, device: torch.device) -> None:
        self.dtype = dtype
        self.low, high = (torch.tensor(values, device=device)[:, None, None] for values in (policy.low, policy.high))
        self.span = high - self.low
        fill = torch.tensor(policy.fill, device=device)[:, None, None]
        self.fill = (self.low + fill * self.span) / 255 if dtype == torch.uint8 else fill
        """The train mean (C or 1, 1, 1) as what `read` gives, from 0 to 1."""

    def read(self, planes: Tensor) -> Tensor:
        """Crops (n, C, H, W), uint8 or float32 in stored units, to what the operations work on; changes its argument.

        What lies beyond `low` and `high` is cut off.
        """
        return planes if self.dtype == torch.uint8 else planes.sub_(self.low).div_(self.span).clamp_(0, 1)

    def write(self, planes: Tensor) -> Tensor:
        """The reverse of `read`, to the stored dtype; changes its argument."""
        return planes if self.dtype == torch.uint8 else self.cast(planes.mul_(self.span).add_(self.low))

    def cast(self, planes: Tensor) -> Tensor:
        """Crops to the stored dtype, rounded; changes its argument."""
        if planes.dtype == self.dtype:
            return planes
        return planes.round_().clamp_(0, LARGEST[self.dtype]).to(torch.int32).to(self.dtype)


def whole(levels: Tensor) -> Tensor:
    """Float32 from 0 to 255 to uint8, rounded; changes its argument."""
    # by way of int16 21 us for a 224 px image, directly 86 us
    return levels.add_(0.5).to(torch.int16).to(torch.uint8)


def put(images: Tensor, rows: Tensor, values: Tensor) -> None:
    """images[rows] = values, along the first dimension."""
    if images.device.type == "cpu":
        images.numpy()[rows.numpy()] = values.numpy()  # 20 us for six images of 224 px, index_copy_ 700 us
    else:
        images.index_copy_(0, rows, values)


@functools.cache
def keep_memory() -> None:
    """Have glibc keep freed memory in this process, where it would unmap temporaries of a few hundred kB at once.

    It raises its thresholds to the size of a mapped block that is freed, 32 MiB at most. Without, page faults make
    the hue shift of one 224 px image take 1.0 ms in place of 0.24 ms.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
