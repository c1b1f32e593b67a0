"""What a command says and how it ends: people on one stream, one JSON object on stdout, the exit status.

with reporting(json=True) as out:
    out.result({"state": "completed"})
"""

from __future__ import annotations

import json as json_module
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from flows.console import make_console, print_whole
from flows.interrupt import INTERRUPTED
from ssl_tasks.errors import PretextflowError
from ssl_tasks.store.cache import cache_home


@dataclass
class Out:
    """Where a command prints."""

    json: bool
    verbose: bool
    console: Console
    """For people: stdout, or stderr where stdout is for the JSON object."""
    errors: Console
    answer: dict[str, Any] = field(default_factory=dict)
    status: int = 0
    written: bool = False

    def result(self, answer: dict[str, Any]) -> None:
        """What `--json` prints as its last line; nothing otherwise."""
        self.answer = answer

    def write_answer(self) -> None:
        """Print the JSON object, once, where it was asked for."""
        if self.json and not self.written:
            self.written = True
            sys.stdout.write(json_module.dumps(self.answer, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def failed(self, error: BaseException) -> None:
        """Tell an error in one message and set the exit status; a traceback only with --verbose."""
        if isinstance(error, KeyboardInterrupt):
            self.status = INTERRUPTED
            return
        if self.verbose:
            self.errors.print("".join(traceback.format_exception(error)), markup=False, highlight=False)
        if isinstance(error, PretextflowError):
            self.status = error.exit_status
            message = str(error)
        else:
            self.status = 1
            text = " ".join(str(error).split())
            message = f"{type(error).__name__}: {text} (details: {write_log(error)})"
        print_whole(self.errors, f"error: {message}")
        self.answer.setdefault("error", message)


@contextmanager
def reporting(*, json: bool = False, verbose: bool = False, empty: dict[str, Any] | None = None) -> Iterator[Out]:
    """Around a command: errors become one message and an exit status, the JSON object comes last.

    Args:
        empty: what the JSON object holds when the command failed before it had a result.
    """
    out = Out(json, verbose, make_console(stderr=json), make_console(stderr=True), dict(empty or {}))
    try:
        yield out
    except (Exception, KeyboardInterrupt) as error:  # whatever it is, a user reads one line
        if isinstance(error, KeyboardInterrupt):
            print_whole(out.errors, "interrupted")
        out.failed(error)
    out.write_answer()
    raise typer.Exit(out.status)


def write_log(error: BaseException) -> Path:
    """Write the traceback to a file of its own, and give its path."""
    folder = cache_home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06d}.log"
    path.write_text("".join(traceback.format_exception(error)))
    return path
