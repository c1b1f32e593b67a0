"""The modality contract: how one kind of data is read, checked, normalized, augmented and fed to a model.

One file per modality. Readers give Arrow tables, everything after that works on whole batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from ssl_tasks.policy import ResolvedPolicy

Stats = dict[str, Any]
"""Fitted normalization as JSON values; it travels with the encoder. Always has `modality` and `shape`."""

Vocabulary = dict[str, Any]
"""What has to be learned from raw train rows before they can be turned into numbers (JSON values)."""


@dataclass(frozen=True)
class Kind:
    """What decides which rows can be stored together."""

    family: str
    """Equal where rows become each other."""
    name: str
    """In words."""
    short: str
    """In words, after another one's name."""


@dataclass(frozen=True)
class Checked:
    """What `check` found about a batch of N rows."""

    reasons: list[str | None]
    """(N,) why a row cannot be used, in one word with underscores; None where it can."""
    details: list[str | None]
    """(N,) what was seen."""
    keys: list[bytes | None]
    """(N,) 16 bytes, equal for rows whose decoded content is equal however it was encoded; None: ask the raw bytes."""
    oddities: list[str | None]
    """(N,) what is wrong with a row that can be used all the same."""
    measures: pa.Table | None = None
    """One line for each usable row: what a modality measures of its quality."""
    kinds: list[Kind] | None = None
    """(usable rows,) where not all rows can be stored together."""
    prints: NDArray[np.float16] | None = None
    """(usable rows, D) of length 1: the product of two is how alike the rows are, 1 for the same."""
    signatures: NDArray[np.uint8] | None = None
    """(usable rows, bytes) whose bits are mostly equal where prints are alike: what near duplicates are sought by."""


class Modality(Protocol):
    """What the stages ask of a modality. `config` is the asking stage's config."""

    name: str

    def read(self, source: Any, config: Any) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Pairs (rows without numbers and ids of samples, raw payload), bounded in rows and bytes.

        Args:
            source: of `ssl_tasks.sources`; `Tables` for the modalities in `OF_FEATURES`.
        """
        ...

    def check(self, raw: pa.Table, config: Any) -> Checked:
        """Whether each row can be decoded, and what can be said of it."""
        ...

    def thumbnails(self, raw: pa.Table) -> list[bytes | None]:
        """(N,) small JPEGs to recognize rows by; None where there is nothing to see."""
        ...

    def learn(self, raw: Iterator[pa.Table], measures: Iterator[pa.Table] | None, config: Any) -> Vocabulary:
        """What `transform` needs to know, from the raw content and the measures of train rows only."""
        ...

    def recall(self, stats: Stats, raw: Iterator[pa.Table], measures: Iterator[pa.Table] | None) -> Vocabulary:
        """What `transform` needs to know to store other samples as those were that gave `stats`.

        Args:
            raw, measures: of all of these samples.

        Raises:
            RequestError: they cannot be stored like those: other channels, other columns.
        """
        ...

    def transform(self, raw: pa.Table, vocabulary: Vocabulary, config: Any) -> np.ndarray:
        """(N, *shape) uint8 or float32, what is stored."""
        ...

    def fit(self, payload: Iterator[np.ndarray], vocabulary: Vocabulary, config: Any) -> Stats:
        """Statistics of the stored train rows, in one pass."""
        ...

    def augment(self, payload: Tensor, policy: ResolvedPolicy, keys: Tensor) -> Tensor:
        """One view of each row of `payload` (B, ...), of its dtype and shape (but for a policy with a size of its own),
        drawn from `keys` (B,) alone; the memory may have another order of dimensions."""
        ...

    def to_input(self, payload: Tensor, stats: Stats) -> Tensor:
        """Stored payload to normalized float32 model input, on the payload's device."""
        ...

    def input_shape(self, stats: Stats) -> tuple[int, ...]:
        """Shape of one model input: (C, H, W) or (D,)."""
        ...
