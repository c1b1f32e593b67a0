"""Statistics of stored pixels in one pass: quantiles, mean and deviation per channel, for every dtype.

Each value falls into one of 65,536 bins: for integers a bin is a value, for float32 it holds the numbers that
share sign, exponent and seven bits of the mantissa, so a quantile is right to 0.8% of its value. Bins hold
counts and the exact sums of what lies in them, which makes mean and deviation exact; integer counts are the same
in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 16
PART_VALUES = 1 << 20
Float = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Per channel (C,); `low` and `high` are the stored values that stand for 0 and 1."""

    low: Float
    high: Float
    mean: Float
    std: Float
    """Both on the scale from `low` to `high`, of the values clipped to it."""


def fit(payload: Iterator[NDArray[Any]], clip: tuple[float, float] | None) -> Fitted:
    """Statistics of batches (N, H, W, C).

    Args:
        clip: percentiles that stand for 0 and 1; None takes the range of the dtype, for float32 what occurs.
    """
    counts: NDArray[np.int64] | None = None
    for batch in (part for whole in payload for part in _parts(whole)):
        channels = batch.shape[-1]
        if counts is None:
            dtype = batch.dtype
            counts = np.zeros((channels, BINS), np.int64)
            offsets, squares = np.zeros((2, channels, BINS))
        for channel in range(channels):
            values = batch[..., channel].ravel()
            bins = _bins(values)
            counts[channel] += np.bincount(bins, minlength=BINS)
            if dtype == np.float32:
                beyond = values.astype(np.float64) - _edges(dtype)[bins]
                offsets[channel] += np.bincount(bins, beyond, minlength=BINS)
                squares[channel] += np.bincount(bins, beyond**2, minlength=BINS)
    assert counts is not None, "there is a train row"
    fitted = [_channel(*columns, _edges(dtype), clip, dtype) for columns in zip(counts, offsets, squares, strict=True)]
    return Fitted(*(np.array(column) for column in zip(*fitted, strict=True)))


def _parts(batch: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some images at a time: counting makes an index of 8 bytes of each value."""
    rows = max(1, PART_VALUES // max(1, int(np.prod(batch.shape[1:]))))
    return (batch[first : first + rows] for first in range(0, len(batch), rows))


def _bins(values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype != np.float32:
        return values.astype(np.int64)
    raw = values.view(np.uint32)
    ordered = np.where(raw >> 31, ~raw, raw | np.uint32(1 << 31))  # sorts as the numbers do
    return (ordered >> 16).astype(np.int64)


def _edges(dtype: Any) -> Float:
    """(BINS,) least value of each bin."""
    if dtype != np.float32:
        return np.arange(BINS, dtype=np.float64)
    ordered = np.arange(BINS, dtype=np.uint32) << np.uint32(16)
    raw = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
    with np.errstate(invalid="ignore"):  # some patterns are no numbers; nothing falls into their bins
        values = raw.astype(np.uint32).view(np.float32).astype(np.float64)
    return np.nan_to_num(values, posinf=0, neginf=0)


def _channel(
    counts: NDArray[np.int64],
    offsets: Float,
    squares: Float,
    edges: Float,
    clip: tuple[float, float] | None,
    dtype: Any,
) -> tuple[float, float, float, float]:
    full = np.flatnonzero(counts)
    count, start = counts[full].astype(np.float64), edges[full]
    means = start + offsets[full] / count
    within = np.maximum(squares[full] - offsets[full] ** 2 / count, 0)
    if clip is not None:
        low, high = (_quantile(means, count, share / 100) for share in clip)
    elif dtype == np.float32:
        low, high = float(means[0]), float(means[-1])
    else:
        low, high = 0.0, float(np.iinfo(dtype).max)
    high = high if high > low else low + 1.0
    inside = (means > low) & (means < high)
    clipped = means.clip(low, high)
    mean = float((clipped * count).sum() / count.sum())
    spread = ((clipped - mean) ** 2 * count).sum() + within[inside].sum()
    scale = high - low
    std = float(np.sqrt(spread / count.sum())) / scale
    return low, high, (mean - low) / scale, max(std, 1 / 255)  # a channel of one value is not blown up


def _quantile(values: Float, count: Float, share: float) -> float:
    """The least value with at least this share of all at or below it."""
    place = np.searchsorted(np.cumsum(count), share * count.sum() - 1e-9)
    return float(values[min(place, len(values) - 1)])
