"""What is said of clusters, from tables of nodes alone."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from ssl_tasks.cluster.checks import judge
from ssl_tasks.cluster.nodes import Node, Seen, versions
from ssl_tasks.cluster.room import Demand, fits, lacks, room, wants_gpu
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.training.config import PretrainConfig

HERE = {"python": "3.11", "ray": "2.60.0", "torch": "2.14.1", "pyarrow": "26.0.1", "pretextflow": "0.1.0 (abc)"}


def node(name: str = "10.0.0.1", cpus: float = 4, **more: float) -> Node:
    return Node(name, {"CPU": cpus, "object_store_memory": 2e9, **more}, HERE, shm_bytes=4_000_000_000)


def config(**options: Any) -> PretrainConfig:
    return PretrainConfig.model_validate({"batch_size": 64, **options})


def failed(found: list[Seen]) -> list[str]:
    return [str(each) for each in found if each.level == "fail"]


def test_a_cluster_that_has_all_is_said_to() -> None:
    found = judge([node(), node("10.0.0.2")], config(num_workers=4), HERE)
    assert [each.level for each in found] == ["ok"] * 6
    assert found[-1].found == "holds 4 workers of 1 CPU and 4 CPU for their feed"


@pytest.mark.parametrize(
    ("options", "nodes", "words"),
    [
        (  # ray#41603: the workers would fit, and the feed would wait for ever
            {"num_workers": 4},
            [node(cpus=4)],
            "num_workers: this run needs 8 CPU (1 CPU together on one node for each of 4 workers, and 1 CPU for its "
            "feed) and the Ray cluster has 4 CPU on 1 nodes; set pretrain.num_workers=2 or less, or add nodes",
        ),
        ({"num_workers": 2, "feed_workers": 3}, [node(cpus=7)], "set pretrain.num_workers=1 or less"),
        (
            {"num_workers": 1, "cpus_per_worker": 6},
            [node(cpus=4), node(cpus=4)],  # eight CPUs, and no node with six
            "no node has 6 CPU; lower pretrain.cpus_per_worker",
        ),
        ({"num_workers": 1, "feed_workers": 4}, [node(cpus=4)], "not even one worker fits; lower"),
        ({"use_gpu": True}, [node()], "pretrain.use_gpu: the Ray cluster has no GPU; set it to auto or false"),
        (
            {"use_gpu": "auto", "num_workers": 3},
            [node(GPU=1), node(GPU=1)],
            "needs 6 CPU, 3 GPU (1 CPU, 1 GPU together on one node for each of 3 workers",
        ),
        ({"gpus_per_worker": 2}, [node(GPU=1), node(GPU=1)], "no node has 2 GPU; lower pretrain.gpus_per_worker"),
        ({"resources_per_worker": {"a100": 1}}, [node()], "no node has 1 a100; lower pretrain.resources_per_worker"),
        ({"num_workers": 2, "placement": "STRICT_SPREAD"}, [node()], "set pretrain.placement=PACK"),
        (
            {"num_workers": 3, "placement": "STRICT_PACK"},
            [node(cpus=2), node(cpus=2), node(cpus=2)],
            "placed STRICT_PACK) and the Ray cluster has 6 CPU on 3 nodes; set pretrain.placement=PACK, or add nodes",
        ),
        ({"num_workers": 1}, [node(cpus=0.5), node(cpus=0.5), node(cpus=1.5)], "not even one worker fits"),
    ],
)
def test_what_would_not_start_is_refused_with_what_to_change(
    options: dict[str, Any], nodes: list[Node], words: str
) -> None:
    found = room(nodes, config(**options))
    assert found.level == "fail"
    assert words in str(found)


def test_following_the_advice_helps() -> None:
    nodes = [node(cpus=5), node(cpus=3)]
    assert "set pretrain.num_workers=4 or less" in str(room(nodes, config(num_workers=5)))
    assert room(nodes, config(num_workers=4)).level == "ok"


def test_gpus_are_taken_where_there_are_any() -> None:
    assert wants_gpu(config(), [node(), node(GPU=1)])
    assert not wants_gpu(config(), [node()])
    assert not wants_gpu(config(use_gpu=False), [node(GPU=1)])
    assert Demand.of(config(resources_per_worker={"a100": 1}), use_gpu=True).worker == {"CPU": 1, "a100": 1, "GPU": 1}


def test_what_others_use_is_waited_for_with_a_word() -> None:
    demand = Demand.of(config(num_workers=2), use_gpu=True)
    assert lacks({"CPU": 4, "GPU": 2}, demand) == ""
    assert lacks({"CPU": 1}, demand) == "3 CPU, 2 GPU"


def place_one_by_one(nodes: list[Node], demand: Demand) -> bool:
    """Whether some way to put the workers, tried one by one, leaves the feed its CPUs."""
    for places in itertools.combinations_with_replacement(range(len(nodes)), demand.num_workers):
        if demand.placement == "STRICT_PACK" and len(set(places)) > 1:
            continue
        if demand.placement == "STRICT_SPREAD" and len(set(places)) < len(places):
            continue
        left = [dict(each.total) for each in nodes]
        for place in places:
            for name, count in demand.worker.items():
                left[place][name] = left[place].get(name, 0) - count
        if all(value >= 0 for each in left for value in each.values()):
            return sum(int(each["CPU"]) for each in left) >= demand.feed_cpus
    return False


def test_the_judgement_is_that_of_trying_every_place() -> None:
    draw, seen = random.Random(0), {True: 0, False: 0}
    for _ in range(600):
        nodes = [node(cpus=draw.randint(0, 5), GPU=draw.randint(0, 3)) for _ in range(draw.randint(1, 3))]
        worker = {"CPU": draw.randint(1, 3), **({"GPU": draw.choice([0.5, 1, 2])} if draw.random() < 0.5 else {})}
        strategy = draw.choice(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
        demand = Demand(draw.randint(1, 4), worker, draw.randint(1, 4), strategy)
        expected = place_one_by_one(nodes, demand)
        assert fits(nodes, demand) == expected, (nodes, demand)
        seen[expected] += 1
    assert min(seen.values()) > 100


def test_other_versions_are_named_with_node_and_numbers() -> None:
    other = replace(node("10.0.0.2"), versions={**HERE, "torch": "2.13.0"} | {"pretextflow": "0.1.0 (def)"})
    (said,) = failed(judge([node(), other], config(), HERE))
    assert said == (
        "ray_address: node 10.0.0.2 has torch 2.13.0 (here 2.14.1), pretextflow 0.1.0 (def) (here 0.1.0 (abc)); "
        "install the same on all nodes and restart Ray there"
    )


def test_versions_know_python_and_the_code() -> None:
    found = versions()
    assert set(found) == set(HERE)
    assert found["pretextflow"].startswith("0.")
    assert "+" not in found["torch"]


def test_a_node_that_is_silent_or_has_no_pretextflow() -> None:
    bare = replace(node("a"), problem="ModuleNotFoundError: No module named 'ssl_tasks'")
    stuck = replace(node("b"), problem="no answer within 30 s", versions={})
    bare_said, stuck_said = failed(judge([bare, stuck], config(), HERE))
    assert "node a cannot run a task" in bare_said
    assert "install pretextflow" in bare_said
    assert "node b" in stuck_said
    assert "logs" in stuck_said


def test_a_store_that_a_node_does_not_see() -> None:
    blind = replace(node("10.0.0.3"), store="does not see /data/store of this host")
    (said,) = failed(judge([node(), blind], config(), HERE))
    assert said == (
        "store: node 10.0.0.3 does not see /data/store of this host; choose a folder that all nodes share at the same "
        "path, or object storage that all can reach"
    )


def test_a_container_with_the_usual_64_mb_of_shared_memory() -> None:
    small = replace(node("10.0.0.4"), shm_bytes=64 << 20)
    (said,) = failed(judge([small, replace(small, name="c", shm_bytes=None)], config(), HERE))
    assert "node 10.0.0.4 has 0.07 GB at /dev/shm and an object store of 2.00 GB" in said
    assert "--shm-size" in said


def test_a_disk_on_which_ray_writes_nothing_is_warned_of() -> None:
    nodes = [replace(node(f"n{left}"), spill_bytes=left) for left in (-1, 0, 1)]
    found = [each for each in judge(nodes, config(), HERE) if each.check == "cluster disk"]
    assert [each.level for each in found] == ["warn", "warn"]
    assert "the disk of node n-1 is so full that Ray writes no object there" in str(found[0])
    assert str(found[1]).endswith("free some of it, or restart Ray there with --temp-dir on another disk")


@pytest.mark.parametrize(("share", "workers"), [(0.5, 2), (1.5, 1)])
def test_a_gpu_is_not_shared_between_workers(share: float, workers: int) -> None:
    from ssl_tasks.stages.pretrain import check

    check(config(gpus_per_worker=0.5))
    with pytest.raises(RequestError, match=r"pretrain\.gpus_per_worker: \d\.5 is no whole number"):
        check(config(gpus_per_worker=share, num_workers=workers))


def test_placement_and_resources_change_no_fingerprint() -> None:
    moved = config(
        num_workers=4, cpus_per_worker=8, gpus_per_worker=2, resources_per_worker={"a100": 1}, placement="SPREAD",
        profile_steps=5,
    )  # fmt: skip
    assert semantic(moved) == semantic(config())


def test_threads_follow_the_cpus_of_a_worker_or_share_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_tasks.cluster.worker import _threads

    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert _threads(config(), workers_here=3) == 4
    assert _threads(config(), workers_here=16) == 1
    assert _threads(config(cpus_per_worker=6), workers_here=3) == 6
    assert _threads(config(cpus_per_worker=6, threads=2), workers_here=3) == 2
