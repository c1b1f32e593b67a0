"""Watches whether Ray spills: writes objects to the disk of a node whose object store is full, which it tells to a log.

Each node's first training worker looks at its node's folder of spilled objects and keeps the most that it has seen in
the store. Objects of other work on the cluster are among them. A folder given by `ray start
--object-spilling-directory` is not known to workers and not looked at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from ssl_tasks.training.job import Job

FILES = "spilled-"
FOLDER_VARIABLE = "RAY_object_spilling_directory"
LIMIT_VARIABLE, LIMIT = "RAY_local_fs_capacity_threshold", 0.95
"""The share of a disk in use from which Ray writes no object there; its variable and its default."""


class SpillWatch:
    """Of one node."""

    def __init__(self, job: Job, node_rank: int) -> None:
        self._store, self._path = job.out.store, f"{job.partial}/{FILES}{node_rank:05d}.json"
        self._most = 0

    def look(self) -> None:
        """Note it where more is on the disk than ever before."""
        held = spilled_here()
        if held > self._most:
            self._most = held
            with contextlib.suppress(OSError):  # a store that is away for a moment must not end the training
                self._store.write_json(self._path, {"bytes": held})


def spilled_here() -> int:
    """Bytes of objects on this node's disk now; a connection to Ray must stand."""
    import ray
    from ray._private.ray_constants import DEFAULT_OBJECT_PREFIX

    folder, found = _parent() / f"{DEFAULT_OBJECT_PREFIX}_{ray.get_runtime_context().get_node_id()}", 0
    with contextlib.suppress(OSError):  # Ray makes it when it needs it, and deletes files at any time
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                found += entry.stat().st_size
    return found


def may_spill_here() -> int:
    """Bytes that Ray may still write to this node's disk; not more than 0 where none."""
    disk = shutil.disk_usage(_parent())
    return int(disk.free - (1 - float(os.environ.get(LIMIT_VARIABLE, LIMIT))) * disk.total)


def _parent() -> Path:
    import ray._private.worker

    node: Any = ray._private.worker._global_node  # no public name gives it
    return Path(os.environ.get(FOLDER_VARIABLE) or node.get_session_dir_path())


def clear(job: Job) -> None:
    """Forget what an earlier attempt has seen."""
    for name in job.out.store.list(job.partial):
        if name.startswith(FILES):
            job.out.store.delete(f"{job.partial}/{name}")


def most_spilled(job: Job) -> int:
    """Bytes that nodes had on their disks at most, added up."""
    store = job.out.store
    names = [name for name in store.list(job.partial) if name.startswith(FILES)]
    return sum(int((store.read_json(f"{job.partial}/{name}") or {}).get("bytes", 0)) for name in names)


def warning(num_bytes: int) -> list[str]:
    """What to say of it and what to change; nothing where nothing was spilled."""
    if not num_bytes:
        return []
    return [
        f"Ray's object store was full while training, and up to {num_bytes / 1e9:.2g} GB of it went to disks and back, "
        "which is slow: start Ray with more memory for it (ray start --object-store-memory), lower "
        "pretrain.feed_workers, or run less beside it"
    ]
