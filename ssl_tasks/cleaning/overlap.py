"""Samples of one data set that another one holds too, equal or nearly so: what `clean` made of both tells.

overlap(seen, tested, threshold=0.9)      # of each sample of `tested`, the most alike one of `seen`
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.near import find_near
from ssl_tasks.cleaning.scan import PRINT, PRINTS, SIGNATURE
from ssl_tasks.schema import CONTENT_KEY, GROUPS_FILE, ROW
from ssl_tasks.shards import Shards, member

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Some:
    """Some of the rows that a clean artifact kept."""

    cleaned: Artifact
    rows: Int
    """Ascending."""


@dataclass(frozen=True)
class Overlap:
    """Pairs of a tested row and the most alike one that was seen, by tested row, ascending."""

    tested: Int
    seen: Int
    similarity: NDArray[np.float32]
    """1 for equal ones."""
    equal: NDArray[np.bool_]


def comparable(seen: Artifact, tested: Artifact) -> bool:
    """Whether keys and prints of both mean the same: those of other versions of `clean` or of a modality may not."""
    return seen.manifest.versions == tested.manifest.versions


def overlap(seen: Some, tested: Some, threshold: float | None) -> Overlap:
    """Rows of `tested` that have a duplicate in `seen`.

    Args:
        threshold: how alike near duplicates are at least, as `clean.near_duplicates`; None asks for equal ones only,
            as where the modality makes no prints.
    """
    rows, others = _equal(seen, tested)
    found = Overlap(rows, others, np.ones(len(rows), np.float32), np.ones(len(rows), bool))
    if threshold is None or not all(some.cleaned.names(f"{PRINTS}/") for some in (seen, tested)):
        return found
    rest = Some(tested.cleaned, np.setdiff1d(tested.rows, rows, assume_unique=True))
    near = _near(seen, rest, threshold)
    order = np.argsort(np.concatenate([found.tested, near.tested]), kind="stable")
    return Overlap(
        *(
            np.concatenate([getattr(part, name) for part in (found, near)])[order]
            for name in ("tested", "seen", "similarity", "equal")
        )
    )


def _equal(seen: Some, tested: Some) -> tuple[Int, Int]:
    """Tested rows whose content is among what was seen, and the first row there that has it."""
    keys, first = np.unique(_keys(seen), return_index=True)
    wanted = _keys(tested)
    hit = np.flatnonzero(member(wanted, keys))
    return tested.rows[hit], seen.rows[first[np.searchsorted(keys, wanted[hit])]]


def _keys(some: Some) -> NDArray[np.uint64]:
    """(N,) content keys of the rows, in their order."""
    keys = np.empty(len(some.rows), np.uint64)
    first = 0
    for batch in some.cleaned.batches(GROUPS_FILE, [ROW, CONTENT_KEY]):
        found = batch[CONTENT_KEY].to_numpy()[member(batch[ROW].to_numpy(), some.rows)]
        keys[first : first + len(found)] = found
        first += len(found)
    assert first == len(keys), "clean knows every row that it kept"
    return keys


def _near(seen: Some, tested: Some, threshold: float) -> Overlap:
    """Of each tested row that has any, the most alike one that was seen."""
    paths = [[some.cleaned.path(name) for name in some.cleaned.names(f"{PRINTS}/")] for some in (seen, tested)]
    signatures, prints = (Shards.map([*paths[0], *paths[1]], column) for column in (SIGNATURE, PRINT))
    known, own = (np.concatenate(Shards.map(some, SIGNATURE).rows) for some in paths)
    border = len(known)
    positions = np.concatenate([np.searchsorted(known, seen.rows), border + np.searchsorted(own, tested.rows)])
    pairs = find_near(signatures, prints, positions, threshold, across=border)
    order = np.lexsort((pairs.first, -pairs.similarity, pairs.second))  # of equally alike ones the first
    rows, best = np.unique(pairs.second[order], return_index=True)
    chosen = order[best]
    return Overlap(
        own[rows - border], known[pairs.first[chosen]], pairs.similarity[chosen], np.zeros(len(chosen), bool)
    )
