"""What an earlier run decided: its rows keep their split, so that a test row never turns into a train row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import CONTENT_ID, GROUPS_FILE, SPLIT, SPLITS, SPLITS_FILE
from ssl_tasks.splitting.groups import NOT_GIVEN, hex_keys, side_by_side
from ssl_tasks.store import Output
from ssl_tasks.store.references import resolve


def earlier_splits(reference: str, out: Output, ingested: Artifact, cleaned: Artifact) -> NDArray[np.int8]:
    """(N,) the split that each kept row's content had earlier, or `NOT_GIVEN`.

    Rows are recognized by content: a file may have been renamed since.

    Raises:
        RequestError: there is no split artifact of that name.
    """
    earlier = resolve(reference, out, key="split.earlier", stage="split", role="earlier")
    contents, splits = _contents(earlier)
    found = np.full(cleaned.rows, NOT_GIVEN, np.int8)
    first = 0
    for kept, identity in side_by_side(ingested, cleaned.batches(GROUPS_FILE), [CONTENT_ID]):
        keys = hex_keys(identity[CONTENT_ID])
        place = np.searchsorted(contents, keys).clip(0, len(contents) - 1)
        found[first : first + kept.num_rows] = np.where(contents[place] == keys, splits[place], NOT_GIVEN)
        first += kept.num_rows
    return found


def _contents(earlier: Artifact) -> tuple[NDArray[np.uint64], NDArray[np.int8]]:
    """Sorted content keys and the split of each; of equal ones the highest."""
    store = earlier.store
    ingested = store.handle(store.manifest(earlier.manifest.parents["ingest"]))
    keys, splits = [], []
    for kept, identity in side_by_side(ingested, earlier.batches(SPLITS_FILE), [CONTENT_ID]):
        keys.append(hex_keys(identity[CONTENT_ID]))
        splits.append(pc.index_in(kept[SPLIT], pa.array(SPLITS)).to_numpy().astype(np.int8))
    all_keys, all_splits = np.concatenate(keys), np.concatenate(splits)
    order = np.lexsort((-all_splits, all_keys))
    all_keys, all_splits = all_keys[order], all_splits[order]
    first = np.append(True, all_keys[1:] != all_keys[:-1])
    return all_keys[first], all_splits[first]
