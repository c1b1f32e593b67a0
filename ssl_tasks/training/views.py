"""Make the views of one step: by the feed's tasks in other processes, or where the model is, by the same functions.

Stored values (uint8) cross processes; the conversion to normalized floats happens where the model is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_tasks.methods.base import Batch
from ssl_tasks.policy import PLAIN
from ssl_tasks.randomness import mix, row_keys, stream_key
from ssl_tasks.schema import TEXT
from ssl_tasks.training.job import Job
from ssl_tasks.training.timing import READ, VIEWS

ROWS = "rows"


def make_views(job: Job, step: int, rank: int, world: int) -> dict[str, np.ndarray]:
    """What the feed gives for one rank in one step, in the stored dtype.

    Returns:
        `positions` and `keys` (B,) int64; `text` (B, L) uint16 where the method needs captions; and `view0`, ...
        (B, ...), or with `augment_on: device` the stored `rows`, which `to_batch` makes the views from.
    """
    positions = job.plan.rows(step, rank, world)
    with READ:
        payload = torch.from_numpy(job.shards.take(positions))
    keys = row_keys(job.config.seed, step, torch.from_numpy(positions))
    made = {"positions": positions, "keys": keys.numpy()}
    if job.reads_text:
        made[TEXT] = job.tokens.take(positions)
    if job.config.augment_on == "device":
        return {**made, ROWS: payload.numpy()}
    with VIEWS:
        for number, view in enumerate(_views(job, payload, keys)):
            made.update(_packed(f"view{number}", view))
    return made


def _views(job: Job, payload: Tensor, keys: Tensor) -> Iterator[Tensor]:
    """The method's views of `payload` (B, ...), on its device."""
    for number, name in enumerate(job.view_names):
        if name == PLAIN:
            yield payload
        else:
            yield job.modality.augment(payload, job.views.policy(name), mix(keys + stream_key(f"view {number}")))


def to_batch(made: dict[str, np.ndarray], job: Job, stats: dict[str, Any], device: torch.device) -> Batch:
    """Arrays of `make_views` as a batch of normalized inputs on `device`."""
    keys = _move(made["keys"], device)
    if ROWS in made:
        rows = _move(made[ROWS], device)
        with VIEWS:
            views = list(_views(job, rows, keys))
    else:
        count = sum(name.startswith("view") and name.removeprefix("view").isdigit() for name in made)
        views = [_unpacked(made, f"view{number}", device) for number in range(count)]
    return Batch(
        views=[job.modality.to_input(view, stats) for view in views],
        positions=_move(made["positions"], device),
        keys=keys,
        text=_move(made[TEXT], device).long() if TEXT in made else None,
    )


def _packed(name: str, view: Tensor) -> dict[str, np.ndarray]:
    """A view as its memory lies, with the order of its dimensions where that is another: to reorder the bytes of
    images here would cost as much as a third of their augmentation, for an order that models do not want."""
    if view.is_contiguous():
        return {name: view.numpy()}
    order = sorted(range(view.ndim), key=view.stride, reverse=True)
    return {name: view.permute(order).numpy(), f"{name}_order": np.argsort(order)}


def _unpacked(made: dict[str, np.ndarray], name: str, device: torch.device) -> Tensor:
    view = _move(made[name], device)
    order = made.get(f"{name}_order")
    return view if order is None else view.permute(order.tolist())


def _move(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
