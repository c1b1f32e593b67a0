"""What a pretraining asks of a cluster, and whether its nodes have it: judged from tables, without Ray.

judge(nodes, Demand.of(config), here=versions())     findings, those that mend nothing left out
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import ssl_tasks
from ssl_tasks.config import digest
from ssl_tasks.training.config import PretrainConfig

SAME = ("ray", "torch", "pyarrow")
"""Libraries that must have one version on all nodes: weights, batches and plans go from one to the other."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Seen:
    """One check and what came of it."""

    check: str
    level: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.found}; {self.mend}" if self.mend else self.found


@dataclass(frozen=True)
class Node:
    """What a node of the cluster says of itself."""

    name: str
    total: Mapping[str, float]
    """Ray's resources: CPU, GPU, object_store_memory in bytes, custom ones."""
    versions: Mapping[str, str] = field(default_factory=dict)
    shm_bytes: int | None = None
    """Of /dev/shm; None where there is none."""
    store: str = ""
    """Why the run's store cannot be used there."""
    problem: str = ""
    """Why the node could not be asked."""


@dataclass(frozen=True)
class Demand:
    """What a pretraining takes of a cluster."""

    num_workers: int
    worker: Mapping[str, float]
    """Resources of each worker, which one node must have together."""
    feed_cpus: int
    """Of all workers: Ray Data's tasks, beside them."""
    placement: str = "PACK"

    @classmethod
    def of(cls, config: PretrainConfig, *, use_gpu: bool, num_workers: int | None = None) -> Demand:
        """As the recipe has it; of the least number of workers, where that is a range and none is given."""
        worker = {"CPU": float(config.cpus_per_worker), **config.resources_per_worker}
        if use_gpu:
            worker["GPU"] = config.gpus_per_worker
        workers = config.least_workers if num_workers is None else num_workers
        return cls(workers, worker, workers * config.feed_workers, config.placement)

    @property
    def total(self) -> dict[str, float]:
        """Resources of all workers and their feed."""
        found = {name: self.num_workers * count for name, count in self.worker.items()}
        return {**found, "CPU": found["CPU"] + self.feed_cpus}


def versions() -> dict[str, str]:
    """Of Python, of the libraries that must agree, and of pretextflow with a digest of its `versions.lock`."""
    lock = Path(ssl_tasks.__file__).with_name("versions.lock")
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in SAME:
        found[name] = importlib.metadata.version(name).partition("+")[0]  # torch's 2.14.1+cpu trains with 2.14.1
    return {**found, "pretextflow": f"{ssl_tasks.__version__} ({digest(lock.read_text())[:8]})"}


def wants_gpu(config: PretrainConfig, nodes: Sequence[Node]) -> bool:
    """Whether the workers get GPUs."""
    there = any(node.total.get("GPU", 0) > 0 for node in nodes)
    return there if config.use_gpu == "auto" else bool(config.use_gpu)


def judge(nodes: Sequence[Node], config: PretrainConfig, here: Mapping[str, str]) -> list[Seen]:
    """All checks of a cluster whose nodes have been asked.

    Args:
        here: `versions()` of the driver.
    """
    answered = [node for node in nodes if not node.problem]
    return [
        *_each(nodes, "cluster nodes", _silent),
        *_each(answered, "cluster versions", lambda node: _other_versions(node, here)),
        *_each(answered, "cluster store", _no_store),
        *_each(answered, "cluster /dev/shm", _small_shm),
        room(nodes, config),
    ]


def _each(nodes: Sequence[Node], check: str, look: Callable[[Node], tuple[str, str] | None]) -> list[Seen]:
    """One finding a node where something is wrong, one for all where nothing is."""
    found = [Seen(check, "fail", *wrong) for node in nodes if (wrong := look(node))]
    return found or [Seen(check, "ok", f"the same on {len(nodes)} nodes" if len(nodes) != 1 else "on 1 node")]


def _silent(node: Node) -> tuple[str, str] | None:
    if not node.problem:
        return None
    mend = f"install pretextflow {ssl_tasks.__version__} there" if "No module named" in node.problem else (
        "look at its /tmp/ray/session_latest/logs, or take it out of the cluster"
    )  # fmt: skip
    return f"ray_address: node {node.name} cannot run a task: {node.problem}", mend


def _other_versions(node: Node, here: Mapping[str, str]) -> tuple[str, str] | None:
    other = [name for name, version in here.items() if node.versions.get(name) != version]
    if not other:
        return None
    said = ", ".join(f"{name} {node.versions.get(name, 'not at all')} (here {here[name]})" for name in other)
    return f"ray_address: node {node.name} has {said}", "install the same on all nodes and restart Ray there"


def _no_store(node: Node) -> tuple[str, str] | None:
    if not node.store:
        return None
    mend = "choose a folder that all nodes share at the same path, or object storage that all can reach"
    return f"store: node {node.name} {node.store}", mend


def _small_shm(node: Node) -> tuple[str, str] | None:
    """Ray then puts the object store on the disk, and says so only in a log."""
    wanted = node.total.get("object_store_memory", 0)
    if node.shm_bytes is None or node.shm_bytes >= wanted:
        return None
    found = (
        f"ray_address: node {node.name} has {node.shm_bytes / 1e9:.2f} GB at /dev/shm and an object store of "
        f"{wanted / 1e9:.2f} GB, which Ray has put on its disk for that"
    )
    mend = (
        f"give its container {wanted / 0.9e9:.1f} GB (docker run --shm-size, compose shm_size), or start Ray with less"
    )
    return found, f"{mend} (--object-store-memory)"


def room(nodes: Sequence[Node], config: PretrainConfig) -> Seen:
    """Whether the nodes hold the workers and leave CPUs for Ray Data, which would wait for ever (ray#41603)."""
    use_gpu = wants_gpu(config, nodes)
    if use_gpu and not any(node.total.get("GPU", 0) > 0 for node in nodes):
        mend = "set it to auto or false"
        return Seen("cluster room", "fail", "pretrain.use_gpu: the Ray cluster has no GPU", mend)
    demand = Demand.of(config, use_gpu=use_gpu)
    if fits(nodes, demand):
        most = Demand.of(config, use_gpu=use_gpu, num_workers=largest(nodes, config, use_gpu=use_gpu) or None)
        said = f"holds {most.num_workers} workers of {_listed(most.worker)} and {most.feed_cpus} CPU for their feed"
        return Seen("cluster room", "ok", said)
    placed = "" if demand.placement == "PACK" else f", placed {demand.placement}"
    needed = (
        f"pretrain.num_workers: this run needs {_listed(demand.total)} ({_listed(demand.worker)} together on one node "
        f"for each of {demand.num_workers} workers, and {config.feed_workers} CPU for its feed{placed})"
    )
    has = f"the Ray cluster has {_listed(_sum(nodes, demand.total))} on {len(nodes)} nodes"
    return Seen("cluster room", "fail", f"{needed} and {has}", _advice(nodes, config, demand, use_gpu))


def largest(nodes: Sequence[Node], config: PretrainConfig, *, use_gpu: bool, at_most: int | None = None) -> int:
    """The largest number of workers that may train and that the nodes hold with the feed of each; 0 where none."""
    sizes = [count for count in config.world_sizes if at_most is None or count <= at_most]
    held = (n for n in reversed(sizes) if fits(nodes, Demand.of(config, use_gpu=use_gpu, num_workers=n)))
    return next(held, 0)


def _advice(nodes: Sequence[Node], config: PretrainConfig, demand: Demand, use_gpu: bool) -> str:
    if fits(nodes, replace(demand, placement="PACK")):
        return "set pretrain.placement=PACK, or add nodes"
    fewer = (Demand.of(config, use_gpu=use_gpu, num_workers=n) for n in range(demand.num_workers - 1, 0, -1))
    most = next((found.num_workers for found in fewer if fits(nodes, found)), 0)
    if most:
        return f"set pretrain.num_workers={most} or less, or add nodes"
    lacking = [
        name for name, count in demand.worker.items() if not any(node.total.get(name, 0) >= count for node in nodes)
    ]
    keys = {"CPU": "pretrain.cpus_per_worker", "GPU": "pretrain.gpus_per_worker"}
    if lacking:
        said = " and ".join(f"{demand.worker[name]:g} {name}" for name in lacking)
        lower = " and ".join(dict.fromkeys(keys.get(name, "pretrain.resources_per_worker") for name in lacking))
        return f"no node has {said}; lower {lower}, or add nodes"
    return "not even one worker fits; lower pretrain.cpus_per_worker or pretrain.feed_workers, or add nodes"


def lacks(free: Mapping[str, float], demand: Demand) -> str:
    """What of a cluster that is large enough is in use just now; "" where nothing is."""
    missing = {name: count - free.get(name, 0) for name, count in demand.total.items()}
    return _listed({name: count for name, count in missing.items() if count > ROUNDING})


def fits(nodes: Sequence[Node], demand: Demand) -> bool:
    """Whether all workers find a place under the placement, and the CPUs for their feed are left."""
    held = [_holds(node, demand.worker) for node in nodes]
    most = {
        "STRICT_PACK": max(held, default=0),
        "STRICT_SPREAD": sum(count > 0 for count in held),
    }.get(demand.placement, sum(held))
    # a task takes one CPU of one node, and workers take whole ones: what is left does not depend on where they are
    cpus = sum(int(node.total.get("CPU", 0) + ROUNDING) for node in nodes)
    return most >= demand.num_workers and cpus >= demand.total["CPU"]


def _holds(node: Node, worker: Mapping[str, float]) -> int:
    return min(int((node.total.get(name, 0) + ROUNDING) / count) for name, count in worker.items())


def _sum(nodes: Sequence[Node], names: Mapping[str, float]) -> dict[str, float]:
    return {name: sum(node.total.get(name, 0) for node in nodes) for name in names}


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{count:g} {name}" for name, count in resources.items())
