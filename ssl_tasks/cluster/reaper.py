"""Ends what a local Ray leaves when the process that started it is killed.

Ray's daemons and workers go with their parent, but its two agents first wait 60 s (a fixed number in Ray 2.60) for
an answer of the head that is gone. This file runs as a small process of its own, which reads a pipe: "done" means
an orderly end; the pipe's end without it means that the parent was killed.

    python reaper.py RAYLET_PID < pipe
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

GRACE_SECONDS = 2.0


@contextlib.contextmanager
def reaper(raylet_pid: int) -> Iterator[None]:
    """Have one beside the block."""
    command = [sys.executable, "-S", "-E", __file__, str(raylet_pid)]
    # a session of its own: a SIGKILL for our process group must not end it too
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            process.stdin.write(b"done")
            process.stdin.close()
        process.wait(5)


def children_of(raylet_pid: int) -> list[int]:
    """Processes that were started by this raylet, by the variable it gives them; none where there is no /proc."""
    mark = f"RAY_RAYLET_PID={raylet_pid}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def main(raylet_pid: int) -> None:
    """Wait for the pipe's end."""
    if sys.stdin.buffer.read() == b"done":
        return
    time.sleep(GRACE_SECONDS)  # workers end by themselves, and more gently
    for pid in children_of(raylet_pid):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
