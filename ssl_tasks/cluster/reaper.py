"""Ends what a local Ray leaves behind, however the process that started it ends.

Ray's daemons and workers go with their parent, but its two agents first wait 60 s (a fixed number in Ray 2.60) for
an answer of the head that is gone, and workers outlive a raylet that was killed. This file runs as a small process of
its own, from before Ray starts, and reads a pipe. At the pipe's end it ends all processes that carry the mark.

    python reaper.py MARK < pipe
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

GRACE_SECONDS = 2.0
VARIABLE = "PRETEXTFLOW_RAY"


@contextlib.contextmanager
def reaper() -> Iterator[str]:
    """Have one beside the block.

    Yields:
        The mark: the value of `VARIABLE` that Ray's processes are to inherit.
    """
    mark = uuid.uuid4().hex
    command = [sys.executable, "-S", "-E", __file__, mark]
    none = subprocess.DEVNULL  # who reads our output waits for the last process that could write to it
    # a session of its own: a SIGKILL for our process group must not end it too
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=none, stderr=none, start_new_session=True)
    assert process.stdin is not None
    try:
        process.wait()  # what reads the pipe is a child of it, so that nobody has to wait for that one
        yield mark
    finally:
        process.stdin.close()


def marked(mark: str) -> list[int]:
    """Processes that have inherited it; none where there is no /proc."""
    wanted, found = f"{VARIABLE}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def main(mark: str) -> None:
    """Wait for the pipe's end, in a process that nobody has to wait for."""
    if os.fork():
        os._exit(0)
    sys.stdin.buffer.read()
    time.sleep(GRACE_SECONDS)  # most end by themselves, and more gently
    for pid in marked(mark):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
