"""What a node of a cluster says of itself, and what is said of it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import ssl_tasks
from ssl_tasks.config import digest

SAME = ("ray", "torch", "pyarrow")
"""Libraries that must have one version on all nodes: weights, batches and plans go from one to the other."""


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
    spill_bytes: int | None = None
    """What Ray may still write to the node's disk when its object store is full; None where that is not known."""
    store: str = ""
    """Why the run's store cannot be used there."""
    problem: str = ""
    """Why the node could not be asked."""


def versions() -> dict[str, str]:
    """Of Python, of the libraries that must agree, and of pretextflow with a digest of its `versions.lock`."""
    lock = Path(ssl_tasks.__file__).with_name("versions.lock")
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in SAME:
        found[name] = importlib.metadata.version(name).partition("+")[0]  # torch's 2.14.1+cpu trains with 2.14.1
    return {**found, "pretextflow": f"{ssl_tasks.__version__} ({digest(lock.read_text())[:8]})"}
