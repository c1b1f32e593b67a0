"""Says in a training's progress that its workers are about to start, again after a failure too, and what they lack.

Workers that have started say the rest themselves (worker.py).
"""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from ssl_tasks.cluster.room import Demand, lacks
from ssl_tasks.store.output import PROGRESS_FILE
from ssl_tasks.training.job import STARTS, Job


class TellsStarts(WorkerGroupCallback):  # type: ignore[misc]  # Ray is untyped
    """Called where Ray Train's controller runs. A private name of Ray 2.60, which pyproject.toml pins."""

    def __init__(self, job: Job, use_gpu: bool) -> None:
        self.job, self.use_gpu = job, use_gpu

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Not called where the cluster has become too small: then the shutdown before has said it."""
        tell_start(self.job, self.use_gpu)

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:
        """They have failed or ended, or there are to be more or fewer."""
        tell_start(self.job, self.use_gpu)


def tell_start(job: Job, use_gpu: bool) -> None:
    """Ray waits without a word until others give back what the workers need."""
    lacking = lacks(ray.available_resources(), Demand.of(job.config, use_gpu=use_gpu))
    tell(job, f"waiting for {lacking}, which others use" if lacking else "starting workers")


def tell(job: Job, note: str) -> None:
    """Put a note about workers that are about to start into the progress, whose step stays."""
    store, path = job.out.store, f"{job.partial}/{PROGRESS_FILE}"
    with contextlib.suppress(OSError):  # a store that is away for a moment must not end the training
        step = (store.read_json(path) or {}).get("step", 0)
        if step < job.last_step:
            store.write_json(path, {"step": step, "total_steps": job.total_steps, "note": note, STARTS: True})
