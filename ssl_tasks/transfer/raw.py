"""Raw input as features: what the encoder starts from, normalized, flattened, and shrunk where it is large.

A sample of more than `MOST_VALUES` values is averaged down to the largest height and width (or length) of about the
same shape that hold no more; a table's columns stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.rows import Parts

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_tasks.artifact import Artifact

MOST_VALUES = 1024
ROWS = 1024
"""Samples that are read at once."""


@dataclass(frozen=True)
class RawInput(Parts):
    """(N, D) of all rows in payload order."""

    normalize: Artifact
    modality: str
    stats: dict[str, Any]

    def parts(self) -> Iterator[NDArray[np.float64]]:
        """(rows, D) each."""
        import torch

        from ssl_tasks import modalities
        from ssl_tasks.shards import Shards

        shards, kind = Shards.open(self.normalize), modalities.modality(self.modality)
        for start in range(0, len(shards), ROWS):
            payload = torch.from_numpy(shards.take(np.arange(start, min(start + ROWS, len(shards)))))
            yield shrink(kind.to_input(payload, self.stats)).numpy().astype(np.float64)


def shrink(inputs: Tensor) -> Tensor:
    """(B, C, H, W), (B, C, L) or (B, D) to (B, at most `MOST_VALUES`); (B, D) stays."""
    from torch.nn import functional as F

    channels, sides = inputs.shape[1], inputs.shape[2:]
    if sides and inputs[0].numel() > MOST_VALUES:
        factor = (MOST_VALUES / (channels * math.prod(sides))) ** (1 / len(sides))
        smaller = tuple(max(1, math.floor(side * factor + 1e-9)) for side in sides)
        pool = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool1d
        inputs = pool(inputs, smaller)
    return inputs.flatten(1)
