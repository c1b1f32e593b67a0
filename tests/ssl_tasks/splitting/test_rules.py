"""Shares within strata, and folds, on groups of many sizes."""

import numpy as np
import pytest

from ssl_tasks.schema import SPLITS
from ssl_tasks.splitting import groups
from ssl_tasks.splitting.groups import Grouped, hex_keys, leaked_rows, number_groups
from ssl_tasks.splitting.rules import Shares, cut, deal_folds

TEST, VAL = SPLITS.index("test"), SPLITS.index("val")


def order(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)


def naive_cut(strata: np.ndarray, sizes: np.ndarray, order: np.ndarray, shares: Shares) -> np.ndarray:
    """The rule of `cut`, group by group."""
    decided = np.zeros(len(sizes), int)
    owed = {TEST: 0.0, VAL: 0.0}
    blocks = {s: sorted(np.flatnonzero(strata == s), key=lambda g: order[g]) for s in set(strata.tolist())}
    for stratum in sorted(blocks, key=lambda s: order[blocks[s][0]]):
        block = blocks[stratum]
        total, half = sum(sizes[g] for g in block), max(sizes[g] for g in block) / 2
        place = passed = 0
        for name, share in ((TEST, shares.test), (VAL, shares.val)):
            began = passed
            end = min(
                began + share * total + min(max(owed[name], -half), half), (shares.test + shares.val) * total + half
            )
            while place < len(block) and passed + sizes[block[place]] / 2 < end:
                decided[block[place]] = name
                passed += sizes[block[place]]
                place += 1
            owed[name] += share * total - (passed - began)
    return decided


@pytest.mark.parametrize("seed", range(8))
def test_the_cut_is_that_of_the_naive_rule(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = 400
    strata = random.integers(0, [1, 3, 40, 150][seed % 4], count).astype(np.int32)
    sizes = random.integers(1, [2, 2, 9, 30][seed // 2], count)
    shares = Shares(test=0.2, val=0.1)
    assert np.array_equal(
        cut(strata, sizes, order(count, seed), shares), naive_cut(strata, sizes, order(count, seed), shares)
    )


def test_shares_are_met_in_every_stratum() -> None:
    strata = np.repeat(np.arange(10, dtype=np.int32), 100)
    found = cut(strata, np.ones(1000, np.int64), order(1000), Shares(test=0.2, val=0.1))
    for stratum in range(10):
        here = found[strata == stratum]
        assert (here == TEST).sum() == 20
        assert (here == VAL).sum() == 10


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_part_the_groups_evenly(folds: int) -> None:
    random = np.random.default_rng(1)
    strata = random.integers(0, 7, 350).astype(np.int32)
    sizes = np.ones(350, np.int64)
    dealt = deal_folds(strata, sizes, order(350), folds)
    for stratum in range(7):
        counts = np.bincount(dealt[strata == stratum], minlength=folds)
        assert counts.max() - counts.min() <= 2  # a stratum may begin and end in the middle of a turn
    counts = np.bincount(dealt, minlength=folds)
    assert counts.max() - counts.min() <= 1


def test_large_groups_are_spread_over_the_folds() -> None:
    sizes = np.array([50, 49, 48, 47, 46, *[1] * 60])
    dealt = deal_folds(np.zeros(65, np.int32), sizes, order(65), 5)
    assert sorted(dealt[:5].tolist()) == [0, 1, 2, 3, 4]
    rows = np.bincount(dealt, sizes, minlength=5)
    assert rows.max() - rows.min() <= 4


def test_groups_are_numbered_by_key() -> None:
    keys = np.array([9, 2, 9, 5, 2, 9], np.uint64)
    group, key, size = number_groups(keys)
    assert key.tolist() == [2, 5, 9]
    assert size.tolist() == [2, 1, 3]
    assert group.tolist() == [2, 0, 2, 1, 0, 2]


def test_hex_ids_become_their_first_64_bits() -> None:
    import pyarrow as pa

    names = pa.chunked_array([["00000000000000ff" + "0" * 16, "f" * 32]])
    assert hex_keys(names).tolist() == [255, 2**64 - 1]


def test_leaked_rows_are_test_rows_with_a_mate_in_train() -> None:
    group = np.array([0, 0, 1, 1, 2, 3, 3, 3])
    splits = np.array([0, 2, 2, 2, 2, 1, 2, 0], np.int8)
    assert leaked_rows(group, splits) == 2


def test_an_order_that_is_drawn_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 1000).astype(np.uint64)
    nothing = np.zeros(0, np.int64)
    found = Grouped(nothing, nothing.astype(np.int32), nothing.astype(np.int8), keys, nothing, nothing.astype(np.int32))
    whole = found.random_order(3)
    assert sorted(whole.tolist()) == list(range(1000))
    monkeypatch.setattr(groups, "PART", 7)
    assert np.array_equal(found.random_order(3), whole)
