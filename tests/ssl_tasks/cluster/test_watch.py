"""A training that cannot go on is ended, with what it waits for, and is it worth another try? No Ray is started."""

import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock, patch

import pytest

from ssl_tasks.cluster import look, starts, train, watch
from ssl_tasks.cluster.connect import Connection
from ssl_tasks.cluster.nodes import Node
from ssl_tasks.cluster.watch import Cause, Standstill
from ssl_tasks.config import semantic
from ssl_tasks.errors import StageError, TryAgainError
from ssl_tasks.store import Store
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import FAILURE_FILE, STARTS


def job_of(store: Store, **config: Any) -> Any:
    return Mock(config=PretrainConfig(**config), partial="partial/x", out=Mock(store=store, attempt="a"))


def sleeping() -> None:
    time.sleep(30)


@pytest.mark.parametrize(
    ("minutes", "dead", "said"),
    [
        (0.01, "", r"no progress for 0\.01 minutes \(pretrain\.timeout_minutes\) at step 7: no CPU"),
        (0.0, "raylet", r"the local Ray has died \(raylet\)"),
    ],
)
def test_a_training_that_cannot_go_on_is_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch, minutes: float, dead: str, said: str
) -> None:
    monkeypatch.setattr(watch, "ask", lambda config, starts: Cause("no CPU"))
    store.write_json("partial/x/progress.json", {"step": 7, "loss": 1.0})
    trainer = Mock(fit=sleeping)
    with pytest.raises(TryAgainError, match=said):
        train._fit(job_of(store, timeout_minutes=minutes), trainer, Mock(dead=lambda: dead), use_gpu=False)
    assert trainer.let_go.called == (not dead)  # a Ray that is dead would be waited for


def test_ctrl_c_passes_through(store: Store) -> None:
    trainer = Mock(fit=Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train._fit(job_of(store), trainer, Mock(dead=lambda: ""), use_gpu=False)
    assert not trainer.let_go.called


def test_ranks_that_wait_for_one_that_has_failed_are_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FAILURE_GRACE_SECONDS", 0.0)
    store.write_json(f"partial/x/{FAILURE_FILE}", {"attempt": "a", "kind": "StageError", "message": "collapsed"})
    trainer = Mock(fit=sleeping)
    with pytest.raises(StageError, match=r"^collapsed$"):
        train._fit(job_of(store), trainer, Mock(dead=lambda: ""), use_gpu=False)
    assert trainer.let_go.called


def test_an_error_of_ray_after_its_death_is_worth_another_try(store: Store) -> None:
    fit = Mock(side_effect=RuntimeError("actor died"))
    with pytest.raises(TryAgainError, match="actor died"):
        train._fit(job_of(store), Mock(fit=fit), Mock(dead=lambda: "raylet"), use_gpu=False)
    with pytest.raises(StageError, match="actor died") as refused:
        train._fit(job_of(store), Mock(fit=fit), Mock(dead=lambda: ""), use_gpu=False)
    assert not isinstance(refused.value, TryAgainError)


@pytest.fixture
def clock() -> Mock:
    """Calling it gives the seconds."""
    return Mock(return_value=0.0)


def standstill(clock: Mock, cause: Callable[[bool], Cause], **config: float) -> Standstill:
    return Standstill(PretrainConfig(**config), cause, clock)


def test_half_an_hour_without_anything_new_is_too_long_by_default(clock: Mock) -> None:
    still = standstill(clock, lambda starts: Cause("of itself"))
    still.see({"step": 0, "note": "waiting for the first batch"})
    for minute in range(0, 100, 20):  # a step in each 20 minutes is progress
        clock.return_value = 60.0 * minute
        still.see({"step": minute})
        assert still.too_long() == ""
    clock.return_value += 60 * 30
    still.see({"step": 80})
    assert still.too_long() == ""
    clock.return_value += 1
    assert still.too_long() == "no progress for 30 minutes (pretrain.timeout_minutes) at step 80: of itself"


def test_zero_minutes_wait_for_ever(clock: Mock) -> None:
    still = standstill(clock, lambda starts: Cause("of itself"), timeout_minutes=0)
    clock.return_value = 1e9
    assert still.too_long() == ""


def test_workers_that_are_still_to_start_are_no_progress_whatever_is_noted(clock: Mock) -> None:
    still = standstill(clock, lambda starts: Cause(f"starts: {starts}"))
    for minute in range(0, 40, 10):
        clock.return_value = 60.0 * minute
        still.see({"step": 5, STARTS: True, "note": f"waiting for {minute} CPU, which others use"})
    assert still.too_long() == ""
    clock.return_value += 1
    assert still.too_long().endswith("at step 5: starts: True")
    still.see({"step": 5, "note": "building the model"})
    assert still.too_long() == ""


def test_what_others_use_is_waited_for_longer(clock: Mock) -> None:
    still = standstill(clock, lambda starts: Cause("workers wait", others=True), timeout_minutes=10, queue_minutes=60)
    still.see({"step": 0, STARTS: True})
    ends = []
    for minute in range(1, 80):
        clock.return_value = 60.0 * minute
        if said := still.too_long():
            ends.append((minute, said))
    assert ends[0] == (66, "workers wait, for 60 minutes (pretrain.queue_minutes)")  # looked at after each 11


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A cluster of two nodes of 4 CPUs, nothing of which is in use."""
    ray = Mock()
    ray.available_resources.return_value = {"CPU": 8.0}
    ray.util.placement_group_table.return_value = {"1": {"state": "REMOVED"}, "2": {"state": "CREATED"}}
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(look, "table", lambda: [Node("a", {"CPU": 4}), Node("b", {"CPU": 4})])
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    return ray


def test_what_workers_wait_for_is_said(ray: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PretrainConfig(num_workers=4, use_gpu=False)
    assert watch.ask(config, True).said.startswith("workers do not start, although the cluster has room")
    ray.util.placement_group_table.return_value["3"] = {"state": "PENDING"}
    ray.available_resources.return_value = {"CPU": 3.0}
    assert watch.ask(config, True) == Cause("workers wait for 5 CPU, which other work on the cluster uses", others=True)
    monkeypatch.setattr(look, "table", lambda: [Node("a", {"CPU": 4})])
    lost = watch.ask(config, True)
    assert (lost.said[:55], lost.others) == ("workers cannot start: pretrain.num_workers: this run ne", False)
    assert lost.said.endswith("the Ray cluster has 4 CPU on 1 nodes; set pretrain.num_workers=2 or less, or add nodes")


def test_what_a_training_waits_for_is_said(ray: Mock) -> None:
    config = PretrainConfig(use_gpu=False)
    assert "every node read the store?" in watch.ask(config, False).said
    ray.available_resources.return_value = {"CPU": 0.5}
    assert watch.ask(config, False).said.startswith("no CPU of the cluster is free for the feed")
    ray.available_resources.side_effect = ConnectionError
    assert watch.ask(config, False) == Cause("Ray does not answer")


def test_a_lost_gpu_node_is_not_made_up_for_by_cpus(ray: Mock) -> None:
    said = watch.ask(PretrainConfig(use_gpu=True), True).said
    assert said == "workers cannot start: pretrain.use_gpu: the Ray cluster has no GPU; set it to auto or false"


def test_workers_that_start_again_are_told_with_the_step_they_go_on_from(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 1.0})
    job, path = job_of(store, num_workers=2), "partial/x/progress.json"
    job.last_step, job.total_steps = 9, 10
    callback = starts.TellsStarts(job, use_gpu=False)
    callback.before_worker_group_start(None)
    first = {"step": 0, "total_steps": 10, "note": "waiting for 3 CPU, which others use", STARTS: True}
    assert store.read_json(path) == first
    store.write_json(path, {"step": 7, "loss": 1.0})
    callback.after_worker_group_shutdown(None)
    assert store.read_json(path) == {**first, "step": 7}
    store.write_json(path, {"step": 9, "loss": 1.0})
    callback.after_worker_group_shutdown(None)  # at the end
    assert store.read_json(path) == {"step": 9, "loss": 1.0}


def test_time_limits_change_no_fingerprint() -> None:
    assert semantic(PretrainConfig(timeout_minutes=1, queue_minutes=2)) == semantic(PretrainConfig())


def test_a_process_of_ray_that_died_is_named() -> None:
    nodes = {"raylet": [("log_monitor", Mock()), ("raylet", Mock())], "": [("log_monitor", Mock())]}
    for said, ended in nodes.items():
        with patch("ray._private.worker._global_node", Mock(dead_processes=lambda ended=ended: ended)):
            assert Connection(embedded=True).dead() == said
            assert Connection(embedded=False).dead() == ""  # not ours to judge
