"""Ray Data's scheduling loop, at rest while there is nothing for it to do.

Where the feed's buffer is full, no task runs, or one that does waits to give what it has made and counts as ready.
Ray 2.60's loop then goes round without waiting, in a thread of the training process, and takes a core from it: 378
rows/s where runs that end before the buffer is full made 1,025 (tests/benchmarks/README.md, time to quality).
"""

from __future__ import annotations

import time
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

IDLE_SECONDS = 0.02
"""Without a task: the buffer holds many batches, so that none comes late for it."""
BUSY_SECONDS = 0.002
"""With one: Ray's own wait returns at once where it counts as ready."""


class Rest(ExecutionCallback):  # type: ignore[misc]  # Ray is untyped
    """Waits after each round."""

    def on_execution_step(self, executor: Any) -> None:
        """Called at the end of a round."""
        runs = any(operator.get_active_tasks() for operator in executor._topology)
        time.sleep(BUSY_SECONDS if runs else IDLE_SECONDS)
