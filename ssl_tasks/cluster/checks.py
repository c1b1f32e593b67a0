"""Whether a cluster's nodes have what a pretraining asks of them: judged from what they say, without Ray.

judge(nodes, config, here=versions())     every check's findings
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import ssl_tasks
from ssl_tasks.cluster.nodes import Node, Seen
from ssl_tasks.cluster.room import room
from ssl_tasks.training.config import PretrainConfig


def judge(nodes: Sequence[Node], config: PretrainConfig, here: Mapping[str, str]) -> list[Seen]:
    """All checks of a cluster whose nodes have been asked.

    Args:
        here: `versions()` of the driver.
    """
    answered = [node for node in nodes if not node.problem]
    return [
        *_each(nodes, "cluster nodes", _silent),
        *_each(answered, "cluster versions", lambda node: _other_versions(node, here)),
        *_each(answered, "cluster store", _no_store),
        *_each(answered, "cluster /dev/shm", _small_shm),
        *_each(answered, "cluster disk", _full_disk, "warn"),
        room(nodes, config),
    ]


def _each(
    nodes: Sequence[Node],
    check: str,
    look: Callable[[Node], tuple[str, str] | None],
    level: Literal["warn", "fail"] = "fail",
) -> list[Seen]:
    """One finding a node where something is wrong, one for all where nothing is."""
    found = [Seen(check, level, *wrong) for node in nodes if (wrong := look(node))]
    return found or [Seen(check, "ok", f"the same on {len(nodes)} nodes" if len(nodes) != 1 else "on 1 node")]


def _silent(node: Node) -> tuple[str, str] | None:
    if not node.problem:
        return None
    mend = f"install pretextflow {ssl_tasks.__version__} there" if "No module named" in node.problem else (
        "look at its /tmp/ray/session_latest/logs, or take it out of the cluster"
    )  # fmt: skip
    return f"ray_address: node {node.name} cannot run a task: {node.problem}", mend


def _other_versions(node: Node, here: Mapping[str, str]) -> tuple[str, str] | None:
    other = [name for name, version in here.items() if node.versions.get(name) != version]
    if not other:
        return None
    said = ", ".join(f"{name} {node.versions.get(name, 'not at all')} (here {here[name]})" for name in other)
    return f"ray_address: node {node.name} has {said}", "install the same on all nodes and restart Ray there"


def _no_store(node: Node) -> tuple[str, str] | None:
    if not node.store:
        return None
    mend = "choose a folder that all nodes share at the same path, or object storage that all can reach"
    return f"store: node {node.name} {node.store}", mend


def _small_shm(node: Node) -> tuple[str, str] | None:
    """Ray then puts the object store on the disk, and says so only in a log."""
    wanted = node.total.get("object_store_memory", 0)
    if node.shm_bytes is None or node.shm_bytes >= wanted:
        return None
    found = (
        f"ray_address: node {node.name} has {node.shm_bytes / 1e9:.2f} GB at /dev/shm and an object store of "
        f"{wanted / 1e9:.2f} GB, which Ray has put on its disk for that"
    )
    mend = (
        f"give its container {wanted / 0.9e9:.1f} GB (docker run --shm-size, compose shm_size), or start Ray with less"
    )
    return found, f"{mend} (--object-store-memory)"


def _full_disk(node: Node) -> tuple[str, str] | None:
    """No failure by itself: only what goes beyond the object store needs the disk."""
    if node.spill_bytes is None or node.spill_bytes > 0:
        return None
    found = (
        f"ray_address: the disk of node {node.name} is so full that Ray writes no object there, and a task whose "
        "object finds no room in the object store fails (OutOfDiskError)"
    )
    return found, "free some of it, or restart Ray there with --temp-dir on another disk"
