import numpy as np
from tests_planted import commit, split_table

from ssl_tasks.splitting.read import positions_of, split_numbers
from ssl_tasks.store import Store


def test_splits_are_read_as_numbers_in_the_order_of_the_rows(store: Store) -> None:
    names = np.random.default_rng(0).choice(["train", "val", "test"], 20_000)  # more than two parts
    rows = split_table([None] * len(names), names.tolist())
    split = commit(store, "split", lambda out: out.table("splits.parquet", rows), len(names))
    assert split_numbers(split).tolist() == [("train", "val", "test").index(name) for name in names]
    for name in ("train", "val", "test"):
        assert np.array_equal(positions_of(split, name), np.flatnonzero(names == name))
