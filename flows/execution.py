"""One run of a recipe, stage by stage, with its record kept up to date. Knows nothing of Prefect.

execution = prepare(recipe, listener=Listener())
for planned in execution.plan:
    execution.run_stage(planned.name)
execution.finish("completed")
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from flows.cluster_check import check_cluster
from flows.plan import Planned, make_plan
from flows.preflight import CHECKS, check_request
from flows.ray_address import check_ray, job_server, ray_environment
from flows.recipe import Recipe, dag_of
from flows.stage_job import make_there
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import PretextflowError, RequestError, TryAgainError
from ssl_tasks.materialize import Materialized, materialize
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RUN_VARIABLE, RunRecord, RunState, StageRecord, new_run_id, save_run

METRIC_STAGES = ("clean", "assign", "split", "pretrain", "transfer", "contamination", "report")
"""Stages whose measured values are the run's metrics."""


class Listener:
    """Who is told what happens: the console, or the log of a deployment. This one tells nobody."""

    def planned(self, plan: list[Planned]) -> None:
        """All stages are known; nothing has run."""

    def started(self, planned: Planned) -> None:
        """A stage begins, or is looked up."""

    def waiting(self, stage: str, holder: str) -> None:
        """Another run makes the same artifact; this one waits for it."""

    def finished(self, record: StageRecord) -> None:
        """A stage has ended, well or not."""

    def warning(self, text: str) -> None:
        """Something the user should know."""


@dataclass
class Execution:
    """A run in progress."""

    recipe: Recipe
    store: Store
    plan: list[Planned]
    record: RunRecord
    listener: Listener
    forced: frozenset[str] = frozenset()
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    error: BaseException | None = None

    def run_stage(self, name: str, *, tries_left: int = 0) -> Materialized:
        """Make or find one stage's artifact and write the record.

        Args:
            tries_left: how often the caller would call again after an unforeseen error.

        Raises:
            PretextflowError: what the stage refuses.
        """
        planned = next(entry for entry in self.plan if entry.name == name)
        self.listener.started(planned)
        began = time.monotonic()
        try:
            os.environ[RUN_VARIABLE] = self.record.run_id
            with ray_environment(self.recipe):
                made = self._make(planned)
        except BaseException as error:
            if tries_left > 0 and is_unforeseen(error):
                self.listener.warning(f"{name}: {_one_line(error)}; it is tried again")
            else:
                self._note(name, status="failed", seconds=time.monotonic() - began, reason=_one_line(error))
            raise
        self.artifacts[name] = made.artifact
        if made.warning:
            self.listener.warning(made.warning)
        for text in made.artifact.measured.get("warnings", []) if made.status == "ran" else []:
            self.listener.warning(f"{name}: {text}")
        self._note(
            name,
            status=made.status,
            seconds=made.seconds,
            rows=made.artifact.rows,
            uri=made.artifact.location,
            reason=_reason(planned, made),
        )
        return made

    def check_after(self, name: str) -> None:
        """Check for later stages that are going to run what is known once the stage `name` is done.

        Raises:
            RequestError: a later stage cannot work; it is recorded as the one that failed.
        """
        to_run = {entry.name for entry in self.plan if entry.status != "cached"}
        for check in CHECKS:
            if check.after != name or check.stage not in to_run:
                continue
            try:
                check.check(self.recipe, self.artifacts[name])
            except PretextflowError as error:
                self._note(check.stage, status="failed", reason=_one_line(error))
                raise

    def finish(self, state: RunState, error: BaseException | None = None) -> None:
        """Close the record: final state, metrics, report; stages that did not come to run are `skipped`."""
        self.error = error
        self.record.state = state
        self.record.finished = time.time()
        self.record.error = None if error is None else _one_line(error)
        broken = next((stage.name for stage in self.record.stages if stage.status == "failed"), None)
        for stage in self.record.stages:
            if stage.status == "pending":
                stage.status = "skipped"
                stage.reason = f"{broken} {state}" if broken else f"run {state}"
        self.record.metrics = {name: self.artifacts[name].measured for name in METRIC_STAGES if name in self.artifacts}
        self.record.report = self._report()
        save_run(self.store, self.record)

    def _make(self, planned: Planned) -> Materialized:
        """Here, or by a job where the recipe names a cluster's job server."""
        force, verify = planned.name in self.forced, self._is_read_later(planned.name)
        server = job_server(self.recipe)
        if server:
            return make_there(
                server, self.store, self.recipe, planned, self.artifacts,
                run_id=self.record.run_id, force=force, verify=verify,
            )  # fmt: skip
        return materialize(
            self.store, planned.stage, planned.config, self.artifacts,
            fingerprint=planned.fingerprint, force=force, verify=verify,
            on_wait=lambda holder: self.listener.waiting(planned.name, holder),
        )  # fmt: skip

    def _report(self) -> str | None:
        artifact = self.artifacts.get("report")
        names = [name for name in artifact.names() if name.endswith(".html")] if artifact else []
        if artifact is None or not names:
            return None
        if self.store.is_local:
            return str(artifact.path(names[0]))
        return f"{artifact.location}/{artifact.manifest.attempt}/{names[0]}"

    def _is_read_later(self, name: str) -> bool:
        """Whether a stage that is going to run reads this one: only then are checksums worth their time."""
        return any(name in entry.stage.inputs and entry.status != "cached" for entry in self.plan)

    def _note(self, name: str, **changes: Any) -> None:
        stage = self.record.stage(name)
        for key, value in changes.items():
            setattr(stage, key, value)
        save_run(self.store, self.record)
        self.listener.finished(stage)


def prepare(
    recipe: Recipe,
    *,
    listener: Listener,
    stages: tuple[Stage, ...] | None = None,
    forced: Collection[str] = (),
    previous: RunRecord | None = None,
    run_id: str | None = None,
) -> Execution:
    """Open the store, plan, check what can be checked before anything runs, and write the record.

    Args:
        forced: stages to make anew.
        previous: the record of the run that is continued, under its id.
        run_id: the id of a new run where it is given from outside.

    Raises:
        RequestError: the request is wrong; no record was written.
    """
    stages = stages or dag_of(recipe)
    store = Store.open(recipe.store)
    plan = make_plan(recipe, store, stages=stages, forced=forced)
    to_run = [entry for entry in plan if entry.status != "cached"]
    if to_run:
        check_ray(recipe)
        check_writable(store)
    check_request(recipe, to_run)
    if any(entry.name == "pretrain" for entry in to_run):
        check_cluster(recipe)
    record = RunRecord(
        run_id=previous.run_id if previous else run_id or new_run_id(recipe.name),
        name=recipe.name,
        recipe=recipe.to_dict(),
        stages=[StageRecord(name=p.name, fingerprint=p.fingerprint, reason=p.reason) for p in plan],
    )
    if previous:
        record.started, record.continued = previous.started, record.started
    try:
        save_run(store, record)
    except OSError as error:
        raise RequestError(f"store {store.uri}: cannot be written: {error}") from error
    listener.planned(plan)
    return Execution(recipe, store, plan, record, listener, frozenset(forced))


def check_writable(store: Store) -> None:
    """Refuse a store in which nothing can be written.

    Raises:
        RequestError: the probe could not be written.
    """
    probe = f"runs/.probe-{os.getpid()}"
    try:
        store.write_bytes(probe, b"")
        store.delete(probe)
    except OSError as error:
        raise RequestError(f"store {store.uri}: cannot be written: {error}; choose another with --store") from error


def is_unforeseen(error: object) -> bool:
    """Whether trying again may help: what a stage refuses, it would refuse again."""
    return isinstance(error, TryAgainError) or (
        isinstance(error, Exception) and not isinstance(error, PretextflowError)
    )


def _reason(planned: Planned, made: Materialized) -> str:
    if made.status == "cached" and planned.status != "cached":
        return "made by another run in the meantime"
    if made.status == "ran" and planned.status == "cached":
        return made.warning or "gone from the store since it was planned"
    return planned.reason


def _one_line(error: BaseException) -> str:
    if not isinstance(error, Exception):  # Ctrl-C, and the exceptions that stand for SIGTERM
        return "interrupted"
    text = " ".join(str(error).split())
    return text if isinstance(error, PretextflowError) else f"{type(error).__name__}: {text}"
