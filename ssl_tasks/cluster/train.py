"""Run a pretraining on Ray Train, interruptibly."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import Any

from ssl_tasks.artifact import FileEntry
from ssl_tasks.cluster import look, spill
from ssl_tasks.cluster.allocator import KEEP_MEMORY
from ssl_tasks.cluster.connect import Connection, connection
from ssl_tasks.cluster.nodes import Node
from ssl_tasks.cluster.room import Demand, largest, room, wants_gpu
from ssl_tasks.cluster.watch import watch
from ssl_tasks.cluster.worker import train_worker
from ssl_tasks.errors import RequestError, StageError, TryAgainError
from ssl_tasks.store.output import PROGRESS_FILE
from ssl_tasks.store.runs import RUN_VARIABLE
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import DONE_FILE, FAILURE_FILE, Job, read_own

RESIZE_SECONDS = 30.0
"""Where the number of workers is a range: a change of it costs a start of Ray Train (10 to 20 s), so none follows
another within this time."""


def train(job: Job, address: str | None = None) -> dict[str, Any]:
    """Train until the results of `job` are written; returns what was measured.

    Args:
        address: of a running Ray cluster; None for a local one of our own.

    Raises:
        RequestError: the cluster cannot hold the workers.
        StageError: training failed or collapsed.
        TryAgainError: it stood still, or its Ray died.
    """
    config, store = job.config, job.out.store
    cores = os.cpu_count() or 1
    for name in (FAILURE_FILE, DONE_FILE):
        store.delete(f"{job.partial}/{name}")
    spill.clear(job)
    store.write_json(
        f"{job.partial}/{PROGRESS_FILE}", {"step": 0, "total_steps": job.total_steps, "note": "starting Ray"}
    )
    with connection(address, **_of_a_local_ray(config, cores)) as ray_connection:
        from ssl_tasks.cluster.starts import tell_start

        nodes = look.table()
        use_gpu = _require_room(nodes, config)
        demand = Demand.of(config, use_gpu=use_gpu, num_workers=largest(nodes, config, use_gpu=use_gpu))
        trainer = _trainer(job, ray_connection, demand)
        tell_start(job, use_gpu)
        _fit(job, trainer, ray_connection, use_gpu)
    done = read_own(job, DONE_FILE)
    if done is None:
        raise StageError("pretrain: another run took this training over while this one stood still; run again")
    job.out.entries.update({name: FileEntry.model_validate(entry) for name, entry in done["entries"].items()})
    job.out.schemas.update(done["schemas"])
    spilled = spill.most_spilled(job)
    warnings = [*done["measured"].get("warnings", []), *(spill.warning(spilled) if spilled else [])]
    return {**done["measured"], "spilled_bytes": spilled, **({"warnings": warnings} if warnings else {})}


def _of_a_local_ray(config: PretrainConfig, cores: int) -> dict[str, Any]:
    """What a Ray of our own declares: at least what this training takes, whatever this machine has."""
    demand = Demand.of(config, use_gpu=False, num_workers=_workers_here(config, cores)).total
    return {"num_cpus": max(cores, int(demand.pop("CPU"))), "resources": demand}


def _workers_here(config: PretrainConfig, cores: int) -> int:
    """Of a range, as many as there are cores for."""
    sizes = [count for count in config.world_sizes if count * config.cpus_per_worker <= cores]
    return max(sizes, default=config.least_workers)


def _require_room(nodes: Sequence[Node], config: PretrainConfig) -> bool:
    """Whether the workers get GPUs. Asked again here, because a cluster changes after the check before the run."""
    found = room(nodes, config)
    if found.level == "fail":
        raise RequestError(str(found))
    return wants_gpu(config, nodes)


def _trainer(job: Job, ray_connection: Connection, demand: Demand) -> Any:
    import ray.train

    from ssl_tasks.cluster.starts import TellsStarts

    config, use_gpu = job.config, "GPU" in demand.worker
    lean = ray_connection.embedded and not use_gpu
    sizes = config.world_sizes
    settings = {
        "train_loop_per_worker": train_worker,
        "train_loop_config": {"job": job, "run": os.environ.get(RUN_VARIABLE, "")},
        "scaling_config": ray.train.ScalingConfig(
            num_workers=demand.num_workers if lean or not config.is_elastic else (sizes[0], sizes[-1]),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            use_gpu=use_gpu,
            resources_per_worker=dict(demand.worker),
            placement_strategy=demand.placement,
        ),
        "run_config": ray.train.RunConfig(
            name=f"ray-{uuid.uuid4().hex[:8]}",
            storage_path=job.out.store.full(job.partial),
            storage_filesystem=job.out.store.fs,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            callbacks=[TellsStarts(job, use_gpu)],
            # a local Ray's processes have it from their start
            worker_runtime_env={} if lean or use_gpu else {"env_vars": KEEP_MEMORY},
        ),
    }
    if lean:
        from ssl_tasks.cluster.lean import GlooConfig, LeanTrainer

        return LeanTrainer(backend_config=GlooConfig(), **settings)
    from ray.train.torch import TorchConfig

    from ssl_tasks.cluster.standard import ClusterTrainer

    return ClusterTrainer(job, torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"), **settings)


def _fit(job: Job, trainer: Any, ray_connection: Connection, use_gpu: bool) -> None:
    """Run `fit` on this thread, where a signal interrupts it, with a watch on progress beside it.

    An interruption simply passes through: what this process started in Ray ends with its connection.
    """
    failed: BaseException | None = None
    with watch(job, ray_connection, use_gpu, trainer.let_go):
        try:
            trainer.fit()
        except Exception as error:  # Ray wraps what a worker raised in types of several modules
            failed = error
    failure = read_own(job, FAILURE_FILE)
    if failure is not None:
        raise (RequestError if failure["kind"] == "RequestError" else StageError)(failure["message"])
    if failed is not None:
        kind = TryAgainError if ray_connection.dead() else StageError
        raise kind(f"pretrain: training failed: {_innermost(failed)}") from failed


def _innermost(error: BaseException) -> str:
    """The worker's own error, without the layers that Ray puts around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
