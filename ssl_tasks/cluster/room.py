"""What a pretraining takes of a cluster, and whether the nodes hold it: counted from tables, without Ray.

fits(nodes, Demand.of(config, use_gpu=False))     largest(nodes, config, use_gpu=False)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ssl_tasks.cluster.nodes import Node, Seen
from ssl_tasks.training.config import PretrainConfig

ROUNDING = 1e-9


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


def wants_gpu(config: PretrainConfig, nodes: Sequence[Node]) -> bool:
    """Whether the workers get GPUs."""
    there = any(node.total.get("GPU", 0) > 0 for node in nodes)
    return there if config.use_gpu == "auto" else bool(config.use_gpu)


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
