"""Make the views of one step: what the feed runs on other processes, as a pure function.

uint8 crosses processes; the conversion to normalized floats happens where the model is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_tasks.methods.base import Batch
from ssl_tasks.randomness import mix, row_keys, stream_key
from ssl_tasks.training.job import Job


def make_views(job: Job, step: int, rank: int, world: int) -> dict[str, np.ndarray]:
    """`positions`, `keys` (B,) int64 and `view0`, ... (B, ...) of one rank in one step, as stored dtype."""
    positions = job.plan.rows(step, rank, world)
    payload = torch.from_numpy(job.shards.take(positions))
    keys = row_keys(job.config.seed, step, torch.from_numpy(positions))
    made = {"positions": positions, "keys": keys.numpy()}
    for number, policy in enumerate(job.method_spec.method.views.policies):
        view = payload
        if policy == "augment":
            view_keys = mix(keys + stream_key(f"view {number}"))
            view = job.modality.augment(payload, job.augment_config, view_keys)
        made[f"view{number}"] = view.numpy()
    return made


def to_batch(made: dict[str, np.ndarray], job: Job, stats: dict[str, Any], device: torch.device) -> Batch:
    """Arrays of `make_views` as a batch of normalized inputs on `device`."""
    views = [made[f"view{number}"] for number in range(sum(name.startswith("view") for name in made))]
    return Batch(
        views=[job.modality.to_input(_move(view, device), stats) for view in views],
        positions=_move(made["positions"], device),
        keys=_move(made["keys"], device),
    )


def _move(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
