"""Random numbers for whole batches of images: more than are drawn at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_NUMBERS = 1 << 22
"""Random numbers drawn at once: the mixing holds several int64 copies, 32 MiB each at this bound."""


def draw(
    source: Callable[[Tensor, str, int, torch.dtype], Tensor], keys: Tensor, stream: str, count: int, dtype: torch.dtype
) -> Tensor:
    """(B, count) numbers of `uniform` or `normal`, some rows at a time: a row's depend on its own key only."""
    rows = max(1, MAX_NUMBERS // count)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.cat([source(part, stream, count, wide) for part in torch.split(keys, rows)]).to(dtype)
