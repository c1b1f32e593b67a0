"""Embeddings of all rows that are read in parts, so that what a fit needs of them takes no memory for the others.

features = Stored(embed, "embeddings/pretrained.parquet")
spread = TrainRows(features, train)           # mean and deviation of all train rows, labelled or not
rows = hold([features], standardize(spread), asked)
rows[asked[:10]]                              # (10, D)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.schema import EMBEDDING

if TYPE_CHECKING:
    from ssl_tasks.artifact import Artifact

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
PART_ROWS = 2048
"""Read at once."""


class Moments(Protocol):
    """What a strategy may ask of all train rows (N, D) before its fits: an array has it, and so have `TrainRows`."""

    def mean(self, axis: int) -> FloatArray:
        """(D,) for axis 0."""
        ...

    def std(self, axis: int) -> FloatArray:
        """(D,) for axis 0."""
        ...


class Rows(Protocol):
    """(N, D) rows that are read by position, in part: an array, or what stands for one."""

    def __getitem__(self, positions: IntArray) -> FloatArray:
        """(P, D) float64 at positions (P,), in that order."""
        ...


class Parts:
    """What `Rows` are that have but their parts in payload order."""

    def parts(self) -> Iterator[FloatArray]:
        """(rows, D) each."""
        raise NotImplementedError

    def __getitem__(self, positions: IntArray) -> FloatArray:
        """See `Rows`; reads all parts."""
        held, place = np.unique(positions, return_inverse=True)
        return _hold(self, held, np.arange(len(held)))[place]


@dataclass(frozen=True)
class Stored(Parts):
    """Of a file of an embed artifact; it can be sent to another process as a handle."""

    embed: Artifact
    name: str

    def parts(self) -> Iterator[FloatArray]:
        """(rows, D) each."""
        for batch in self.embed.batches(self.name, [EMBEDDING], PART_ROWS):
            flat = batch[EMBEDDING].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            yield flat.reshape(batch.num_rows, -1).astype(np.float64)


def parts(features: Any) -> Iterator[FloatArray]:
    """Those of `Parts`, or of an array (N, D), which may be mapped."""
    if isinstance(features, Parts):
        return features.parts()
    starts = range(0, len(features), PART_ROWS)
    return (np.asarray(features[first : first + PART_ROWS], np.float64) for first in starts)


def among(features: Any, positions: IntArray) -> Iterator[tuple[FloatArray, IntArray]]:
    """Each part, and which of its rows are at these ascending positions."""
    first = 0
    for part in parts(features):
        begin, end = np.searchsorted(positions, [first, first + len(part)])
        yield part, positions[begin:end] - first
        first += len(part)


class TrainRows:
    """Mean and deviation of rows that are never held: NumPy's own for an array of them, to the last bit from two
    columns on, as it adds rows one by one too."""

    def __init__(self, features: Sequence[Any], positions: IntArray) -> None:
        """Args:
        features: by one encoder, or by several whose columns stand side by side.
        positions: ascending.
        """
        self._features, self._positions = features, positions

    def mean(self, axis: int) -> FloatArray:
        """(D,) for axis 0."""
        assert axis == 0, "of columns alone"
        return np.concatenate(self._means)

    def std(self, axis: int) -> FloatArray:
        """(D,) for axis 0."""
        assert axis == 0, "of columns alone"
        pairs = zip(self._features, self._means, strict=True)
        deviation: FloatArray = np.sqrt(np.concatenate([self._variance(one, mean) for one, mean in pairs]))
        return deviation

    @cached_property
    def _means(self) -> list[FloatArray]:
        return [self._mean(one, lambda rows: rows) for one in self._features]

    def _variance(self, features: Any, mean: FloatArray) -> FloatArray:
        return self._mean(features, lambda rows: np.square(rows - mean))

    def _mean(self, features: Any, of: Callable[[FloatArray], FloatArray]) -> FloatArray:
        total: FloatArray | None = None
        for part, wanted in among(features, self._positions):
            if len(wanted):
                values = of(part[wanted])
                total = (values if total is None else np.vstack([total, values])).sum(axis=0)
        assert total is not None, "there are train rows"
        return total / len(self._positions)


@dataclass(frozen=True)
class Held:
    """Some rows of (N, D), read by their positions in it."""

    positions: IntArray
    """(P,), each once."""
    values: FloatArray
    """(P, D)."""

    def __getitem__(self, positions: IntArray) -> FloatArray:
        """See `Rows`. Rows that stand here one after the other are a view that cannot be written to, not a copy.

        Raises:
            KeyError: one of them is not held.
        """
        places = self._places(positions)
        if len(places) and np.array_equal(places, np.arange(places[0], places[0] + len(places))):
            view: FloatArray = self.values[places[0] : places[0] + len(places)]
            view.flags.writeable = False
            return view
        found: FloatArray = self.values[places]
        return found

    def _places(self, positions: IntArray) -> IntArray:
        order = np.argsort(self.positions)
        ranks = np.searchsorted(self.positions, positions, sorter=order).clip(0, len(order) - 1)
        places: IntArray = order[ranks]
        if not np.array_equal(self.positions[places], positions):
            raise KeyError("a fit asks for rows that are not among those that were read for it")
        return places


def hold(features: Sequence[Any], positions: IntArray) -> list[FloatArray]:
    """By each encoder (P, D), at positions (P,), each of which is asked for once."""
    order = np.argsort(positions)
    return [_hold(one, positions[order], order) for one in features]


def _hold(features: Any, ascending: IntArray, places: IntArray) -> FloatArray:
    """Rows at ascending positions, each at its place of what is returned."""
    found, first = np.empty((0, 0)), 0
    for part, wanted in among(features, ascending):
        if not found.size:  # filled as the parts come: beside a list of them it would be there twice
            found = np.empty((len(ascending), part.shape[1]))
        found[places[first : first + len(wanted)]] = part[wanted]
        first += len(wanted)
    return found
