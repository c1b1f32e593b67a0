"""What runs in each training process. Importable by name, so that Ray sends a reference and not the code."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ssl_tasks.cluster.feed import start_feed
from ssl_tasks.cluster.metrics import Metrics
from ssl_tasks.cluster.spill import SpillWatch
from ssl_tasks.errors import PretextflowError
from ssl_tasks.store.output import PROGRESS_FILE
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import FAILURE_FILE, Job, checkpoint_steps


def train_worker(settings: dict[str, Any]) -> None:
    """One rank, from start to end. A failure that a user can mend is left in `failure.json`, not retried by Ray."""
    import ray.train

    job: Job = settings["job"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    store, folder = job.out.store, job.partial
    spill = SpillWatch(job, context.get_node_rank()) if context.get_local_rank() == 0 else None
    metrics = Metrics(settings["run"], job.out.fingerprint[:12], job.config.method.name) if rank == 0 else None

    def report(progress: dict[str, Any]) -> None:
        if spill is not None:
            spill.look()
        if metrics is not None:
            metrics.tell(progress)
            with contextlib.suppress(OSError):  # a store that is away for a moment must not end the training
                store.write_json(
                    f"{folder}/{PROGRESS_FILE}", {"total_steps": job.total_steps, "workers": world, **progress}
                )

    report({"step": 0, "note": "building the model"})
    try:
        _train(job, rank, world, _threads(job.config, context.get_local_world_size()), report)
    except PretextflowError as error:
        # any rank: the others may be waiting for this one, and the driver ends them when it reads this
        failure = {"message": str(error), "kind": type(error).__name__, "attempt": job.out.attempt}
        store.write_json(f"{folder}/{FAILURE_FILE}", failure)


def _threads(config: PretrainConfig, workers_here: int) -> int:
    """CPU threads of a worker on whose node `workers_here` train."""
    return config.threads or (
        config.cpus_per_worker if config.cpus_per_worker > 1 else max(1, (os.cpu_count() or 1) // workers_here)
    )


def _train(job: Job, rank: int, world: int, threads: int, report: Callable[[dict[str, Any]], None]) -> None:
    # The feed needs as long to start as torch and the model: it goes first, from where the newest marker says.
    first = max(checkpoint_steps(job.out.store, job.partial), default=0)
    started = start_feed(job, rank, world, first, job.last_step)

    import torch

    from ssl_tasks.training.loop import Trainer
    from ssl_tasks.training.results import write_pause, write_results
    from ssl_tasks.training.setup import Ranks

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills all memory that operations ask for, so that reads before writes show: a cost only.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set on its class by torch
    trainer = Trainer(job, Ranks(rank, world, _device()))
    report({"step": first, "note": "waiting for the first batch"})

    def feed(begin: int, end: int) -> Iterator[dict[str, np.ndarray]]:
        return started if begin == first else start_feed(job, rank, world, begin, end)  # a checkpoint was damaged

    began = time.monotonic()
    trainer.run(feed, report)
    if rank == 0 and job.last_step < job.total_steps:
        write_pause(trainer)
    elif rank == 0:
        write_results(trainer, time.monotonic() - began)


def _device() -> Any:
    import ray
    import torch

    if not ray.get_gpu_ids():
        return torch.device("cpu")
    import ray.train.torch

    return ray.train.torch.get_device()
