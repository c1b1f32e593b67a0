import itertools

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import split_table

from ssl_tasks.transfer.budgets import Budget, draw, limit

LABELS = ["a"] * 20 + ["b"] * 9 + ["c"] * 3 + [None] * 8
SPLITS = ["train", "train", "train", "test"] * 10
PINNED = [[2, 6, 17, 28, 29], [5, 6, 16, 22, 29]]


def table() -> pa.Table:
    return split_table(LABELS, SPLITS)


def test_pinned_seed_gives_these_positions() -> None:
    assert draw(table(), Budget(0.2), seed=0).tolist() == PINNED[0]
    assert draw(table(), Budget(0.2), seed=1).tolist() == PINNED[1]


@pytest.mark.parametrize("seed", range(10))
def test_larger_budget_contains_smaller(seed: int) -> None:
    budgets = [set(draw(table(), Budget(fraction), seed)) for fraction in (0.01, 0.1, 0.25, 0.5, 0.9, 1.0)]
    assert all(small <= large for small, large in itertools.pairwise(budgets))
    assert len(budgets[0]) < len(budgets[3]) < len(budgets[-1])


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 1.0])
def test_shares_hold_within_every_class(fraction: float) -> None:
    names = np.array(LABELS, dtype=object)
    train = np.array(SPLITS) == "train"
    chosen = draw(table(), Budget(fraction), seed=3)
    for name in "abc":
        available = int((train & (names == name)).sum())
        assert (names[chosen] == name).sum() == max(1, int(fraction * available + 0.5))


def test_only_labelled_train_rows_are_drawn() -> None:
    chosen = draw(table(), Budget(1.0), seed=0)
    assert chosen.tolist() == [i for i in range(40) if LABELS[i] is not None and SPLITS[i] == "train"]


def test_another_row_moves_no_other() -> None:
    before = set(draw(table().slice(0, 31), Budget(0.5), seed=0))
    after = set(draw(table(), Budget(0.5), seed=0))
    assert {row for row in after if LABELS[row] in "ab"} == {row for row in before if LABELS[row] in "ab"}


def test_without_labels_nothing_is_drawn() -> None:
    assert draw(split_table([None] * 4, ["train"] * 4), Budget(0.5), seed=0).tolist() == []


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_fraction_outside_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="label fraction"):
        Budget(fraction)


@pytest.mark.parametrize("seed", range(5))
def test_labels_per_class_are_nested_prefixes_of_the_same_order(seed: int) -> None:
    names = np.array(LABELS, dtype=object)
    one, two = (draw(table(), Budget(per_class=count), seed) for count in (1, 2))
    assert [(names[one] == name).sum() for name in "abc"] == [1, 1, 1]
    assert [(names[two] == name).sum() for name in "abc"] == [2, 2, 2]
    assert set(one) < set(two) < set(draw(table(), Budget(1.0), seed))
    assert set(one) == set(draw(table(), Budget(0.001), seed))  # one row a class either way


def test_a_limit_takes_the_same_share_of_each_class_from_the_front() -> None:
    names = np.array(LABELS, dtype=object)
    every = draw(table(), Budget(1.0), seed=4)
    some = limit(table(), every, 12, seed=4)
    share = 12 / len(every)
    for name in "abc":
        assert (names[some] == name).sum() == max(1, int(share * (names[every] == name).sum()))
    assert set(some) < set(every)
    assert set(limit(table(), every, 6, seed=4)) < set(some)
    assert limit(table(), every, len(every), seed=4).tolist() == every.tolist()
