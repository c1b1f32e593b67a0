"""Crop, resize and flip, and rotation."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_tasks.modalities.image_augment.storage import top_of, whole


def crop_each(images: Tensor, boxes: Tensor, size: tuple[int, int], rows: np.ndarray) -> Tensor:
    """Crop, resize and flip image by image, bilinear with antialiasing, as torchvision's `resized_crop`.

    Args:
        images: (B, H, W, C) on a CPU.
        boxes: (B, 6) top, left, height, width, flipped left to right, flipped upside down.
        rows: (n,) which of them.

    Returns:
        (n, C, *size) uint8 for uint8, else float32 in stored units.
    """
    dtype = torch.uint8 if images.dtype == torch.uint8 else torch.float32
    batch, down, across, channel = images.stride()
    planes = torch.empty((len(rows), images.shape[3], *size), dtype=dtype)
    drawn = boxes.tolist()
    for target, row in zip(planes.numpy(), rows.tolist(), strict=True):
        top, left, height, width, mirrored, upside_down = drawn[row]
        crop = images.as_strided(
            (1, images.shape[3], height, width),
            (batch, channel, down, across),
            images.storage_offset() + row * batch + top * down + left * across,
        ).to(dtype)
        if (height, width) != size:
            crop = F.interpolate(crop, size=size, mode="bilinear", antialias=True)
        source = crop.numpy()[0, :, :: -1 if upside_down else 1, :: -1 if mirrored else 1]
        for plane, values in zip(target, source, strict=True):
            plane[...] = values  # numpy's strided copy takes 42 us for a 224 px image, flipped or not, torch's 94 us
    return planes


def crop_together(images: Tensor, boxes: Tensor, size: tuple[int, int], rows: np.ndarray) -> Tensor:
    """The same for all images at once, where many calls cost more than the pixels.

    Rows of pixels are gathered and weighted, then columns, after the image was transposed so that they are rows too.
    """
    count, (height, width, channels) = len(rows), images.shape[1:]
    row = torch.from_numpy(rows).to(images.device)
    box = boxes.index_select(0, row)
    down = _taps(box[:, 0], box[:, 2], box[:, 5], height, size[0])
    across = _taps(box[:, 1], box[:, 3], box[:, 4], width, size[1])
    lines = images if images.dtype == torch.uint8 else images.to(torch.float32)  # torch cannot gather uint16
    tall = _weighted(lines.reshape(-1, width * channels), row * height, *down)
    columns = tall.view(count, size[0], width, channels).permute(0, 2, 3, 1).reshape(-1, channels * size[0])
    wide = _weighted(columns, torch.arange(count, device=row.device) * width, *across)
    if images.dtype == torch.uint8:
        wide = whole(wide)
    return wide.view(count, size[1], channels, size[0]).permute(0, 2, 3, 1).contiguous()


def _taps(start: Tensor, length: Tensor, flipped: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """(K, n, size) pixels inside [start, start + length), and how much each counts for each pixel of the view.

    K is what an image needs of which all is cropped; where fewer are needed the others weigh nothing, so that a
    row's sum does not depend on other rows.
    """
    step = length[:, None] / size
    support = step.clamp(min=1)
    place = torch.arange(size, device=start.device)
    centre = start[:, None] + (torch.where(flipped[:, None] > 0, size - 1 - place, place) + 0.5) * step
    num_taps = math.ceil(2 * max(1.0, side / size))
    pixel = (centre - support - 0.5).floor() + torch.arange(1, num_taps + 1, device=start.device)[:, None, None]
    first, last = start[:, None], (start + length - 1)[:, None]
    weight = (1 - (pixel + 0.5 - centre).abs() / support).clamp_(min=0) * ((pixel >= first) & (pixel <= last))
    return pixel.maximum(first).minimum(last).long(), weight / weight.sum(0)


def _weighted(lines: Tensor, offset: Tensor, pixel: Tensor, weight: Tensor) -> Tensor:
    """(n * size, D) float32 sums of `lines` (N, D), in which row i's stand at offset[i] + pixel[:, i] (K, size)."""
    total = torch.zeros((pixel[0].numel(), lines.shape[1]), device=lines.device)
    for index, share in zip(pixel + offset[:, None], weight, strict=True):
        total.addcmul_(lines.index_select(0, index.flatten()).to(torch.float32), share.view(-1, 1))
    return total


def rotate(images: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Rotate planes (n, C, H, W) counter-clockwise by `degrees` (n, 1), bilinear, as torchvision's `rotate`.

    Args:
        fill: (C or 1, 1, 1) from 0 to 1, what stands outside the image.
    """
    count, _, height, width = images.shape
    angle = torch.deg2rad(degrees[:, :, None])
    cos, sin = torch.cos(angle), torch.sin(angle)
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device) + (0.5 - height / 2),
        torch.arange(width, device=images.device) + (0.5 - width / 2),
        indexing="ij",
    )
    grid = torch.stack([(x * cos - y * sin) * (2 / width), (x * sin + y * cos) * (2 / height)], dim=3)
    seen = torch.ones((count, 1, height, width), device=images.device)
    with_mask = torch.cat([images.float(), seen], dim=1)
    sampled = F.grid_sample(with_mask, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    outside = fill * top_of(images)
    turned = sampled[:, :-1].sub_(outside).mul_(sampled[:, -1:]).add_(outside)
    return whole(turned) if images.dtype == torch.uint8 else turned
