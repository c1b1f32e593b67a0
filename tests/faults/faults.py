"""The faults that suite.py injects, each a function of a live run.

Every one says what must be there before it can strike (`ready`) and undoes what a rerun must not meet (`heal`).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests_runs import Run

TRAINING, FEED, RAYLET, HEAD, SERVER = (
    "ray::RayTrainWorker",
    "ray::MapBatches",
    "/raylet ",
    "gcs_server",
    "prefect_child",
)
CHECKPOINTS = "partial/*/step-*.pt"
FILLING = "filling"


def _nothing(store: Path) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    title: str
    strike: Callable[[Run, random.Random], None]
    ready: Callable[[Run], bool] = lambda run: True
    """It waits until this is so, and then for a random time."""
    heal: Callable[[Path], None] = _nothing
    """Of the store, before the run is continued."""
    small_disk: bool = False
    """The store is a file system of its own, which root can fill and make read-only."""


def has(title: str) -> Callable[[Run], bool]:
    """Whether there is such a process."""
    return lambda run: bool(run.processes(title))


def _has_checkpoint(run: Run) -> bool:
    return any(run.store.glob(CHECKPOINTS))


def kill(title: str) -> Callable[[Run, random.Random], None]:
    """SIGKILL for a process of the run."""
    return lambda run, chance: _must(run.kill(title))


def _must(struck: bool) -> None:
    if not struck:
        raise LookupError("the process had ended")


def _driver(run: Run, chance: random.Random) -> None:
    os.kill(run.process.pid, signal.SIGKILL)


def _group(run: Run, chance: random.Random) -> None:
    os.killpg(run.process.pid, signal.SIGKILL)


def _interrupt(run: Run, chance: random.Random) -> None:
    os.killpg(run.process.pid, signal.SIGINT)


def _truncated_checkpoint(run: Run, chance: random.Random) -> None:
    """The newest checkpoint loses its second half while its training is killed."""
    run.kill_group()
    found = sorted(run.store.glob(CHECKPOINTS))
    if not found:
        raise LookupError("there was no checkpoint yet")
    newest = found[-1]
    os.truncate(newest, newest.stat().st_size // 2)


def _exhausted_feed(run: Run, chance: random.Random) -> None:
    """A worker that makes views gets no more memory."""
    for pid in run.processes(FEED)[:1] or [0]:
        _must(bool(pid))
        subprocess.run(["prlimit", f"--pid={pid}", f"--as={64 << 20}"], check=True)


def _second_run(run: Run, chance: random.Random) -> None:
    """The same recipe once more, at once; both must end well."""
    recipe = str(run.store.parent / "faults.yaml")
    Run(run.store, "run", recipe).finish()


def _full_disk(run: Run, chance: random.Random) -> None:
    free = shutil.disk_usage(run.store).free
    with open(run.store / FILLING, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - (64 << 10)))


def _empty_disk(store: Path) -> None:
    (store / FILLING).unlink(missing_ok=True)


def remount(how: str) -> Callable[[Path], None]:
    """The store's file system as `ro` or `rw`."""
    return lambda store: _remount(store, how)


def _remount(store: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(store)], check=True, capture_output=True)


def _read_only(run: Run, chance: random.Random) -> None:
    """Files that are open for writing keep the kernel from it: those of a moment ago are waited for."""
    for _ in range(200):
        try:
            return _remount(run.store, "ro")
        except subprocess.CalledProcessError:
            chance.random()
    raise LookupError("the store was always being written to")


FAULTS = {
    "worker": Fault("training worker killed", kill(TRAINING), has(TRAINING)),
    "feed": Fault("worker that makes views killed", kill(FEED), has(FEED)),
    "raylet": Fault("node (raylet) killed", kill(RAYLET), has(RAYLET)),
    "head": Fault("head (GCS) killed", kill(HEAD), has(HEAD)),
    "driver": Fault("driver killed", _driver),
    "group": Fault("driver and all its group killed", _group),
    "server": Fault("Prefect server killed", kill(SERVER), has(SERVER)),
    "checkpoint": Fault("checkpoint truncated, training killed", _truncated_checkpoint, _has_checkpoint),
    "memory": Fault("memory exhausted in a worker that makes views", _exhausted_feed, has(FEED)),
    "twice": Fault("the same recipe run twice at once", _second_run),
    "ctrl_c": Fault("Ctrl-C", _interrupt),
    "full": Fault("store full", _full_disk, heal=_empty_disk, small_disk=True),
    "read_only": Fault("store refuses to be written to", _read_only, heal=remount("rw"), small_disk=True),
}
