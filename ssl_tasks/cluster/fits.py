"""Independent fits as Ray tasks with declared resources, for the runs that are connected to a cluster.

    with ray_fits("head:6379", cpus_per_fit=1) as runner:
        rows = runner.share(rows)                       # once in the object store, mapped by every fit
        wait = runner.submit(fit, rows, 0)

A task whose process dies is started once more; then its fit has failed, and the others go on.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from ssl_tasks.cluster.connect import connection
from ssl_tasks.errors import RequestError, StageError, TryAgainError
from ssl_tasks.transfer.runners import Runner, one_thread, quietly_alone

T = TypeVar("T")
RETRIES = 1
LOOK_SECONDS = 30.0
LOST_SECONDS = 1800.0
"""How long no node may have what a fit needs: a lost one can come back, or another in its place."""
KEPT = 4
"""Shared values that a process of Ray holds on to: labels, rows and context of its fit, and one of before."""


@dataclass(frozen=True)
class _Shared:
    """A handle of what stands in the object store; inside of an object, so that Ray does not fetch it for each task."""

    ref: Any


@dataclass(frozen=True)
class _Raised:
    """What a fit raised, without the layers that Ray puts around an error."""

    error: Exception


class _Tasks:
    def __init__(self, cpus_per_fit: float, gpus_per_fit: float) -> None:
        self.needs = cpus_per_fit, gpus_per_fit
        self.lost_at: float | None = None
        self.run = ray.remote(_run).options(
            num_cpus=cpus_per_fit, num_gpus=gpus_per_fit, max_retries=RETRIES, name="transfer fit"
        )
        self.started: list[Any] = []

    def share(self, value: Any) -> Any:
        return _Shared(ray.put(value))

    def submit(self, fit: Callable[..., T | str], *args: Any) -> Callable[[], T | str]:
        task = self.run.remote(fit, args)
        self.started.append(task)
        return functools.partial(self.wait, task)

    def wait(self, task: Any) -> Any:
        """What the fit returned. Ray would wait for ever for a node that nobody brings back."""
        while not ray.wait([task], timeout=LOOK_SECONDS)[0]:
            lacking, now = _lacking(*self.needs), time.monotonic()
            self.lost_at = (self.lost_at or now) if lacking else None
            if self.lost_at is not None and now - self.lost_at >= LOST_SECONDS:
                raise TryAgainError(f"{lacking}, for {LOST_SECONDS / 60:g} minutes; it had when the fits began")
        return _result(task)

    def cancel(self) -> None:
        """End what has not ended; a fit that runs is in native code, which only the end of its process interrupts."""
        pending = ray.wait(self.started, num_returns=len(self.started), timeout=0)[1] if self.started else []
        for task in pending:
            with contextlib.suppress(RayError):
                ray.cancel(task, force=True)


@contextlib.contextmanager
def ray_fits(address: str | None = None, cpus_per_fit: float = 1.0, gpus_per_fit: float = 0.0) -> Iterator[Runner]:
    """Run fits as tasks while the block runs; what is left at its end is cancelled.

    Args:
        address: host:port of a running cluster; None for a local one of our own.
        cpus_per_fit: logical CPUs that a task reserves; it computes on one thread.
        gpus_per_fit: GPUs that it reserves; of several fits on one, a share.

    Raises:
        RequestError: nothing answers at the address, or no node has so much.
    """
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # else a fit that fills the memory is tried for ever
    cores = os.cpu_count() or 1
    with connection(address, num_cpus=max(cores, math.ceil(cpus_per_fit))):
        _require(cpus_per_fit, gpus_per_fit)
        tasks = _Tasks(cpus_per_fit, gpus_per_fit)
        try:
            with quietly_alone():  # what is prepared here is the same bits as with threads
                yield tasks
        finally:
            tasks.cancel()


def _require(cpus: float, gpus: float) -> None:
    """Refuse what would wait for ever."""
    lacking = _lacking(cpus, gpus)
    if lacking:
        raise RequestError(f"{lacking}; lower it or add a node")


def _lacking(cpus: float, gpus: float) -> str:
    """What no node of the cluster has: a task runs on one node; "" where one has it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, key, needed in (("CPU", "cpus_per_fit", cpus), ("GPU", "gpus_per_fit", gpus)):
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if needed > most:
            has = f"the largest node of the Ray cluster has {most:g}"
            return f"transfer.{key}: a fit asks for {needed:g} {name}, and {has}"
    return ""


def _result(task: Any) -> Any:
    try:
        done = ray.get(task)
    except RayTaskError as error:  # before the fit: what it raises itself comes back as `_Raised`
        last = str(error).strip().splitlines()[-1].strip()
        raise StageError(
            f"transfer: a process of Ray could not begin a fit: {last}; every node needs the same installation"
        ) from error
    except OutOfMemoryError:
        return "OutOfMemoryError: Ray ended the fit's process, twice, because its node ran out of memory"
    except RayError as error:
        return f"{type(error).__name__}: the process of the fit ended, twice"
    if isinstance(done, _Raised):
        raise done.error
    return done


def _run(fit: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """In a process of Ray."""
    values = [_value(each.ref) if isinstance(each, _Shared) else each for each in args]
    one_thread()
    try:
        with quietly_alone():
            return fit(*values)
    except Exception as error:
        return _Raised(error)


@functools.lru_cache(KEPT)
def _value(ref: Any) -> Any:
    """Arrays are mapped from the object store, read-only; a context is made once in each process."""
    return ray.get(ref)
