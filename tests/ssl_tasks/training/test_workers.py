"""What a training sees and learns is the same for 1, 2 and 4 workers.

The long version, 50 steps of more methods and precisions, is `tests/benchmarks/equal_results.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_equal import CASES, losses
from tests_loop import make_job, train

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


MOVED = {**CASES["byol fp64 batch"].options, "precision": "fp64", "checkpoint_every_steps": 4, "max_steps": 10}
PLACE = "TEST_PLACE"


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that names the job to go on with; ranks inherit its path."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("place") / "job.json"
        patch.setenv(PLACE, str(path))
        yield path


def stopped() -> list[str]:
    """Broken off two steps after a checkpoint; where that lies."""
    job = make_job(**MOVED)
    train(job, stop=6)
    return [job.out.uri, job.out.fingerprint]


def continued() -> dict[str, list[float]]:
    uri, fingerprint = json.loads(Path(os.environ[PLACE]).read_text())
    trainer = train(make_job(**MOVED, place=(uri, fingerprint)))
    return {**trainer.history, "resumed_at": [float(trainer.resumed_at or 0)]}


@pytest.mark.parametrize("first", [4, 1])
def test_a_run_goes_on_with_another_number_of_workers(
    first: int, four_ranks: Any, place: Path, request: pytest.FixtureRequest
) -> None:
    """1 after 4 and 4 after 1 end as one that was not disturbed: the right step, the right rows, the whole batch."""
    whole = train(make_job(**MOVED)).history
    where = four_ranks.run(request.path, "stopped")[0] if first == 4 else stopped()
    place.write_text(json.dumps(where))
    for found in [continued()] if first == 4 else four_ranks.run(request.path, "continued"):
        assert found["resumed_at"] == [4.0]
        assert found["step"] == whole["step"] == list(range(10))
        assert found["lr"] == whole["lr"]
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(found[name], whole[name], rtol=0, atol=1e-8, err_msg=name)
