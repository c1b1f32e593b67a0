"""The modality contract: how one kind of data is read, checked, normalized, augmented and fed to a model.

One file per modality. Readers give Arrow tables, everything after that works on whole batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

Stats = dict[str, Any]
"""Fitted normalization as JSON values; it travels with the encoder. Always has `modality` and `shape`."""

Vocabulary = dict[str, Any]
"""What has to be learned from raw train rows before they can be turned into numbers (JSON values)."""


@dataclass(frozen=True)
class Checked:
    """What `check` found about one row."""

    reason: str | None = None
    """Why the row cannot be used, in one word with underscores; None where it can."""
    detail: str | None = None
    key: str | None = None
    """Equal for rows whose decoded content is equal, however it was encoded."""


class Modality(Protocol):
    """What the stages ask of a modality. `config` is the asking stage's config."""

    name: str

    def read(self, source: Any, config: Any) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Pairs (rows without numbers and ids of samples, raw payload), bounded in rows and bytes.

        Args:
            source: of `ssl_tasks.sources`; `Tables` for the modalities in `OF_FEATURES`.
        """
        ...

    def check(self, raw: pa.Table, config: Any) -> list[Checked]:
        """Whether each row can be decoded."""
        ...

    def learn(self, raw: Iterator[pa.Table], config: Any) -> Vocabulary:
        """What `transform` needs to know, from train rows only; where it is nothing, `raw` is not read."""
        ...

    def transform(self, raw: pa.Table, vocabulary: Vocabulary, config: Any) -> np.ndarray:
        """(N, *shape) uint8 or float32, what is stored."""
        ...

    def fit(self, payload: Iterator[np.ndarray], vocabulary: Vocabulary, config: Any) -> Stats:
        """Statistics of the stored train rows, in one pass."""
        ...

    def augment(self, payload: Tensor, config: Any, keys: Tensor) -> Tensor:
        """One view of each row, same dtype and shape as `payload` (B, ...), drawn from `keys` (B,) alone."""
        ...

    def to_input(self, payload: Tensor, stats: Stats) -> Tensor:
        """Stored payload to normalized float32 model input, on the payload's device."""
        ...

    def input_shape(self, stats: Stats) -> tuple[int, ...]:
        """Shape of one model input: (C, H, W) or (D,)."""
        ...
