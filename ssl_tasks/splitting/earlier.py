"""What an earlier run decided: its rows keep their split, so that a test row never turns into a train row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import CONTENT_ID, CONTENT_KEY, GROUPS_FILE, ROW, SPLIT, SPLITS, SPLITS_FILE, TEST
from ssl_tasks.splitting.groups import NOT_GIVEN, hex_keys, side_by_side
from ssl_tasks.store import Output
from ssl_tasks.store.references import parent, resolve

KEY = "split.earlier"
Int8 = NDArray[np.int8]
Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class Earlier:
    """The earlier decisions on N kept rows of this run."""

    splits: Int8
    """(N,) the split that the row's content had, or `NOT_GIVEN`."""
    num_test: int
    """Test rows of the earlier split."""
    num_lost: int
    """Those of them that are not in this run."""

    def warnings(self) -> list[str]:
        """What the user should know."""
        if not self.num_lost:
            return []
        return [
            f"{self.num_lost:,} of {self.num_test:,} test rows of split.earlier are not in the data any more; where "
            "they are there in another form (scaled, compressed anew), they may now stand in train"
        ]


def earlier_splits(reference: str, out: Output, ingested: Artifact, cleaned: Artifact) -> Earlier:
    """What stood in the artifact that `split.earlier` names.

    Rows are recognized by their bytes and by their decoded content: a file may have been renamed or saved anew.

    Raises:
        RequestError: there is no split artifact of that name, or none of its rows is here.
    """
    earlier = resolve(reference, out, key=KEY, stage="split", role="earlier")
    theirs, splits = _kept_earlier(earlier)
    ours = _identities(ingested, cleaned)
    found = np.full(cleaned.rows, NOT_GIVEN, np.int8)
    lost = splits == SPLITS.index(TEST)
    num_test = int(lost.sum())
    for before, now in zip(theirs, ours, strict=True):
        found = np.maximum(found, _looked_up(before, splits, now))  # test outranks val, and val train
        lost &= ~np.isin(before, now)
    if not (found != NOT_GIVEN).any():
        raise RequestError(f"{KEY}: none of the {earlier.rows:,} samples of {reference} is in this data")
    return Earlier(found, num_test, int(lost.sum()))


def _identities(ingested: Artifact, cleaned: Artifact) -> tuple[Keys, Keys]:
    """(N,) of the bytes and (N,) of the decoded content of the rows that clean kept."""
    contents, keys = [], []
    for kept, identity in side_by_side(ingested, cleaned.batches(GROUPS_FILE), [CONTENT_ID]):
        contents.append(hex_keys(identity[CONTENT_ID]))
        keys.append(kept[CONTENT_KEY].to_numpy())
    return np.concatenate(contents), np.concatenate(keys)


def _kept_earlier(earlier: Artifact) -> tuple[tuple[Keys, Keys], Int8]:
    """The same of the earlier split's rows, and their splits."""
    ingested = parent(earlier, "ingest", key=KEY)
    cleaned = parent(parent(earlier, "assign", key=KEY), "clean", key=KEY)
    if CONTENT_KEY not in cleaned.manifest.schemas.get(GROUPS_FILE, ""):
        raise RequestError(f"{KEY}: {earlier.fingerprint} is of an earlier version of pretextflow; make it anew")
    table = earlier.table(SPLITS_FILE, [ROW, SPLIT])
    place = np.searchsorted(cleaned.table(GROUPS_FILE, [ROW])[ROW].to_numpy(), table[ROW].to_numpy())
    contents, keys = (of_row[place] for of_row in _identities(ingested, cleaned))
    return (contents, keys), pc.index_in(table[SPLIT], pa.array(SPLITS)).to_numpy().astype(np.int8)


def _looked_up(before: Keys, splits: Int8, now: Keys) -> Int8:
    """(N,) the highest split of the earlier rows with each of these keys, or `NOT_GIVEN`."""
    order = np.lexsort((-splits, before))
    ordered = before[order]
    place = np.searchsorted(ordered, now).clip(0, len(ordered) - 1)
    return np.where(ordered[place] == now, splits[order[place]], NOT_GIVEN).astype(np.int8)
