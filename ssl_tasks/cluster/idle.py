"""Ray Data's scheduling loop, at rest while there is nothing for it to do.

Where the feed's buffer is full, no task runs, or one that does waits to give what it has made and counts as ready.
Ray 2.60's loop then goes round without waiting, in a thread of the training process, and takes a core from it: 378
rows/s where runs that end before the buffer is full made 1,025 (tests/benchmarks/README.md, time to quality).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from ray.data._internal.execution.execution_callback import ExecutionCallback

IDLE_SECONDS = 0.02
"""Without a task, or while batches lie ready: so late that none is missed."""
BUSY_SECONDS = 0.002
"""With a task whose batch is waited for: Ray's own wait returns at once where it counts as ready."""


class Rest(ExecutionCallback):  # type: ignore[misc]  # Ray is untyped
    """Waits after each round."""

    is_ahead: ClassVar[Callable[[], bool]] = staticmethod(lambda: False)
    """Whether this process's feed has batches lying ready; Ray makes the callback itself, without arguments."""

    def on_execution_step(self, executor: Any) -> None:
        """Called at the end of a round."""
        runs = any(operator.get_active_tasks() for operator in executor._topology)
        time.sleep(BUSY_SECONDS if runs and not Rest.is_ahead() else IDLE_SECONDS)
