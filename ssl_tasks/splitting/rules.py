"""From groups to splits: shares within strata, and folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.schema import SPLITS, TEST, TRAIN, VAL

Int = NDArray[np.int64]
Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Shares:
    """Of all rows; the rest is train."""

    test: float
    val: float


def cut(
    strata: NDArray[np.int32],
    sizes: Int,
    order: NDArray[np.int32],
    shares: Shares,
    owed: Mapping[str, float] | None = None,
) -> Int8:
    """A split for each group: within a stratum, groups in random order are cut where the shares say.

    What a stratum's cut leaves over is owed to the next, or a hundred classes of three rows would give no test
    row. A stratum's own shares stay within half its largest group, for single rows within their rounding.

    Args:
        strata: (G,) number of each group's stratum.
        sizes: (G,) rows.
        order: (G,) each group's place in a random order.
        owed: rows of test and val that are owed from the start: what earlier draws have left over.
    """
    decided = np.full(len(sizes), SPLITS.index(TRAIN), np.int8)
    ranked = np.lexsort((order, strata))
    starts = np.flatnonzero(np.diff(strata[ranked], prepend=-1))
    blocks = np.split(ranked, starts[1:])
    owed = {TEST: 0.0, VAL: 0.0, **(owed or {})}
    for block in sorted(blocks, key=lambda block: order[block[0]] if len(block) else 0):  # strata in random order too
        _cut_stratum(block, sizes[block], shares, owed, decided)
    return decided


def _cut_stratum(block: Int, sizes: Int, shares: Shares, owed: dict[str, float], decided: Int8) -> None:
    total, half = int(sizes.sum()), sizes.max(initial=0) / 2
    middles = np.cumsum(sizes, dtype=np.float64)
    middles -= sizes / 2
    place = passed = 0
    for name, share in ((TEST, shares.test), (VAL, shares.val)):
        end = passed + share * total + min(max(owed[name], -half), half)
        end = min(end, (shares.test + shares.val) * total + half)
        stop = max(place, int(np.searchsorted(middles, end)))
        decided[block[place:stop]] = SPLITS.index(name)
        took = int(sizes[place:stop].sum())
        owed[name] += share * total - took
        place, passed = stop, passed + took


def deal_folds(strata: NDArray[np.int32], sizes: Int, order: NDArray[np.int32], folds: int) -> Int:
    """(G,) number of each group's fold: dealt out stratum by stratum, large groups first, there and back.

    So of every stratum, and of all, each fold gets its share of groups, and nearly its share of rows.
    """
    ranked = np.lexsort((order, -sizes, strata))
    turn, place = np.divmod(np.arange(len(sizes)), folds)
    dealt = np.empty(len(sizes), np.int64)
    dealt[ranked] = np.where(turn % 2, folds - 1 - place, place)
    return dealt
