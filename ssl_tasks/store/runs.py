"""Run records, `runs/<run id>.json`: written before the first stage and after each.

record = find_run(store, "20261122-083149")
record.state, record.stages[0].status
"""

from __future__ import annotations

import difflib
import os
import secrets
import socket
import time
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ssl_tasks.errors import RequestError
from ssl_tasks.store.filesystem import Store
from ssl_tasks.store.lease import born

RunState = Literal["running", "completed", "failed", "interrupted", "cancelled"]
StageStatus = Literal["pending", "ran", "cached", "failed", "skipped"]
RUN_VARIABLE = "PRETEXTFLOW_RUN"
"""Of a process that runs stages: the run's id, by which their metrics are told apart."""
UNFINISHED: tuple[RunState, ...] = ("failed", "interrupted", "cancelled")


class StageRecord(BaseModel):
    """One stage of a run; before it ends, what was planned."""

    name: str
    status: StageStatus = "pending"
    seconds: float | None = None
    rows: int | None = None
    uri: str | None = None
    fingerprint: str
    reason: str


class RunRecord(BaseModel):
    """One run: what was asked, what became of each stage, who works on it."""

    run_id: str
    name: str
    """The recipe's name."""
    recipe: dict[str, Any]
    state: RunState = "running"
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    born: str | None = Field(default_factory=lambda: born(os.getpid()))
    """Start time of the process, which tells a reused process number."""
    started: float = Field(default_factory=time.time)
    """Seconds since 1970, of the first attempt."""
    continued: float | None = None
    """Start of the latest attempt, where there was more than one."""
    finished: float | None = None
    stages: list[StageRecord]
    metrics: dict[str, Any] = {}
    report: str | None = None
    error: str | None = None
    flow_run_id: str | None = None

    def stage(self, name: str) -> StageRecord:
        """The record of one stage."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def seconds(self) -> float | None:
        """How long the latest attempt took; None while it runs, and where it was killed."""
        return None if self.finished is None else self.finished - (self.continued or self.started)

    def is_alive(self) -> bool:
        """Whether it is running; a run of another host counts as alive, because its process cannot be seen."""
        if self.state != "running":
            return False
        return self.host != socket.gethostname() or (self.born is not None and born(self.pid) == self.born)

    def summary(self) -> dict[str, Any]:
        """What `--json` prints of a run."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "state": self.state,
            "started": self.started,
            "continued": self.continued,
            "finished": self.finished,
            "stages": [stage.model_dump() for stage in self.stages],
            "metrics": self.metrics,
            "report": self.report,
            "error": self.error,
        }


def new_run_id(name: str) -> str:
    """UTC time, recipe and four random digits: sorts by time and can be read aloud."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{name}-{secrets.token_hex(2)}"


def save_run(store: Store, record: RunRecord) -> None:
    """Write the record; readers see the old one or the new one."""
    store.write_json(f"runs/{record.run_id}.json", record.model_dump(mode="json"))


def load_run(store: Store, run_id: str) -> RunRecord | None:
    """A record, or None where there is none that can be read. A run whose process is gone is `interrupted`."""
    try:
        data = store.read_json(f"runs/{run_id}.json")
        record = None if data is None else RunRecord.model_validate(data)
    except ValidationError:
        return None
    if record and record.state == "running" and not record.is_alive():
        record.state = "interrupted"
        for stage in record.stages:
            if stage.status == "pending":
                stage.status, stage.reason = "skipped", "run interrupted"
    return record


def run_ids(store: Store) -> list[str]:
    """Ids of all runs, newest first."""
    names = store.list("runs")
    return sorted((name.removesuffix(".json") for name in names if name.endswith(".json")), reverse=True)


def list_runs(store: Store) -> list[RunRecord]:
    """All runs, newest first."""
    return [record for run_id in run_ids(store) if (record := load_run(store, run_id))]


def find_run(store: Store, text: str) -> RunRecord:
    """The run with this id, or the only one whose id starts with it.

    Raises:
        RequestError: there is none, or there are several.
    """
    known = run_ids(store)
    matches = [run_id for run_id in known if run_id == text] or [run_id for run_id in known if run_id.startswith(text)]
    record = load_run(store, matches[0]) if len(matches) == 1 else None
    if record:
        return record
    if len(matches) > 1:
        raise RequestError(f"run {text}: {len(matches)} runs start with this: {', '.join(matches[:4])}")
    if matches:
        raise RequestError(f"run {text}: its record in {store.uri} cannot be read")
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5) or known[:1]
    hint = f"; did you mean {near[0]}?" if near else "; there are no runs yet"
    raise RequestError(f"run {text}: not in the store {store.uri}{hint} (pretextflow runs lists them)")


def newest_unfinished(store: Store) -> RunRecord:
    """The newest run that failed or was interrupted or cancelled.

    Raises:
        RequestError: there is none.
    """
    for run_id in run_ids(store):
        record = load_run(store, run_id)
        if record and record.state in UNFINISHED:
            return record
    raise RequestError(f"rerun: the store {store.uri} has no unfinished run (pretextflow runs lists all)")
