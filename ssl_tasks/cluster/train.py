"""Run a pretraining on Ray Train and wait for it, interruptibly."""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import Any

from ssl_tasks.artifact import FileEntry
from ssl_tasks.cluster.connect import Connection, connection
from ssl_tasks.cluster.worker import train_worker
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.training.job import DONE_FILE, FAILURE_FILE, PROGRESS_FILE, Job


def train(job: Job, address: str | None = None) -> dict[str, Any]:
    """Train until the results of `job` are written; returns what was measured.

    Args:
        address: of a running Ray cluster; None for a local one of our own.

    Raises:
        RequestError: the cluster cannot hold the workers.
        StageError: training failed, collapsed or stood still.
    """
    config, store = job.config, job.out.store
    cores = os.cpu_count() or 1
    for name in (FAILURE_FILE, DONE_FILE):
        store.delete(f"{job.partial}/{name}")
    store.write_json(
        f"{job.partial}/{PROGRESS_FILE}", {"step": 0, "total_steps": job.total_steps, "note": "starting Ray"}
    )
    needed = config.num_workers * (1 + config.feed_workers)
    with connection(address, num_cpus=max(cores, needed)) as ray_connection:
        use_gpu = _use_gpu(config.use_gpu)
        _preflight(needed, config.num_workers if use_gpu else 0)
        threads = config.threads or max(1, cores // config.num_workers)
        trainer = _trainer(job, ray_connection, use_gpu, threads)
        store.write_json(
            f"{job.partial}/{PROGRESS_FILE}", {"step": 0, "total_steps": job.total_steps, "note": "starting workers"}
        )
        _wait(job, trainer)
    done = store.read_json(f"{job.partial}/{DONE_FILE}")
    job.out.entries.update({name: FileEntry.model_validate(entry) for name, entry in done["entries"].items()})
    job.out.schemas.update(done["schemas"])
    measured: dict[str, Any] = done["measured"]
    return measured


def _use_gpu(wanted: bool | str) -> bool:
    import ray

    there = ray.cluster_resources().get("GPU", 0) > 0
    if wanted is True and not there:
        raise RequestError("pretrain.use_gpu: the Ray cluster has no GPU; set it to auto or false")
    return there if wanted == "auto" else bool(wanted)


def _preflight(cpus: int, gpus: int) -> None:
    """Refuse what would wait for ever: training workers that leave no CPU for the feed (ray#41603)."""
    import ray

    there = ray.cluster_resources()
    for name, needed, advice in (
        ("CPU", cpus, "one for each worker and each of its pretrain.feed_workers"),
        ("GPU", gpus, "one for each worker"),
    ):
        if there.get(name, 0) < needed:
            raise RequestError(
                f"pretrain.num_workers: this run needs {needed} {name} ({advice}) and the Ray cluster has "
                f"{there.get(name, 0):g}; lower num_workers or add nodes"
            )


def _trainer(job: Job, ray_connection: Connection, use_gpu: bool, threads: int) -> Any:
    import ray.train

    config = job.config
    settings = {
        "train_loop_per_worker": train_worker,
        "train_loop_config": {"job": job, "threads": threads},
        "scaling_config": ray.train.ScalingConfig(
            num_workers=config.num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": 1, "GPU": int(use_gpu)}
        ),
        "run_config": ray.train.RunConfig(
            name=f"ray-{uuid.uuid4().hex[:8]}",
            storage_path=job.out.store.full(job.partial),
            storage_filesystem=job.out.store.fs,
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
        ),
    }
    if ray_connection.embedded and not use_gpu:
        from ssl_tasks.cluster.lean import GlooConfig, LeanTrainer

        return LeanTrainer(backend_config=GlooConfig(), **settings)
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"), **settings)


def _wait(job: Job, trainer: Any) -> None:
    """Run `fit` on another thread, where it leaves signal handlers alone, and stay interruptible on this one."""
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # handed to the waiting thread
            failed.append(error)

    thread = threading.Thread(target=fit, daemon=True, name="fit")
    thread.start()
    seen, since = None, time.monotonic()
    while thread.is_alive():
        thread.join(0.2)
        progress = job.out.store.read_json(f"{job.partial}/{PROGRESS_FILE}")
        if progress != seen:
            seen, since = progress, time.monotonic()
        if job.config.timeout_minutes and time.monotonic() - since > 60 * job.config.timeout_minutes:
            raise StageError(
                f"pretrain: no progress for {job.config.timeout_minutes:g} minutes at step {(seen or {}).get('step')} "
                "(pretrain.timeout_minutes); `pretextflow rerun` continues from the last checkpoint"
            )
    failure = job.out.store.read_json(f"{job.partial}/{FAILURE_FILE}")
    if failure is not None:
        raise (RequestError if failure["kind"] == "RequestError" else StageError)(failure["message"])
    if failed:
        raise StageError(f"pretrain: training failed: {_innermost(failed[0])}") from failed[0]


def _innermost(error: BaseException) -> str:
    """The worker's own error, without the layers that Ray puts around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
