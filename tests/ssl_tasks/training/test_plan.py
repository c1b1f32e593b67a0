"""Which rows a step sees: exact, whole, and the same for any number of workers."""

import numpy as np
import pytest

from ssl_tasks.training.plan import Plan


def make(num: int = 100, batch: int = 8, seed: int = 0, window: int = 64, shard: int = 16) -> Plan:
    starts = np.arange(0, 2 * num + shard, shard)
    return Plan(np.arange(0, 2 * num, 2), starts, batch, seed, window)


def test_an_epoch_sees_every_row_at_most_once_and_all_but_the_rest() -> None:
    plan = make()
    seen = np.concatenate([plan.rows(step) for step in range(plan.steps_per_epoch)])
    assert plan.steps_per_epoch == 12
    assert len(seen) == len(set(seen)) == 96
    assert set(seen) <= set(plan.positions)
    assert sorted(plan.order(0)) == sorted(plan.positions)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_put_together_are_the_batch(world: int) -> None:
    plan = make()
    for step in (0, 5, 12, 40):
        together = np.concatenate([plan.rows(step, rank, world) for rank in range(world)])
        assert np.array_equal(together, plan.rows(step))


def test_epochs_and_seeds_differ_and_are_repeatable() -> None:
    assert not np.array_equal(make().order(0), make().order(1))
    assert not np.array_equal(make().order(0), make(seed=1).order(0))
    assert np.array_equal(make().order(3), make().order(3))


def test_the_order_is_pinned() -> None:
    """It is part of what a fingerprint promises: a change needs a new stage version."""
    assert make(num=12, batch=4).order(0).tolist() == [0, 14, 12, 2, 20, 6, 16, 22, 10, 18, 4, 8]


def test_windows_of_shards_bound_what_is_read_at_a_time() -> None:
    plan = make(num=128, window=2)
    order = plan.order(0)
    for first in range(0, 128, 16):  # a shard of 16 positions holds 8 train rows; two shards are a window
        assert len({position // 16 for position in order[first : first + 16]}) == 2
    assert sorted(order) == sorted(plan.positions)
