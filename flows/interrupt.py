"""Interruptions: a cancel in the Prefect UI becomes a signal to this process; an exit that hangs is cut short; a child
ends with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self
from uuid import UUID

POLL_SECONDS = 1.0
JOIN_SECONDS = 1.0
GRACE_SECONDS = 4.3
"""What a stage has for stopping its Ray work after an interruption."""
INTERRUPTED = 130
PARENT = "PRETEXTFLOW_PARENT"
"""Process number of who started this command and is not to be outlived, such as a comparison."""
PR_SET_PDEATHSIG = 1


class CancelWatcher:
    """Asks the server for the flow run's state and interrupts the main thread when somebody cancelled it.

    Prefect itself cancels only runs that a worker or runner started as its own process.
    """

    def __init__(self, flow_run_id: str) -> None:
        self.cancelled = False
        self._id = UUID(flow_run_id)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="cancel-watcher")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(JOIN_SECONDS)

    def _watch(self) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self._stop.wait(POLL_SECONDS):
                # a server that is away for a moment must not end the run
                with contextlib.suppress(Exception):
                    state = client.read_flow_run(self._id).state
                    if self._stop.is_set():
                        return  # the stages ended during the read: what follows must not be interrupted
                    if state and (state.is_cancelling() or state.is_cancelled()):
                        self.cancelled = True
                        main = threading.main_thread().ident
                        assert main is not None
                        signal.pthread_kill(main, signal.SIGINT)  # a real signal: it ends system calls that wait
                        return


def exit_within(seconds: float, last_words: Callable[[], None]) -> threading.Timer:
    """Leave the process after `seconds`, whatever hangs; cancel the timer when the orderly exit was quicker.

    A local Ray goes with the process: its daemons are bound to their parent's life.
    """

    def end() -> None:
        with contextlib.suppress(Exception):  # the words are a courtesy, the exit is the promise
            last_words()
        os._exit(INTERRUPTED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def leave(status: int) -> NoReturn:
    """End this process without the interpreter's own end, in which libraries wait for their threads and are taken down.

    For after an interruption, when all has been said and closed.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that has gone
            stream.flush()
    os._exit(status)


def die_with(parent: int) -> None:
    """End this process with its parent, even when that is killed with SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)
