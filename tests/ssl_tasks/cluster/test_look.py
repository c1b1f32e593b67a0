"""Every node of a running cluster is asked: two raylets on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests_cluster import cluster

from flows.cluster_check import check_cluster
from flows.doctor import examine
from flows.recipe import load_recipe
from ssl_tasks.cluster import look
from ssl_tasks.cluster.checks import judge
from ssl_tasks.cluster.nodes import versions
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store
from ssl_tasks.training.config import PretrainConfig


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """host:port of a cluster of two nodes."""
    with cluster({"num_cpus": 2}, {"num_cpus": 1, "resources": {"special": 1}}) as started:
        yield started.address


def recipe(store: Store, address: str, **pretrain: Any) -> Any:
    sets = [f"pretrain.{name}={value}" for name, value in pretrain.items()]
    return load_recipe("digits", [*sets, f"ray_address={address}"], store=store.uri)


def test_all_nodes_answer_and_leave_no_probe(address: str, store: Store) -> None:
    nodes = look.ask(address, store.uri)
    assert sorted(node.total["CPU"] for node in nodes) == [1, 2]
    assert len({node.name for node in nodes}) == 2
    assert [node.problem for node in nodes] == ["", ""]
    assert [node.store for node in nodes] == ["", ""]
    assert all(node.versions == versions() for node in nodes)
    assert all(node.shm_bytes and node.spill_bytes for node in nodes)
    assert store.list("runs") == []
    assert [each.level for each in judge(nodes, PretrainConfig(), versions())] == ["ok"] * 6


SPILLS = """
import sys, time
import numpy as np
from ssl_tasks.cluster.connect import connection
from ssl_tasks.cluster.spill import spilled_here

with connection(sys.argv[1]):
    import ray

    before = spilled_here()
    held = [ray.put(np.ones(40 << 20, np.uint8)) for _ in range(4)]
    deadline = time.monotonic() + 20
    while spilled_here() == before and time.monotonic() < deadline:
        time.sleep(0.1)
    print(before, spilled_here())
"""


def test_objects_that_go_to_the_disk_are_seen(address: str) -> None:
    """160 MB in a node's store of 100 MB."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, "-c", SPILLS, address], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before == 0
    assert 40 << 20 <= after <= 170 << 20


def test_a_run_is_refused_before_its_first_stage(address: str, store: Store) -> None:
    check_cluster(recipe(store, address))
    check_cluster(recipe(store, address, resources_per_worker="{special: 1}"))
    with pytest.raises(
        RequestError, match=r"this run needs 4 CPU .* the Ray cluster has 3 CPU on 2 nodes; set pretrain"
    ):
        check_cluster(recipe(store, address, num_workers=2))
    with pytest.raises(RequestError, match=r"no node has 2 special; lower pretrain\.resources_per_worker"):
        check_cluster(recipe(store, address, resources_per_worker="{special: 2}"))


def test_doctor_shows_the_same_checks(address: str, store: Store) -> None:
    found = {each.check: each for each in examine(store.uri, ray=True, address=address)}
    assert found["cluster room"].found == "holds 1 workers of 1 CPU and 1 CPU for their feed"
    assert {"cluster nodes", "cluster versions", "cluster store", "cluster /dev/shm"} <= set(found)
    assert "ray start" not in found


LOST_CONTROLLER = """
import sys, time
from ssl_tasks.cluster.connect import connection
with connection(sys.argv[1]):
    import ray, ray._private.state
    from ssl_tasks.cluster.cleaner import LOOK_SECONDS, Cleaner

    class Controller:
        def name(self):
            return ray.get_runtime_context().get_actor_id()

    controller = ray.remote(num_cpus=0)(Controller).remote()
    cleaner = ray.remote(num_cpus=0)(Cleaner).options(lifetime="detached").remote(ray.get(controller.name.remote()))
    group = ray.util.placement_group([{"CPU": 1}], lifetime="detached")
    ray.get(cleaner.register_placement_group.remote(group))

    def seen():
        state = ray._private.state.actors(cleaner._actor_id.hex())["State"]
        return state, ray.util.placement_group_table(group)["state"]

    time.sleep(2 * LOOK_SECONDS)
    print(*seen())
    ray.kill(controller)
    until = time.monotonic() + 30
    while seen() != ("DEAD", "REMOVED") and time.monotonic() < until:
        time.sleep(0.1)
    print(*seen())
"""


def test_what_a_killed_driver_held_is_given_back_and_nothing_stays(address: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", LOST_CONTROLLER, address]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["ALIVE CREATED", "DEAD REMOVED"]


def test_a_wrong_token_is_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "5a" * 16)
    monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", "2")  # of a second each; Ray's own 20 are for clusters that start
    with pytest.raises(RequestError, match=r"^ray_address: .*token"):
        look.ask(address)


def test_a_cluster_that_lets_nobody_in_is_waited_for_no_longer_than_told(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.setattr(look, "NODE_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(RequestError, match=r"did not let this host in within 5 s; .* with the cluster's token$"):
        look.ask(address, seconds=4)
    assert time.monotonic() - began < 15  # and not Ray's own 20 s


def test_a_port_of_something_else_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "NODE_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(RequestError, match=r"^ray_address: .*127\.0\.0\.1"):
            look.ask(f"127.0.0.1:{server.getsockname()[1]}", seconds=4)
    assert time.monotonic() - began < 20


def test_a_place_that_a_node_does_not_have(store: Store, tmp_path: Path) -> None:
    assert look._try_store(str(tmp_path / "elsewhere"), "runs/.probe", "0" * 32).startswith("does not see")
    (tmp_path / "file").touch()
    store.write_bytes("runs/.probe", b"x")
    assert look._try_store(store.uri, "runs/.probe", "0" * 32) == ""
    assert look._try_store(str(tmp_path / "file"), "runs/.probe", "0" * 32).startswith("cannot read and write")
