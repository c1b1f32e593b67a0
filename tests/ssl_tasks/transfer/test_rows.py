from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import commit

from ssl_tasks.artifact import Artifact
from ssl_tasks.store import Output, Store
from ssl_tasks.transfer.rows import Held, Stored, TrainRows, hold
from ssl_tasks.transfer.strategies.linear_probe import standardize

FILE = "embeddings/pretrained.parquet"


def embedded(store: Store, values: np.ndarray) -> Artifact:
    def write(out: Output) -> None:
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])
        out.table(FILE, pa.table({"row": np.arange(len(values)), "embedding": column}))

    return commit(store, "embed", write, len(values))


@pytest.mark.parametrize(("rows", "width"), [(2, 3), (2048, 2), (5000, 7), (6144, 48)])
def test_mean_and_deviation_are_those_of_numpy_to_the_last_bit(store: Store, rows: int, width: int) -> None:
    random = np.random.default_rng(rows)
    values = (random.normal(size=(rows, width)) * 10 ** random.uniform(-3, 3, width)).astype(np.float32)
    train = np.flatnonzero(random.random(rows) < 0.7) if rows > 2 else np.arange(rows)
    whole = values.astype(np.float64)[train]
    for features in (Stored(embedded(store, values), FILE), values.astype(np.float64)):
        found = TrainRows([features], train)
        assert np.array_equal(found.mean(axis=0), whole.mean(axis=0))
        assert np.array_equal(found.std(axis=0), whole.std(axis=0))


def test_several_encoders_stand_side_by_side(store: Store) -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(3000, 3)).astype(np.float32), random.normal(size=(3000, 5))
    sides, train = [Stored(embedded(store, one), FILE), other], np.arange(0, 3000, 3)
    together = np.hstack([one.astype(np.float64), other])
    asked = np.array([1, 2047, 2048, 2999])
    prepare = standardize(TrainRows(sides, train))
    rows = Held(asked, prepare(np.hstack(hold(sides, asked))))
    expected = standardize(together[train])(together)
    assert np.array_equal(rows[np.array([2999, 1, 1])], expected[[2999, 1, 1]])


def test_rows_are_read_in_the_order_that_is_asked_for(store: Store) -> None:
    values = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    features = pickle.loads(pickle.dumps(Stored(embedded(store, values), FILE)))
    for positions in ([4999, 0, 2048, 0], [], [7]):
        found = features[np.array(positions, np.int64)]
        assert found.dtype == np.float64
        assert np.array_equal(found, values.astype(np.float64)[np.array(positions, np.int64)])


def test_rows_that_stand_together_are_not_copied() -> None:
    features = np.random.default_rng(0).normal(size=(6, 2))
    asked = np.array([1, 3, 5, 0, 2])
    rows = Held(asked, *hold([features], asked))
    together = rows[np.array([1, 3, 5])]
    assert together.base is rows.values
    assert not together.flags.writeable
    assert np.array_equal(together, features[[1, 3, 5]])
    apart = rows[np.array([0, 1, 2])]
    assert apart.base is None
    assert apart.flags.writeable
    assert np.array_equal(apart, features[[0, 1, 2]])


def test_rows_that_were_not_read_are_not_made_up() -> None:
    rows = Held(np.array([2, 5]), np.ones((2, 3)))
    for missing in ([3], [9], [0, 2]):
        with pytest.raises(KeyError, match="not among those that were read"):
            rows[np.array(missing)]


def test_rows_that_are_not_asked_for_take_no_memory(store: Store) -> None:
    """These are 13 MB as float64."""
    made = embedded(store, np.zeros((50_000, 32), np.float32))
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    features = Stored(made, FILE)
    prepare = standardize(TrainRows([features], np.arange(0, 50_000, 2)))
    (values,) = hold([features], np.arange(0, 50_000, 100))
    rows = Held(np.arange(0, 50_000, 100), prepare(values))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows.values) == 500
    assert peak < 5e6
    assert pa.total_allocated_bytes() - before < 1e6
