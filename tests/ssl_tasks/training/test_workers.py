"""What a training sees and learns is the same for 1, 2 and 4 workers.

The long version, 50 steps of more methods and precisions, is `tests/benchmarks/equal_results.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests_equal import CASES, losses
from tests_loop import make_job

from ssl_tasks.training.views import make_views

STEPS = 6
FOUR = ("simclr fp64 batch", "byol fp64 batch", "mae fp64 layer")


@pytest.mark.parametrize("name", FOUR)
def test_samples_and_views_of_a_step_are_the_same_for_1_2_and_4_workers(name: str) -> None:
    job = make_job(**CASES[name].options)
    for step in (0, 7, job.plan.steps_per_epoch + 1):  # of two epochs
        whole = make_views(job, step, 0, 1)
        for world in (2, 4):
            parts = [make_views(job, step, rank, world) for rank in range(world)]
            assert set(parts[0]) == set(whole)
            for key, values in whole.items():
                assert np.array_equal(np.concatenate([part[key] for part in parts]), values), (step, world, key)
    assert not np.array_equal(make_views(job, 0, 0, 1)["positions"], make_views(job, 1, 0, 1)["positions"])


def some_steps() -> list[list[float]]:
    return [losses(name, STEPS) for name in FOUR]


def test_loss_curves_are_the_same_for_1_and_4_workers(four_ranks: Any, request: pytest.FixtureRequest) -> None:
    alone = some_steps()
    for together in four_ranks.run(request.path, some_steps.__name__):
        for name, mine, theirs in zip(FOUR, alone, together, strict=True):
            assert len(mine) == STEPS
            assert len(set(mine)) == STEPS
            np.testing.assert_allclose(theirs, mine, rtol=0, atol=CASES[name].tolerance, err_msg=name)
