"""Which rows a step sees: a function of (data, seed, step) and of nothing else.

plan = Plan(train_positions, shard_sizes, batch_size=256, seed=0)
plan.rows(step=7, rank=0, world=2)      # this rank's half of the batch
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Plan:
    """Whole batches only: what is left of an epoch after the last one is not seen in it."""

    positions: np.ndarray
    """(N,) int64, the train rows' positions in the payload, ascending."""
    starts: np.ndarray
    """(S + 1,) int64, where each shard begins."""
    batch_size: int
    seed: int
    shuffle_shards: int = 64

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in the train rows."""
        return len(self.positions) // self.batch_size

    def rows(self, step: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """(batch_size / world,) positions of one rank in one step; the ranks' rows in order are the batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        share = self.batch_size // world
        first = place * self.batch_size + rank * share
        return self.order(epoch)[first : first + share]

    def order(self, epoch: int) -> np.ndarray:
        """(N,) positions of an epoch in the order they are seen.

        Shards are shuffled, then rows within windows of `shuffle_shards` shards, so that data larger than
        memory is read a window at a time; up to that many shards it is a plain permutation.
        """
        return _order(self, epoch)


@functools.lru_cache(maxsize=2)
def _order(plan: Plan, epoch: int) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(key=[plan.seed, epoch]))
    bounds = np.searchsorted(plan.positions, plan.starts)
    shards = random.permutation(len(bounds) - 1)
    parts = []
    for first in range(0, len(shards), plan.shuffle_shards):
        window = [
            plan.positions[bounds[shard] : bounds[shard + 1]] for shard in shards[first : first + plan.shuffle_shards]
        ]
        parts.append(random.permutation(np.concatenate(window)))
    return np.concatenate(parts)
