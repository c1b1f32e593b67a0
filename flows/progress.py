"""The live line of a running stage: fed from `partial/<fingerprint>/progress.json`, which the stage writes.

{"step": 120, "total_steps": 400, "loss": 4.2, "rows_per_second": 310.0, "note": "starting Ray"}    training
{"done": 8192, "total": 50000, "unit": "files"}                                                     other stages
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.plan import Planned
from flows.summary import duration
from ssl_tasks.store import Store

POLL_SECONDS = 0.5
REMOTE_POLL_SECONDS = 5.0
PIPE_SECONDS = 30.0
"""In a pipe, a plain line this often."""


class ProgressLine:
    """Shows one stage's progress until it is stopped."""

    def __init__(self, console: Console, store: Store, planned: Planned) -> None:
        self._console = console
        self._store = store
        self._planned = planned
        self._began = time.monotonic()
        self._first: tuple[float, int] | None = None
        """When and at which step this process first saw training move: a resumed run does not start at 0."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")

    def start(self) -> None:
        """Begin to show it."""
        self._thread.start()

    def stop(self) -> None:
        """Take it away."""
        self._stop.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        if not self._console.is_terminal:
            while not self._stop.wait(PIPE_SECONDS):
                self._console.print(self._text(self._read()), markup=False, highlight=False, soft_wrap=True)
            return
        pause = POLL_SECONDS if self._store.is_local else REMOTE_POLL_SECONDS
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            while not self._stop.is_set():
                live.update(self._line(self._read()), refresh=True)
                self._stop.wait(pause)

    def _read(self) -> dict[str, Any]:
        found: Any = None
        with contextlib.suppress(OSError):  # a store that is away for a moment must not end the display
            found = self._store.read_json(f"partial/{self._planned.fingerprint}/progress.json")
        progress: dict[str, Any] = found if isinstance(found, dict) else {}
        done, _ = _place(progress)
        if done and self._first is None:
            self._first = (time.monotonic(), done)
        return progress

    def _line(self, progress: dict[str, Any]) -> Table:
        line = Table.grid(padding=(0, 1))
        done, total = _place(progress)
        text = Text(self._text(progress), no_wrap=True, overflow="ellipsis")
        if done and total and self._console.width >= 60:
            line.add_row(ProgressBar(total=total, completed=done, width=min(30, self._console.width // 4)), text)
        else:
            line.add_row(text)
        return line

    def _text(self, progress: dict[str, Any]) -> str:
        done, total = _place(progress)
        parts = [self._planned.name]
        if done:
            unit = progress.get("unit")
            if unit:
                parts.append(f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}")
            else:
                parts.append(f"step {done}/{total}" if total else f"step {done}")
            if isinstance(progress.get("loss"), int | float):
                parts.append(f"loss {progress['loss']:.4g}")
            if progress.get("rows_per_second"):
                parts.append(f"{progress['rows_per_second']:,.0f} rows/s")
            left = self._left(done, total)
            if left is not None:
                parts.append(f"{duration(left)} left")
        else:
            parts.append(duration(time.monotonic() - self._began))
        if progress.get("note"):
            parts.append(str(progress["note"]))
        return "  ".join(parts)

    def _left(self, done: int, total: int) -> float | None:
        if self._first is None or done <= self._first[1] or total < done:
            return None
        return (time.monotonic() - self._first[0]) / (done - self._first[1]) * (total - done)


def _place(progress: dict[str, Any]) -> tuple[int, int]:
    """How much is done, and of how much; 0 where that is not known."""
    return progress.get("step") or progress.get("done") or 0, progress.get("total_steps") or progress.get("total") or 0
