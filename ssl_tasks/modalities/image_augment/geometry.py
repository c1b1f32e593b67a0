"""Crop, resize and flip, and rotation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_tasks.modalities.image_augment.storage import to_planes, top_of, whole


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
    views = torch.empty((len(rows), *size, images.shape[3]), dtype=dtype)
    drawn = boxes.tolist()
    for view, row in zip(views.permute(0, 3, 1, 2)[:, None].unbind(0), rows.tolist(), strict=True):
        top, left, height, width, mirrored, upside_down = drawn[row]
        crop = images.as_strided(  # 1 us, slicing takes 4
            (1, images.shape[3], height, width),
            (batch, channel, down, across),
            images.storage_offset() + row * batch + top * down + left * across,
        ).to(dtype)
        if (height, width) != size:
            crop = F.interpolate(crop, size=size, mode="bilinear", antialias=True)
        if mirrored or upside_down:
            crop = crop.flip([3] * mirrored + [2] * upside_down)
        view.copy_(crop)
    return to_planes(views)


def crop_together(images: Tensor, boxes: Tensor, size: tuple[int, int], rows: np.ndarray) -> Tensor:
    """The same in two matrix products for all images, for devices where many small calls are slow; float32."""
    index = torch.from_numpy(rows).to(images.device)
    images, boxes = images[index], boxes[index]
    _, height, width, _ = images.shape
    down = _weights(boxes[:, 0], boxes[:, 2], height, size[0], boxes[:, 5])
    across = _weights(boxes[:, 1], boxes[:, 3], width, size[1], boxes[:, 4])
    return down[:, None] @ images.permute(0, 3, 1, 2).to(torch.float32) @ across[:, None].transpose(2, 3)


def _weights(start: Tensor, length: Tensor, side: int, size: int, flipped: Tensor) -> Tensor:
    """(n, size, side): by how much each pixel inside [start, start + length) counts for each pixel of the view."""
    place = torch.arange(size, device=start.device).expand(len(start), size)
    place = torch.where(flipped[:, None] > 0, size - 1 - place, place)
    step = length[:, None] / size
    centre = start[:, None] + (place + 0.5) * step
    pixel = torch.arange(side, device=start.device)
    distance = (pixel + 0.5 - centre[:, :, None]).abs()
    weight = (1 - distance / step.clamp(min=1)[:, :, None]).clamp(min=0)
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weight = weight * inside[:, None]
    return weight / weight.sum(2, keepdim=True)


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
