"""Ray Data's scheduling loop, at rest while there is nothing for it to do.

Where the feed's buffer is full, no task runs, and Ray 2.60's loop then goes round without waiting, in a thread of the
training process: a step on two cores took 2.6 times as long, in every run that is longer than the buffer.
"""

from __future__ import annotations

import time
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

IDLE_SECONDS = 0.02
"""Without a task: the buffer holds many batches, so that none comes late for it."""
BUSY_SECONDS = 0.002
"""With one that runs, or that waits to give what it has made: Ray's own wait returns at once then."""


class Rest(ExecutionCallback):  # type: ignore[misc]  # Ray is untyped
    """Waits after each round."""

    def on_execution_step(self, executor: Any) -> None:
        """Called at the end of a round."""
        runs = any(operator.get_active_tasks() for operator in executor._topology)
        time.sleep(BUSY_SECONDS if runs else IDLE_SECONDS)
