"""Checkpoints: whole or passed over, bounded in number, a snapshot of the moment they were taken."""

from pathlib import Path

import pytest
import torch

from ssl_tasks.store import Store
from ssl_tasks.training.checkpoints import Checkpoints
from ssl_tasks.training.job import checkpoint_steps


@pytest.fixture
def checkpoints(store: Store) -> Checkpoints:
    return Checkpoints(store, "partial/x", keep=2)


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((3,), float(step)), "history": {"loss": [0.5] * step}}


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, state(step))
    checkpoints.wait()


def test_the_newest_is_loaded_and_old_ones_go(checkpoints: Checkpoints) -> None:
    assert checkpoints.load() is None
    save(checkpoints, 10, 20, 30)
    assert checkpoint_steps(checkpoints.store, "partial/x") == [20, 30]
    loaded = checkpoints.load()
    assert loaded["step"] == 30
    assert torch.equal(loaded["weights"], state(30)["weights"])
    assert loaded["history"] == state(30)["history"]
    assert len(checkpoints.store.list("partial/x")) == 4


def test_later_steps_do_not_change_a_snapshot(checkpoints: Checkpoints) -> None:
    live = state(10)
    checkpoints.save(10, live)
    live["weights"].zero_()
    live["history"]["loss"].append(99.0)
    checkpoints.wait()
    loaded = checkpoints.load()
    assert torch.equal(loaded["weights"], state(10)["weights"])
    assert loaded["history"] == state(10)["history"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "no state", "no marker"])
def test_a_damaged_checkpoint_is_passed_over(checkpoints: Checkpoints, damage: str) -> None:
    save(checkpoints, 10, 20)
    folder = Path(checkpoints.store.full("partial/x"))
    newest = folder / "step-00000020.pt"
    data = newest.read_bytes()
    if damage == "cut":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        newest.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    else:
        (newest if damage == "no state" else newest.with_suffix(".json")).unlink()
    assert checkpoints.load()["step"] == 10


def test_a_failed_write_is_told_at_the_next_chance(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, data: bytes) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints.store, "write_bytes", full)
    checkpoints.save(10, state(10))
    with pytest.raises(OSError, match="no space"):
        checkpoints.wait()
