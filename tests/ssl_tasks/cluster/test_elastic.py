"""A range of workers: which numbers may train, what is refused, and when their number changes. Without a running Ray.

`tests/faults/elastic.py` kills a node under a training, and adds one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from ssl_tasks.cluster import look
from ssl_tasks.cluster.nodes import Node
from ssl_tasks.cluster.room import Demand, largest, room
from ssl_tasks.cluster.train import _workers_here
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.pretrain import check
from ssl_tasks.training.config import PretrainConfig


def config(workers: Any, **options: Any) -> PretrainConfig:
    return PretrainConfig.model_validate({"num_workers": workers, "use_gpu": False, "batch_size": 256, **options})


@pytest.mark.parametrize(
    ("workers", "options", "sizes"),
    [
        (3, {"batch_size": 6}, (3,)),
        ([1, 8], {}, (1, 2, 4, 8)),
        ([3, 8], {}, (4, 8)),
        ([1, 8], {"batch_size": 48}, (1, 2, 3, 4, 6, 8)),
        ([1, 8], {"batch_size": 16, "accumulate": 4}, (1, 2, 4)),
        ([2, 10**9], {"batch_size": 6}, (2, 3, 6)),
        ([5, 7], {}, ()),
    ],
)
def test_only_numbers_that_share_the_batch_evenly_train(
    workers: Any, options: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    made = config(workers, **options)
    assert made.world_sizes == sizes
    assert made.is_elastic == (len(sizes) > 1)
    for size in sizes:
        assert made.batch_size % (size * made.accumulate) == 0


def test_a_range_is_left_out_of_the_fingerprint_and_comes_back_from_json() -> None:
    made = config([1, 4])
    assert semantic(made) == semantic(config(1))
    assert PretrainConfig.model_validate_json(made.model_dump_json()) == made
    assert config((2, 2)).world_sizes == (2,)


@pytest.mark.parametrize("workers", [0, [0, 2], [4, 2], [1, 2, 3], [1], "many", 1.5, None])
def test_what_is_no_range_is_one_message(workers: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        config(workers)
    assert len(refused.value.errors()) == 1
    assert "the least" in str(refused.value)


@pytest.mark.parametrize(
    ("workers", "options", "words"),
    [
        ([5, 7], {}, r"pretrain\.batch_size: 256 cannot be shared by 5 to 7 workers in 1 parts; use a multiple of 5"),
        (3, {}, r"pretrain\.batch_size: 256 cannot be shared by 3 workers in 1 parts; use a multiple of 3"),
        ([1, 4], {"sync_batch_norm": False}, r"pretrain\.num_workers: with \[1, 2, 4\] workers the batch statistics"),
        ([1, 4], {"gpus_per_worker": 0.5}, r"pretrain\.gpus_per_worker"),
    ],
)
def test_ranges_that_cannot_work_are_refused(workers: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check(config(workers, **options))


def node(name: str = "a", cpus: float = 4) -> Node:
    return Node(name, {"CPU": cpus})


def test_a_cluster_must_hold_the_least_and_gives_the_most_it_can() -> None:
    assert Demand.of(config([2, 8]), use_gpu=False).num_workers == 2
    assert room([node(cpus=3)], config([2, 8])).level == "fail"
    assert "this run needs 4 CPU" in str(room([node(cpus=3)], config([2, 8])))
    found = room([node(), node("b"), node("c", 3)], config([2, 8]))  # 11 CPUs: 5 workers and their feed, of which 4
    assert (found.level, found.found) == ("ok", "holds 4 workers of 1 CPU and 4 CPU for their feed")
    assert largest([node(), node("b")], config([2, 8]), use_gpu=False) == 4
    assert largest([node(), node("b")], config([2, 8]), use_gpu=False, at_most=3) == 2
    assert largest([node(cpus=3)], config([2, 8]), use_gpu=False) == 0


def test_a_local_ray_takes_as_many_as_there_are_cores() -> None:
    assert _workers_here(config([1, 8]), cores=6) == 4
    assert _workers_here(config([1, 8], cpus_per_worker=2), cores=6) == 2
    assert _workers_here(config([4, 8]), cores=2) == 4
    assert _workers_here(config(3, batch_size=6), cores=2) == 3


class Policy:
    """`ElasticWorkers` with nodes, reservations and checkpoints that the test sets."""

    def __init__(self, workers: Any, patch: pytest.MonkeyPatch, **options: Any) -> None:
        import ray.train

        from ssl_tasks.cluster import elastic

        self.nodes, self.reserved, self.checkpoint, self.told = [node()], {"a": {"CPU": 4.0}}, 0, []
        made = config(workers, **options)
        store = SimpleNamespace(
            list=lambda _folder: [f"step-{self.checkpoint:08d}.json"],
            read_json=lambda _path: {"step": 7},
            write_json=lambda _path, told: self.told.append((told["step"], told["note"])),
        )
        steps = {"total_steps": 100, "last_step": 100}
        job = SimpleNamespace(config=made, out=SimpleNamespace(store=store), partial="partial/x", **steps)
        sizes = made.world_sizes
        scaling = ray.train.ScalingConfig(num_workers=(sizes[0], sizes[-1]), elastic_resize_monitor_interval_s=0)
        self.policy: Any = elastic.ElasticWorkers(scaling, job)
        patch.setattr(look, "table", lambda: self.nodes)
        patch.setattr(look, "alive", lambda: {each.name for each in self.nodes})
        patch.setattr(elastic, "LOOK_SECONDS", 0.0)
        patch.setattr(self.policy, "_maybe_send_resource_request", lambda: None)
        patch.setattr(self.policy, "_get_reserved_resources", lambda: self.reserved)

    def start(self) -> int | None:
        """Number of workers to start with, or None to wait."""
        return getattr(self.policy.make_decision_for_non_running_worker_group(), "num_workers", None)

    def watch(self, running: int) -> int | None:
        """Number of workers to go on with, or None to leave them alone."""
        state = SimpleNamespace(num_workers=running, start_time=0.0)
        return getattr(self.policy.make_decision_for_running_worker_group(state, None), "num_workers", None)


def test_it_starts_with_what_leaves_cpus_for_the_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy([1, 8], monkeypatch)
    assert policy.start() == 2  # Ray itself would start 4, and they would wait for their first batch for ever
    policy.nodes, policy.reserved = [node(), node("b")], {"a": {"CPU": 4.0}, "b": {"CPU": 4.0}}
    assert policy.start() == 4
    assert policy.policy._get_num_workers_for_resource_request() == 4
    policy.reserved = {"a": {"CPU": 3.0}}  # another training has the rest
    assert policy.start() == 2


def test_a_node_that_died_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy([1, 8], monkeypatch)
    policy.reserved = {"a": {"CPU": 4.0}, "dead": {"CPU": 4.0}}
    assert policy.start() == 2
    policy.nodes = []
    assert policy.start() is None
    assert policy.told == [(7, "waiting for nodes that hold 1 workers")]
    assert policy.policy._get_num_workers_for_resource_request() == 1


def test_it_grows_just_after_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy([1, 8], monkeypatch)
    assert policy.watch(running=2) is None  # sees the checkpoint that it goes on from
    policy.nodes, policy.reserved = [node(), node("b")], {"a": {"CPU": 4.0}, "b": {"CPU": 4.0}}
    assert policy.watch(running=2) is None
    policy.checkpoint = 20
    assert policy.watch(running=2) == 4
    assert policy.watch(running=4) is None


def test_it_shrinks_at_once_where_the_feed_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy([1, 8], monkeypatch)
    assert policy.watch(running=4) == 2  # four were started while a node died
    policy.nodes = []
    assert policy.watch(running=2) is None


def test_a_store_that_is_away_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy([1, 8], monkeypatch)

    def away(_folder: str) -> list[str]:
        raise OSError("no route")

    policy.policy.job.out.store.list = away
    assert policy.watch(running=1) is None
