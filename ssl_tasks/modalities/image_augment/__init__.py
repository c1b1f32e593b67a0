"""Augmentation of whole batches of images, drawn from per-row keys.

Order, as in SimCLR (arXiv 2002.05709, appendix A): crop and resize, flips, rotation, jitter (brightness, contrast,
saturation, hue), grey, blur, solarize, equalize, noise, cutout, masks. Each agrees with torchvision's operation for
the same parameters (`torchvision.transforms.v2.functional`).

What makes it fast, measured on one core of an EPYC:

- up to 48 px all crops are resized together, by gathering and weighting lines: 10 us at 32 px, where image by image
  takes 23 us, grid sampling 19 us and two small matrix products 34 us; larger ones image by image in torch's native
  uint8 code: 31 us at 64 px in place of 42, 84 us at 224 px;
- what follows runs on some images at a time, and on the rows that drew it;
- channels stand in planes meanwhile, so that colour needs no strided access.

    views = augment(payload, policy, row_keys(seed, step, positions))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssl_tasks.modalities.image_augment import draw
from ssl_tasks.modalities.image_augment.geometry import crop_each, crop_together
from ssl_tasks.modalities.image_augment.operations import Frame, Operation, operations
from ssl_tasks.modalities.image_augment.storage import Storage, keep_memory, put
from ssl_tasks.policy import ResolvedPolicy

CHUNK_VALUES = 1_000_000
"""Of images that are worked on together: fewer calls, and still within the L3 cache. Colour jitter of a 224 px image
took 437 us alone and 274 us among eight."""
DEVICE_VALUES = 64_000_000
"""On other devices, where only memory counts."""
SMALL = 48 * 48
"""Pixels up to which a CPU crops images together too."""


def augment(payload: Tensor, policy: ResolvedPolicy, keys: Tensor) -> Tensor:
    """One view of each image.

    Args:
        payload: (B, H, W, C) uint8, uint16 or float32.
        policy: what to do, and where the stored values stand between black and white.
        keys: (B,) int64 on the payload's device; equal keys give equal views, whatever else is in the batch.

    Returns:
        (B, size, size, C), or (B, H, W, C) where the policy has no size; of the payload's dtype. Its memory holds
        planes (B, C, H, W), as models take them.
    """
    batch, height, width, channels = payload.shape
    size = (policy.size, policy.size) if policy.size else (height, width)
    on_cpu = payload.device.type == "cpu"
    if on_cpu:
        keep_memory()
    boxes = draw.crops(keys, policy, height, width)
    storage = Storage(payload.dtype, policy, payload.device)
    steps = [_Step.draw(step, keys) for step in operations(policy, Frame(channels, *size, storage.fill))]
    crop = crop_each if on_cpu and max(height * width, size[0] * size[1]) > SMALL else crop_together
    result = torch.empty((batch, channels, *size), dtype=payload.dtype, device=payload.device)
    chunk = max(1, (CHUNK_VALUES if on_cpu else DEVICE_VALUES) // (size[0] * size[1] * channels))
    untouched, touched = _in_order(steps, batch)
    for rows in _chunks(untouched, chunk):
        put(result, _index(rows, payload.device), storage.cast(crop(payload, boxes, size, rows)))
    for rows in _chunks(touched, chunk):
        planes = storage.read(crop(payload, boxes, size, rows))
        for step in steps:
            planes = step.on(planes, rows)
        put(result, _index(rows, payload.device), storage.write(planes))
    return result.permute(0, 2, 3, 1)


def _in_order(steps: list[_Step], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that take no step, and those that take any, so ordered that rows that draw alike stand together.

    Then most chunks take a step as a whole, which spares copying the rows that take it out and back.
    """
    touched = np.zeros(batch, bool)
    for step in steps:
        touched |= step.chosen
    keys = [step.drawn[:, step.operation.sort_by].cpu().numpy() for step in steps if step.operation.sort_by is not None]
    order = np.lexsort([np.zeros(batch), *keys, *(step.chosen for step in steps)])
    return np.flatnonzero(~touched), order[touched[order]]


@dataclass(frozen=True)
class _Step:
    """An operation with what was drawn for the whole batch: a draw takes longer than many an operation on a chunk."""

    operation: Operation
    chosen: np.ndarray
    """(B,) bool."""
    drawn: Tensor
    """(B, ...)."""

    @classmethod
    def draw(cls, operation: Operation, keys: Tensor) -> _Step:
        return cls(operation, draw.chosen(keys, operation.name, operation.probability), operation.draw(keys))

    def on(self, planes: Tensor, rows: np.ndarray) -> Tensor:
        """Apply to those of `planes` (n, C, H, W), which are of `rows` (n,) of the batch, that drew it."""
        mine = self.chosen[rows]
        if not mine.any():
            return planes
        drawn = self.drawn.index_select(0, _index(rows[mine], planes.device))
        if mine.all():
            return self.operation.apply(planes, drawn)
        here = _index(np.flatnonzero(mine), planes.device)
        put(planes, here, self.operation.apply(planes.index_select(0, here), drawn))
        return planes


def _chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(rows, range(size, len(rows), size)) if len(rows) else []


def _index(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(rows).to(device)
