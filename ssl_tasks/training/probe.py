"""Look at the features while training goes on, on one rank, without touching the training state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ssl_tasks.training.health import feature_std, knn_accuracy, rankme
from ssl_tasks.training.setup import as_input
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


@torch.no_grad()
def embed_rows(trainer: Trainer, positions: np.ndarray) -> Tensor:
    """(N, num_features) features of plain samples on the CPU, in eval mode; of the moving average if there is one."""
    backbone = trainer.ema.averaged if trainer.ema is not None else trainer.method.backbone
    was_training = backbone.training
    backbone.eval()
    parts = []
    for first in range(0, len(positions), EMBED_ROWS):
        chunk = positions[first : first + EMBED_ROWS]
        made = {"view0": trainer.job.shards.take(chunk), "positions": chunk, "keys": chunk}
        batch = to_batch(made, trainer.job, trainer.stats, trainer.ranks.device)
        (view,) = as_input(batch, trainer.choice["layout"], trainer.config.precision).views
        parts.append(backbone(view).float().cpu())
    backbone.train(was_training)
    return torch.cat(parts)
