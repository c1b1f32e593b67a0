"""SIGKILL of the whole process group inside every stage, and in the middle of training; then `rerun`.

Not part of the test command (a quarter of an hour): `pytest tests/faults`. After each kill the run is continued,
and every artifact's data checksum must equal that of a run that nobody disturbed.
"""

from pathlib import Path
from typing import Any

import pytest
from tests_runs import CHECKPOINT_EVERY, MINUTES, Run, checksums, step_of, wait_for, write_recipe

from flows.dag import DAG

STAGES = [stage.name for stage in DAG]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    return write_recipe(folder)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, recipe: Path) -> dict[str, str]:
    Run(folder / "whole", "run", str(recipe)).finish()
    return checksums(folder / "whole")


def is_making(store: Path, stage: str) -> bool:
    """Whether the run record says that all stages before this one are there and a lease is held."""
    done = set(checksums(store))
    return set(STAGES[: STAGES.index(stage)]) <= done and any(store.glob("leases/*.json"))


def check_after_kill(run: Run, undisturbed: dict[str, str]) -> dict[str, Any]:
    assert run.left_behind() == []
    answer = Run(run.store, "rerun").finish()
    assert checksums(run.store) == undisturbed
    return answer


@pytest.mark.timeout(15 * MINUTES)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_inside_a_stage(stage: str, folder: Path, recipe: Path, undisturbed: dict[str, str]) -> None:
    run = Run(folder / f"killed-in-{stage}", "run", str(recipe))
    wait_for(lambda: is_making(run.store, stage), run)
    run.kill_group()
    assert stage not in checksums(run.store)
    answer = check_after_kill(run, undisturbed)
    status = {entry["name"]: entry["status"] for entry in answer["stages"]}
    assert all(status[name] == "cached" for name in STAGES[: STAGES.index(stage)])
    assert all(status[name] == "ran" for name in STAGES[STAGES.index(stage) :])


@pytest.mark.timeout(15 * MINUTES)
@pytest.mark.parametrize("step", [33, 71])
def test_killed_in_the_middle_of_training(step: int, folder: Path, recipe: Path, undisturbed: dict[str, str]) -> None:
    run = Run(folder / f"killed-at-{step}", "run", str(recipe))
    wait_for(lambda: step_of(run.store) >= step, run)
    run.kill_group()
    answer = check_after_kill(run, undisturbed)
    # a checkpoint in so many steps, and one more that was being written
    assert answer["metrics"]["pretrain"]["resumed_at"] >= step - 2 * CHECKPOINT_EVERY
