"""One run from the command line: server, plan, flow, summary.

The server starts first, because it takes longest; the recipe and the plan are worked out beside it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from flows import server as prefect_server
from flows.console import RunConsole, print_whole, summarize
from flows.execution import Execution, prepare
from flows.interrupt import GRACE_SECONDS, INTERRUPTED, exit_within
from flows.output import Out
from flows.quiet import imports, quiet
from flows.recipe import Recipe
from flows.summary import store_option
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RunRecord

EMPTY: dict[str, Any] = {"run_id": None, "state": "failed", "stages": [], "metrics": {}, "report": None}
"""What `--json` prints of a run that was refused before it had an id."""


def execute(
    out: Out,
    load: Callable[[], Recipe],
    *,
    forced: Collection[str] = (),
    previous: RunRecord | None = None,
) -> None:
    """Run a recipe and tell how it went; the exit status is in `out`.

    Raises:
        RequestError: the request is wrong and nothing was started.
    """
    quiet(out.verbose)
    with contextlib.ExitStack() as at_end, prefect_server.connection() as server:
        if server.child is None:
            server.wait()
        recipe = load()
        console = RunConsole(out.console, Store.open(recipe.store))
        execution = prepare(recipe, listener=console, forced=forced, previous=previous)
        _on_interrupt(out, execution, at_end)
        try:
            _call_flow(execution, server)
        except BaseException as error:
            if execution.record.state == "running":
                execution.finish("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error)
            else:
                execution.error = execution.error or error
        finally:
            console.close()
        _tell(out, execution)


def _call_flow(execution: Execution, server: prefect_server.Server) -> None:
    with imports():
        # the flow would import these two later; here they cost nothing, because the server is not up yet
        import fastapi.encoders  # noqa: F401
        import prefect.task_engine  # noqa: F401

        from flows import flow
    server.wait()
    try:
        flow.run(execution)
    finally:
        flow.drain()


def _tell(out: Out, execution: Execution) -> None:
    record = execution.record
    summarize(out.console, record)
    out.result(record.summary())
    again = f"continue with: pretextflow rerun {record.run_id}{store_option(record)}"
    if record.state in ("interrupted", "cancelled"):
        print_whole(out.errors, f"{record.state}; {again}")
        out.status = INTERRUPTED
    elif execution.error is not None:
        out.failed(execution.error)
        print_whole(out.errors, again)
        out.answer["error"] = record.error


def _on_interrupt(out: Out, execution: Execution, at_end: contextlib.ExitStack) -> None:
    """Ctrl-C stops the stage; when its cleanup takes longer than the grace, or at the second one, we are gone.

    SIGTERM does the same; while the flow runs, Prefect has its own handler for that, which raises as well.
    """
    pressed: list[int] = []

    def last_words() -> None:
        if execution.record.state == "running":
            execution.finish("interrupted", KeyboardInterrupt())
        if not out.written:
            _tell(out, execution)
            out.write_answer()

    def handler(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)
        at_end.callback(exit_within(GRACE_SECONDS if len(pressed) == 1 else 0, last_words).cancel)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
