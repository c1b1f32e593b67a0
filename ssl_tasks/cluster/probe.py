"""Whether the connected Ray works at all: for the doctor command."""

from __future__ import annotations

DEADLINE_SECONDS = 60.0


def run_one_task() -> str:
    """Run one task and say on what; `connect.connection` must stand.

    Raises:
        ray.exceptions.GetTimeoutError: it was not done within `DEADLINE_SECONDS`.
    """
    import ray

    done: int = ray.get(ray.remote(_one).remote(), timeout=DEADLINE_SECONDS)
    cpus, gpus = (ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU"))
    return f"ran {done} task; nodes: {len(ray.nodes())}, CPUs: {cpus:g}, GPUs: {gpus:g}"


def _one() -> int:
    return 1
