"""What a person sees of a run: a line per stage, one bar for training, a closing summary.

In a pipe there are plain lines and no bar. With `--json` all of it goes to stderr.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from rich.console import Console
from rich.text import Text

from flows.execution import Listener
from flows.plan import Planned
from flows.progress import ProgressLine
from flows.summary import METRIC_COLUMNS, duration, metric_cells, metric_rows, set_aside, verdict
from flows.tables import print_table
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RunRecord, StageRecord

MARKS = {"ran": ("✓", "green"), "cached": ("•", "blue"), "failed": ("✗", "red"), "skipped": ("-", "dim")}
ASCII_MARKS = {"ran": "+", "cached": "=", "failed": "x", "skipped": "-"}


class RunConsole(Listener):
    """The listener of a run that somebody watches."""

    def __init__(self, console: Console, store: Store) -> None:
        self.console = console
        self._store = store
        self._unicode = (console.encoding or "").lower().startswith("utf")
        self._line: ProgressLine | None = None
        self._width = 10

    def planned(self, plan: list[Planned]) -> None:
        """What is going to run."""
        self._width = max(len(entry.name) for entry in plan)
        to_run = [entry.name for entry in plan if entry.status != "cached"]
        print_line(self.console, f"to run: {', '.join(to_run)}" if to_run else "everything is cached", style="dim")

    def started(self, planned: Planned) -> None:
        """A stage begins."""
        if planned.status == "cached":
            return
        self._line = ProgressLine(self.console, self._store, planned)
        self._line.start()

    def waiting(self, stage: str, holder: str) -> None:
        """Another run holds the stage."""
        self.warning(f"{stage}: waits for {holder}, which is making it")

    def finished(self, record: StageRecord) -> None:
        """The stage's line."""
        self.close()
        mark, colour = MARKS[record.status]
        rows = "" if record.rows is None else f"{record.rows:,} rows"
        line = Text(f"{mark if self._unicode else ASCII_MARKS[record.status]} ", style=colour)
        line.append(f"{record.name:<{self._width}} ", style="bold")
        line.append(f"{record.status:<6} {rows:>13} {duration(record.seconds):>12}  ", style="default")
        line.append(record.reason, style="dim")
        print_line(self.console, line)

    def warning(self, text: str) -> None:
        """A line of its own."""
        print_line(self.console, f"warning: {text}", style="yellow")

    def close(self) -> None:
        """Take the progress line away."""
        if self._line:
            self._line.stop()
            self._line = None


def print_line(console: Console, line: str | Text, style: str | None = None) -> None:
    """One line: cut at the window's edge on a terminal, whole in a pipe. Markup in names is not read."""
    with contextlib.suppress(BrokenPipeError):
        cut = console.is_terminal
        console.print(
            line, style=style, markup=False, highlight=False, no_wrap=cut, overflow="ellipsis" if cut else "ignore",
            crop=cut, soft_wrap=not cut,
        )  # fmt: skip


def make_console(*, stderr: bool) -> Console:
    """A console whose width in a pipe is wide enough for a line per stage."""
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(stderr=stderr, width=160)
    return console


def summarize(console: Console, record: RunRecord) -> None:
    """The closing summary: main metrics, time, the report's path, how to continue."""
    rows = metric_rows(record)
    if rows:
        print_table(console, METRIC_COLUMNS, [metric_cells(row) for row in rows], right=METRIC_COLUMNS[1:])
    sentence = verdict(record)
    if sentence:
        console.print(Text(sentence))
    aside = set_aside(record)
    if aside:
        print_whole(console, aside)
    counts = [f"{sum(s.status == status for s in record.stages)} {status}" for status in ("ran", "cached", "failed")]
    shown = ", ".join(text for text in counts if not text.startswith("0 "))
    took = "" if record.seconds is None else f" in {duration(record.seconds)}"
    print_line(console, f"run {record.run_id}: {record.state}{took} ({shown or 'no stage'})")
    if record.report:
        print_whole(console, f"report: {record.report}")


def print_whole(console: Console, text: str) -> None:
    """A line that is never cut or broken: paths and commands are there to be copied."""
    console.print(Text(text), soft_wrap=True)


def plan_table(console: Console, plan: list[Planned]) -> None:
    """What would run, why, and how long it took the last time."""
    cells = [[entry.name, entry.status, duration(entry.last_seconds), entry.reason] for entry in plan]
    print_table(console, ["stage", "status", "last took", "why"], cells, right=["last took"])
    known = [entry.last_seconds for entry in plan if entry.status != "cached" and entry.last_seconds is not None]
    to_run = [entry for entry in plan if entry.status != "cached"]
    if not to_run:
        print_line(console, "nothing would run")
    else:
        cost = f", about {duration(sum(known))} by their last times" if len(known) == len(to_run) else ""
        print_line(console, f"{len(to_run)} of {len(plan)} stages would run{cost}")


def plan_dict(entry: Planned) -> dict[str, Any]:
    """What `plan --json` says of a stage."""
    return {
        "name": entry.name,
        "status": entry.status,
        "seconds": entry.last_seconds,
        "fingerprint": entry.fingerprint,
        "reason": entry.reason,
    }
