"""Augmentation of whole batches of images, drawn from per-row keys.

Per sample, torchvision v2 made 375 images/s of two 32 px SimCLR views on one core; batched tensor operations
made 7,500. Colour operations follow torchvision's definitions (`torchvision.transforms.v2.functional`); the
crop samples bilinearly inside the box, as torchvision does when it enlarges.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_tasks.randomness import uniform

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision's rgb_to_grayscale


def augment(payload: Tensor, config: Any, keys: Tensor) -> Tensor:
    """One view of each image: crop, flip, rotate, colour, grey, blur, in SimCLR's order.

    Args:
        payload: (B, H, W, C) uint8.
        config: the augment stage's config.
        keys: (B,) int64; equal keys give equal views.

    Returns:
        (B, H, W, C) uint8.
    """
    images = payload.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.contiguous_format)
    images = _geometry(images, config, keys)
    if config.jitter_probability > 0:
        images = _jitter(images, config, keys)
    if config.gray_probability > 0 and images.shape[1] == 3:
        images = torch.where(_chosen(keys, "gray", config.gray_probability), _luma(images), images)
    if config.blur_probability > 0:
        images = _blur(images, config, keys)
    return images.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _chosen(keys: Tensor, stream: str, probability: float) -> Tensor:
    return (uniform(keys, stream, 1) < probability)[:, :, None, None]


def crop_boxes(keys: Tensor, config: Any, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width in pixels, each (B,): area uniform, aspect ratio log-uniform.

    Whole pixels, as torchvision's RandomResizedCrop; where a drawn box does not fit it is cut to the image
    (torchvision draws anew up to ten times, which a counter cannot).
    """
    u = uniform(keys, "crop", 4)
    low, high = config.crop_scale
    area = height * width * (low + (high - low) * u[:, 0])
    first, last = (math.log(ratio) for ratio in config.crop_ratio)
    ratio = torch.exp(first + (last - first) * u[:, 1])
    h = torch.sqrt(area / ratio).round().clamp(1, height)
    w = torch.sqrt(area * ratio).round().clamp(1, width)
    top = (u[:, 2] * (height - h + 1)).floor()
    left = (u[:, 3] * (width - w + 1)).floor()
    return top, left, h, w


def _geometry(images: Tensor, config: Any, keys: Tensor) -> Tensor:
    """Crop and resize, flip and rotate (counter-clockwise), in one bilinear sampling."""
    _, _, height, width = images.shape
    top, left, h, w = crop_boxes(keys, config, height, width)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    y, x = y.to(images.device)[None] / height, x.to(images.device)[None] / width  # 0..1 in the view
    flip = (uniform(keys, "flip", 1) < config.flip_probability)[:, :, None]
    x = torch.where(flip, 1 - x, x)
    if config.rotate_degrees > 0:
        angle = (2 * uniform(keys, "rotate", 1) - 1)[:, :, None] * math.radians(config.rotate_degrees)
        cos, sin = torch.cos(angle), torch.sin(angle)
        y, x = (y - 0.5) * cos + (x - 0.5) * sin + 0.5, (x - 0.5) * cos - (y - 0.5) * sin + 0.5
    view = [value[:, None, None] for value in (top, left, h, w)]
    y = (view[0] + y * view[2]).maximum(view[0] + 0.5).minimum(view[0] + view[2] - 0.5)
    x = (view[1] + x * view[3]).maximum(view[1] + 0.5).minimum(view[1] + view[3] - 0.5)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _luma(images: Tensor) -> Tensor:
    weights = images.new_tensor(_LUMA)[None, :, None, None]
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def _jitter(images: Tensor, config: Any, keys: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue; factors uniform in [1 - s, 1 + s], hue shift in [-h, h]."""
    u = uniform(keys, "jitter", 4)[:, :, None, None, None]
    factor = [
        1 + strength * (2 * u[:, i] - 1)
        for i, strength in enumerate((config.brightness, config.contrast, config.saturation))
    ]
    colour = images.shape[1] == 3
    changed = (images * factor[0]).clamp(0, 255)
    grey = _luma(changed)[:, :1] if colour else changed
    mean = grey.mean((1, 2, 3), keepdim=True)
    changed = (mean + (changed - mean) * factor[1]).clamp(0, 255)
    if colour:
        grey = _luma(changed)
        changed = (grey + (changed - grey) * factor[2]).clamp(0, 255)
        if config.hue > 0:
            changed = _shift_hue(changed, config.hue * (2 * u[:, 3] - 1)[:, 0])
    return torch.where(_chosen(keys, "jitter?", config.jitter_probability), changed, images)


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by `shift` turns (B, 1, 1), through HSV."""
    value, _ = images.max(1)
    least, _ = images.min(1)
    chroma = value - least
    safe = chroma.clamp(min=1e-6)
    red, green, blue = images.unbind(1)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = (hue / 6 + shift).remainder(1.0)
    offset = images.new_tensor([5.0, 3.0, 1.0])[None, :, None, None]
    k = (offset + hue[:, None] * 6).remainder(6.0)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _blur(images: Tensor, config: Any, keys: Tensor) -> Tensor:
    """Gaussian blur, kernel a tenth of the side (odd, at least 3), sigma uniform, reflected at the border."""
    batch, channels, height, width = images.shape
    radius = max(1, min(height, width) // 20)
    low, high = config.blur_sigma
    sigma = low + (high - low) * uniform(keys, "blur", 1)
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(images.reshape(1, batch * channels, height, width), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=batch * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=batch * channels)
    return torch.where(_chosen(keys, "blur?", config.blur_probability), flat.view_as(images), images)
