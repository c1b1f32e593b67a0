"""Ask every node of a running cluster what it is and what it sees, from a process of its own.

A process of its own, because a wrong token or a port of something else can hold `ray.init` for minutes, and because
a driver may connect only once (ray#54841).

    python -m ssl_tasks.cluster.look ADDRESS STORE [PROBE]      the nodes as JSON on the last line

ADDRESS "" is what RAY_ADDRESS says, as in a Ray job; PROBE is a file of the store that the nodes are to find.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssl_tasks.cluster import jobs
from ssl_tasks.cluster.connect import connection, require_answer
from ssl_tasks.cluster.nodes import Node, versions
from ssl_tasks.cluster.spill import may_spill_here
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store

MODULE = "ssl_tasks.cluster.look"
CONNECT_SECONDS = 60.0
NODE_SECONDS = 30.0
SHM = Path("/dev/shm")


def ask(address: str, store: str = "", *, seconds: float = CONNECT_SECONDS) -> list[Node]:
    """What the nodes of the cluster at `address` say.

    Args:
        address: host:port, or that of the job server, where this host is no Ray node.
        store: URI of an existing store, which every node is to read and write; "" asks for none.
        seconds: how long to wait for the cluster to let this host in.

    Raises:
        RequestError: nothing answers there, or the cluster does not let this host in.
    """
    answer = json.loads(
        _in_a_job(address, store) if jobs.is_job_server(address) else _in_a_process(address, store, seconds)
    )
    if "nodes" not in answer:
        raise RequestError(answer["refused"])
    return [Node(**node) for node in answer["nodes"]]


def _in_a_job(address: str, store: str) -> str:
    """The last line of this module as a Ray job, which looks for a probe of this host."""
    probe = _put_probe(store)
    try:
        return jobs.run(address, ["python", "-m", MODULE, "", store, probe], name="look")
    finally:
        _take_away(store, probe)


def _in_a_process(address: str, store: str, seconds: float) -> str:
    """The last line of this module as a command."""
    require_answer(address)
    command = [sys.executable, "-m", MODULE, address, store]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=seconds + NODE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RequestError(
            f"ray_address: {address} did not let this host in within {seconds + NODE_SECONDS:g} s; give the port of a "
            f"Ray head, and start a Ray node on this host (ray start --address={address}) with the cluster's token"
        ) from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:  # Ray has ended the process
        last = "; ".join(done.stderr.strip().splitlines()[-1:]) or f"exit {done.returncode}"
        raise RequestError(
            f"ray_address: cannot use {address}: {last}; is there a Ray node on this host, and does it have the "
            "cluster's token?"
        )
    return lines[-1]


def table() -> list[Node]:
    """The nodes that run work, by their resources alone; `connect.connection` must stand."""
    import ray

    return [Node(_name(node), node["Resources"]) for node in ray.nodes() if _runs_work(node)]


def alive() -> set[str]:
    """Ids of the nodes that run work."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if _runs_work(node)}


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _runs_work(node: dict[str, Any]) -> bool:
    """Not one that only lets its host's driver in, or keeps the head's books."""
    return bool(node["Alive"]) and (node["Resources"].get("CPU", 0) > 0 or node["Resources"].get("GPU", 0) > 0)


def look(store: str, probe: str = "") -> list[Node]:
    """Run a task on every node that runs work; `connect.connection` must stand.

    Args:
        store: see `ask`.
        probe: a file there; "" for a new one.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as At

    probe = probe or _put_probe(store)
    asked = {
        ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=At(node["NodeID"], soft=False))(tell).remote(
            store, probe, node["NodeID"]
        ): node
        for node in ray.nodes()
        if _runs_work(node)
    }
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS) if asked else ([], [])
    try:
        return [_node(node, task if task in done else None, store, probe) for task, node in asked.items()]
    finally:
        _take_away(store, probe)


def _put_probe(store: str) -> str:
    """Name of a new file in the store, if any."""
    probe = f"runs/.probe-{uuid.uuid4().hex}"
    if store:
        Store(store).write_bytes(probe, probe.encode())
    return probe


def _take_away(store: str, probe: str) -> None:
    if store:
        Store(store).delete(probe)


def _node(node: dict[str, Any], task: Any, store: str, probe: str) -> Node:
    import ray

    name, total = _name(node), node["Resources"]
    if task is None:
        return Node(name, total, problem=f"no answer within {NODE_SECONDS:g} s")
    try:
        told = ray.get(task)
    except Exception as error:  # whatever the node could not import or open
        return Node(name, total, problem=" ".join(str(getattr(error, "cause", None) or error).split()[-60:]))
    seen = told.pop("store")
    if store and not seen:
        answer = f"{probe}-{node['NodeID'][:8]}"
        seen = "" if Store(store).read_bytes(answer) else f"writes to another place than {store} of this host"
        Store(store).delete(answer)
    return Node(name, total, store=seen, **told)


def tell(store: str, probe: str, node_id: str) -> dict[str, Any]:
    """What the node it runs on says of itself; reads the driver's probe and writes one for the driver."""
    shm = shutil.disk_usage(SHM).total if SHM.is_dir() else None
    seen = _try_store(store, probe, node_id) if store else ""
    return {"versions": versions(), "shm_bytes": shm, "spill_bytes": may_spill_here(), "store": seen}


def _try_store(store: str, probe: str, node_id: str) -> str:
    try:
        opened = Store(store)
        if opened.read_bytes(probe) is None:
            return f"does not see {store} of this host"
        opened.write_bytes(f"{probe}-{node_id[:8]}", b"seen")
    except (OSError, RequestError) as error:
        return f"cannot read and write {store}: {error}"
    return ""


def main(address: str, store: str, probe: str = "") -> None:
    """Print what `ask` reads."""
    answer: dict[str, Any]
    try:
        with connection(address or os.environ["RAY_ADDRESS"]):
            answer = {"nodes": [asdict(node) for node in look(store, probe)]}
    except RequestError as error:
        answer = {"refused": " ".join(str(error).split())}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
