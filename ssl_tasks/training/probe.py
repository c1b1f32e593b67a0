"""Look at the features while training goes on, on one rank, without touching the training state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ssl_tasks.policy import BASE
from ssl_tasks.randomness import mix, row_keys, stream_key
from ssl_tasks.training.health import alignment, feature_std, knn_accuracy, rankme, uniformity
from ssl_tasks.training.setup import as_input
from ssl_tasks.training.sharding import whole
from ssl_tasks.training.views import to_batch

if TYPE_CHECKING:
    from ssl_tasks.training.loop import Trainer

PROBE_ROWS = 512
EMBED_ROWS = 1024


def probe(trainer: Trainer) -> dict[str, float]:
    """Feature spread, RankMe and, where val rows have labels, leave-one-out kNN accuracy (NaN where not)."""
    positions, labels = trainer.job.probe_rows(PROBE_ROWS)
    features = embed_rows(trainer, positions)
    return {
        "feature_std": feature_std(features),
        "rankme": rankme(features),
        "knn": math.nan if labels is None else knn_accuracy(features, torch.from_numpy(labels)),
    }


def geometry(trainer: Trainer) -> dict[str, float | None]:
    """Alignment and uniformity of the finished encoder on the probe's rows; alignment where views can be drawn.

    The views are two of the recipe's base policy, whatever the method itself looks at, so that methods compare.
    """
    job = trainer.job
    positions, _ = job.probe_rows(PROBE_ROWS)
    found: dict[str, float | None] = {"alignment": None, "uniformity": uniformity(embed_rows(trainer, positions))}
    if job.config.modality == "image":
        payload, policy = torch.from_numpy(job.shards.take(positions)), job.views.policy(BASE)
        keys = row_keys(job.config.seed, job.total_steps, torch.from_numpy(positions))
        views = [job.modality.augment(payload, policy, mix(keys + stream_key(f"view {k}"))) for k in range(2)]
        first, second = (embed_payload(trainer, view, positions) for view in views)
        found["alignment"] = alignment(first, second)
    return found


def embed_rows(trainer: Trainer, positions: np.ndarray, told: Callable[[int], None] = lambda num_rows: None) -> Tensor:
    """(N, num_features) features of plain samples on the CPU, in eval mode; of the moving average if there is one.

    Args:
        told: called with the number of rows that are done.
    """
    parts = []
    with whole(trainer.method):
        for first in range(0, len(positions), EMBED_ROWS):
            chunk = positions[first : first + EMBED_ROWS]
            parts.append(embed_payload(trainer, torch.from_numpy(trainer.job.shards.take(chunk)), chunk))
            told(first + len(chunk))
    return torch.cat(parts)


@torch.no_grad()
def embed_payload(trainer: Trainer, payload: Tensor, positions: np.ndarray) -> Tensor:
    """Features (N, num_features) of a payload (N, ...) as stored, of the rows at `positions`; see `embed_rows`."""
    backbone = trainer.ema.averaged if trainer.ema is not None else trainer.method.backbone
    was_training = backbone.training
    backbone.eval()
    made = {"view0": payload.numpy(), "positions": positions, "keys": positions}
    batch = to_batch(made, trainer.job, trainer.stats, trainer.ranks.device)
    (view,) = as_input(batch, trainer.choice["layout"], trainer.config.precision).views
    features: Tensor = backbone(view).float().cpu()
    backbone.train(was_training)
    return features
