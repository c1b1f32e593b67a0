import itertools

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import split_table

from ssl_tasks.transfer.budgets import draw

LABELS = ["a"] * 20 + ["b"] * 9 + ["c"] * 3 + [None] * 8
SPLITS = ["train", "train", "train", "test"] * 10
PINNED = [[2, 6, 17, 28, 29], [5, 6, 16, 22, 29]]


def table() -> pa.Table:
    return split_table(LABELS, SPLITS)


def test_pinned_seed_gives_these_positions() -> None:
    assert draw(table(), 0.2, seed=0).tolist() == PINNED[0]
    assert draw(table(), 0.2, seed=1).tolist() == PINNED[1]


@pytest.mark.parametrize("seed", range(10))
def test_larger_budget_contains_smaller(seed: int) -> None:
    budgets = [set(draw(table(), fraction, seed)) for fraction in (0.01, 0.1, 0.25, 0.5, 0.9, 1.0)]
    assert all(small <= large for small, large in itertools.pairwise(budgets))
    assert len(budgets[0]) < len(budgets[3]) < len(budgets[-1])


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 1.0])
def test_shares_hold_within_every_class(fraction: float) -> None:
    names = np.array(LABELS, dtype=object)
    train = np.array(SPLITS) == "train"
    chosen = draw(table(), fraction, seed=3)
    for name in "abc":
        available = int((train & (names == name)).sum())
        assert (names[chosen] == name).sum() == max(1, int(fraction * available + 0.5))


def test_only_labelled_train_rows_are_drawn() -> None:
    chosen = draw(table(), 1.0, seed=0)
    assert chosen.tolist() == [i for i in range(40) if LABELS[i] is not None and SPLITS[i] == "train"]


def test_another_row_moves_no_other() -> None:
    before = set(draw(table().slice(0, 31), 0.5, seed=0))
    after = set(draw(table(), 0.5, seed=0))
    assert {row for row in after if LABELS[row] in "ab"} == {row for row in before if LABELS[row] in "ab"}


def test_without_labels_nothing_is_drawn() -> None:
    assert draw(split_table([None] * 4, ["train"] * 4), 0.5, seed=0).tolist() == []


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_fraction_outside_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="label fraction"):
        draw(table(), fraction, seed=0)
