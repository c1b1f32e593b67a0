"""Of two runs that want the same artifact, one makes it and the other waits.

A lease is a small file with a counter that its holder raises. A waiter compares the counter with its own
clock only, so clocks that differ or jump do no harm. A holder that stood still for so long that another took
over (a suspended machine) finds out before it commits, and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssl_tasks.store.filesystem import Store

BEAT_SECONDS = 2.0
TTL_SECONDS = 15.0


@contextlib.contextmanager
def lease(store: Store, fingerprint: str, on_wait: Callable[[str], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Hold the lease of `fingerprint` while the block runs; wait while somebody else holds it.

    Args:
        on_wait: called once with the holder's name when there is somebody to wait for.

    Yields:
        A function that says whether the lease is still ours.
    """
    path = f"leases/{fingerprint}.json"
    mine = {"holder": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "born": born(os.getpid())}
    _acquire(store, path, mine, on_wait)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, path, mine, stop), daemon=True, name="lease")
    beat.start()
    try:
        yield lambda: _holder(store, path) == mine["holder"]
    finally:
        stop.set()
        beat.join(BEAT_SECONDS * 2)
        if _holder(store, path) == mine["holder"]:
            store.delete(path)


def is_held(store: Store, fingerprint: str) -> bool:
    """Whether somebody seems to be making this artifact: a lease exists and its holder is not known to be dead."""
    found = store.read_json(f"leases/{fingerprint}.json")
    return isinstance(found, dict) and not _is_dead(found)


def _acquire(store: Store, path: str, mine: dict[str, Any], on_wait: Callable[[str], None] | None) -> None:
    seen: Any = None
    since = time.monotonic()
    told = False
    while True:
        if _create(store, path, mine):
            time.sleep(0.05 if store.is_local else 1.0)  # let a rival's write land, then see who stands there
            if _holder(store, path) == mine["holder"]:
                return
        data = store.read_bytes(path)
        if data is None:
            continue
        if data != seen:
            seen, since = data, time.monotonic()
        found = _parsed(data)
        if _is_dead(found) or time.monotonic() - since > TTL_SECONDS:
            store.delete(path)
            continue
        if on_wait and not told:
            on_wait(f"{found.get('host')} (process {found.get('pid')})")
            told = True
        time.sleep(0.2 if store.is_local else 2.0)


def _create(store: Store, path: str, mine: dict[str, Any]) -> bool:
    if not store.is_local:
        if store.read_bytes(path) is not None:
            return False
        store.write_json(path, mine)
        return True
    target = Path(store.full(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{mine['holder']}")
    with open(temporary, "w") as stream:
        json.dump(mine, stream)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, target)  # fails where the lease exists, and shows it whole where it does not
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _beat(store: Store, path: str, mine: dict[str, Any], stop: threading.Event) -> None:
    count = 0
    while not stop.wait(BEAT_SECONDS):
        count += 1
        with contextlib.suppress(OSError):  # a store that is away for a moment must not end the stage
            if _holder(store, path) in (None, mine["holder"]):
                store.write_json(path, {**mine, "beat": count})


def _holder(store: Store, path: str) -> Any:
    return _parsed(store.read_bytes(path) or b"").get("holder")


def _parsed(data: bytes) -> dict[str, Any]:
    """What a lease says; nothing where a crash left it cut short, which then expires like any other."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead(found: dict[str, Any]) -> bool:
    """Known to be dead: on this host, and its process is gone or is another one under the same number."""
    return found.get("host") == socket.gethostname() and born(int(found.get("pid", -1))) != found.get("born")


def born(pid: int) -> str | None:
    """Start time of a process in clock ticks, which tells a reused process number; None where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _alive(pid)
    return None if fields[0] in "ZX" else fields[19]


def _alive(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "alive"
