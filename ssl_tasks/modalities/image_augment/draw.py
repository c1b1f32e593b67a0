"""What is drawn from keys: whether a row takes an operation, numbers in a range, boxes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ssl_tasks.policy import Range, ResolvedPolicy
from ssl_tasks.randomness import uniform


def chosen(keys: Tensor, name: str, probability: float) -> np.ndarray:
    """(B,) bool: which rows take the operation called `name`."""
    rows: np.ndarray = (uniform(keys, f"{name}?", 1)[:, 0] < probability).cpu().numpy()
    return rows


def between(keys: Tensor, stream: str, ends: Range) -> Tensor:
    """(B, 1) uniform between the ends."""
    return ends[0] + (ends[1] - ends[0]) * uniform(keys, stream, 1)


def boxes(
    keys: Tensor, stream: str, scale: Range | tuple[float, Tensor], aspect: Range, height: int, width: int
) -> Tensor:
    """(B, 4) int64 top, left, height and width: the share of the area uniform in `scale`.

    Whole pixels, as torchvision's RandomResizedCrop and RandomErasing; where a drawn box does not fit it is cut to
    the image (torchvision draws anew up to ten times, which a counter cannot).

    Args:
        scale: a tensor is (B,), another end in each row.
        aspect: width by height, log-uniform.
    """
    u = uniform(keys, stream, 4)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[:, 0])
    first, last = (math.log(ratio) for ratio in aspect)
    ratio = torch.exp(first + (last - first) * u[:, 1])
    h = torch.sqrt(area / ratio).round().clamp(1, height)
    w = torch.sqrt(area * ratio).round().clamp(1, width)
    top = (u[:, 2] * (height - h + 1)).floor()
    left = (u[:, 3] * (width - w + 1)).floor()
    return torch.stack([top, left, h, w], dim=1).long()


def crops(keys: Tensor, policy: ResolvedPolicy, height: int, width: int) -> Tensor:
    """(B, 6): the box, whether it is flipped left to right, whether upside down."""
    found = boxes(keys, "crop", policy.crop_scale, policy.crop_ratio, height, width)
    flip = uniform(keys, "flip", 1) < policy.flip_probability
    upside_down = uniform(keys, "vertical flip", 1) < policy.vertical_flip_probability
    return torch.cat([found, flip, upside_down], dim=1)


def factors(keys: Tensor, strengths: tuple[float, float, float], hue: float) -> Tensor:
    """(B, 4): factors of brightness, contrast and saturation in [1 - s, 1 + s], and turns of hue in [-hue, hue]."""
    u = 2 * uniform(keys, "jitter", 4) - 1
    return u * u.new_tensor([*strengths, hue]) + u.new_tensor([1.0, 1.0, 1.0, 0.0])
