"""Tells the Prefect log of a deployed run what the console tells a person."""

from __future__ import annotations

import logging

from flows.plan import Planned
from ssl_tasks.store.runs import StageRecord


class LogListener:
    """One line per stage in the flow run's log."""

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._logger = logger

    def planned(self, plan: list[Planned]) -> None:
        self._logger.info("to run: %s", ", ".join(p.name for p in plan if p.status != "cached") or "nothing")

    def started(self, planned: Planned) -> None:
        if planned.status != "cached":
            self._logger.info("%s: %s", planned.name, planned.reason)

    def waiting(self, stage: str, holder: str) -> None:
        self._logger.info("%s: waits for %s, which is making it", stage, holder)

    def finished(self, record: StageRecord) -> None:
        level = logging.ERROR if record.status == "failed" else logging.INFO
        self._logger.log(level, "%s %s, %s rows: %s", record.name, record.status, record.rows, record.reason)

    def warning(self, text: str) -> None:
        self._logger.warning("%s", text)
