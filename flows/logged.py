"""Tells the Prefect log of a deployed run what the console tells a person."""

from __future__ import annotations

import logging

from flows.execution import Listener
from flows.plan import Planned
from ssl_tasks.store.runs import StageRecord


class LogListener(Listener):
    """One line per stage in the flow run's log."""

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._logger = logger

    def planned(self, plan: list[Planned]) -> None:
        """What is going to run."""
        self._logger.info("to run: %s", ", ".join(p.name for p in plan if p.status != "cached") or "nothing")

    def started(self, planned: Planned) -> None:
        """A stage begins."""
        if planned.status != "cached":
            self._logger.info("%s: %s", planned.name, planned.reason)

    def waiting(self, stage: str, holder: str) -> None:
        """Another run holds the stage."""
        self._logger.info("%s: waits for %s, which is making it", stage, holder)

    def finished(self, record: StageRecord) -> None:
        """The stage's line."""
        level = logging.ERROR if record.status == "failed" else logging.INFO
        self._logger.log(level, "%s %s, %s rows: %s", record.name, record.status, record.rows, record.reason)

    def warning(self, text: str) -> None:
        """A line of its own."""
        self._logger.warning("%s", text)
