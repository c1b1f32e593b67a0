"""The Prefect flow: one thin task per stage; what passes between tasks are artifact handles.

The store does the caching, so Prefect's own stays off; a reused stage ends in a state named `Cached`. Tasks are
called, not submitted: stages run on the main thread, where signals arrive.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import Abort, ObjectNotFound, TerminationSignal
from prefect.runtime import flow_run, task_run
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.tasks import Task

from flows import turns
from flows.execution import Execution, is_unforeseen, prepare
from flows.interrupt import CancelWatcher
from flows.logged import LogListener
from flows.plan import Planned
from flows.recipe import Recipe, build_recipe
from flows.stored import ADOPT
from flows.summary import markdown, metric_rows
from ssl_tasks.store.runs import new_run_id, save_run

FLOW_NAME = "pretextflow"
TRANSFER_NAME = "pretextflow-transfer"
_PREPARED: dict[str, Execution] = {}
"""Runs that this process prepared before it called the flow, by run id."""


def _run_name() -> str:
    parameters = flow_run.get_parameters()
    return str(parameters.get("run_id") or new_run_id(str(parameters["recipe"].get("name", "run"))))


@flow(
    name=FLOW_NAME,
    flow_run_name=_run_name,
    persist_result=False,
    result_storage=Path(tempfile.gettempdir()),  # unused; named because Prefect would ask the server twice for one
    validate_parameters=False,
)
def pretextflow(recipe: dict[str, Any], run_id: str | None = None) -> State[Any]:
    """Run a recipe.

    Args:
        recipe: all sections, as `Recipe.to_dict` gives them.
        run_id: of a run that this process has prepared; left out by deployments.
    """
    return _execute(recipe, run_id)


@flow(
    name=TRANSFER_NAME,
    flow_run_name=_run_name,
    persist_result=False,
    result_storage=Path(tempfile.gettempdir()),  # see `pretextflow`
    validate_parameters=False,
)
def transfer(recipe: dict[str, Any], run_id: str | None = None) -> State[Any]:
    """Evaluate an existing encoder: a recipe with a section `adopt`.

    Args:
        recipe, run_id: as `pretextflow` takes them.
    """
    return _execute(recipe, run_id)


def flow_of(recipe: Recipe) -> Any:
    """The flow that runs it."""
    return transfer if ADOPT in type(recipe).model_fields else pretextflow


def _execute(recipe: dict[str, Any], run_id: str | None) -> State[Any]:
    prepared = _PREPARED.pop(run_id, None) if run_id else None
    execution = prepared or _prepare_here(recipe)
    execution.record.flow_run_id = flow_run.get_id()
    save_run(execution.store, execution.record)
    watcher = CancelWatcher(str(flow_run.get_id())) if prepared else None
    try:
        with watcher or contextlib.nullcontext():
            turns.check(execution.recipe)
            _run_stages(execution)
    except (KeyboardInterrupt, SystemExit, TerminationSignal) as error:
        cancelled = watcher.cancelled if watcher else _is_cancelling()
        execution.finish("cancelled" if cancelled else "interrupted", error)
        if watcher is None:
            raise  # a deployment's runner sent the signal and sets the state
        return Cancelled() if cancelled else Crashed(name="Interrupted", message="Interrupted; rerun continues it.")
    except Exception as error:  # whatever it is, the record must say that the run is over
        execution.finish("failed", error)
        return Failed(message=execution.record.error)
    execution.finish("completed")
    _publish(execution)
    return Completed(message=f"Report: {execution.record.report}" if execution.record.report else None)


def run(execution: Execution) -> None:
    """Call the flow for a prepared run; how it went stands in the execution's record and `error`."""
    run_id = execution.record.run_id
    _PREPARED[run_id] = execution
    try:
        state = flow_of(execution.recipe)(execution.recipe.to_dict(), run_id, return_state=True)
    except (Abort, ObjectNotFound):
        if execution.record.state == "running":  # the server refused the run itself
            raise
        return  # a run that was cancelled in the UI is over for the server: it refuses every later state
    if execution.error is None and (state.is_failed() or state.is_crashed()):
        # what the flow could not record itself, because writing the record (the disk is full) is what failed
        error = _result(state)
        with contextlib.suppress(OSError):
            execution.finish("failed", error if isinstance(error, Exception) else RuntimeError(state.message))


def drain() -> None:
    """Send what Prefect has queued (task states, logs) before the server goes away."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=3)
    APILogWorker.drain_all(timeout=3)


def _prepare_here(recipe: dict[str, Any]) -> Execution:
    checked = build_recipe(recipe, where="deployment's parameter `recipe`")
    return prepare(checked, listener=LogListener(get_run_logger()), run_id=flow_run.get_name())


def _is_cancelling() -> bool:
    # a server that does not answer must not keep the interruption from being recorded
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run.get_id()))).state
        return bool(state and (state.is_cancelling() or state.is_cancelled()))
    return False


def _run_stages(execution: Execution) -> None:
    handles: dict[str, Any] = {}
    for planned in execution.plan:
        inputs = {name: handles[name] for name in planned.stage.inputs}
        handles[planned.name] = _stage_task(execution, planned)(inputs)
        execution.check_after(planned.name)


def _stage_task(execution: Execution, planned: Planned) -> Task[Any, Any]:
    recipe = execution.recipe

    @task(
        name=planned.name,
        task_run_name=planned.name,
        retries=recipe.retries,
        retry_delay_seconds=recipe.retry_delay,
        retry_condition_fn=_worth_retrying,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def stage(inputs: dict[str, Any]) -> State[Any]:
        with turns.turn(recipe, planned, execution.listener.warning):
            made = execution.run_stage(planned.name, tries_left=recipe.retries + 1 - task_run.run_count)
        name = "Cached" if made.status == "cached" else "Completed"
        record = execution.record.stage(planned.name)
        return Completed(name=name, message=f"{record.rows} rows; {record.reason}", data=made.artifact.to_dict())

    return stage


def _worth_retrying(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    return is_unforeseen(_result(state))


def _result(state: State[Any]) -> Any:
    return getattr(state.data, "result", state.data)


def _publish(execution: Execution) -> None:
    key = "".join(c if c.isalnum() else "-" for c in execution.recipe.name.lower())
    create_markdown_artifact(markdown(execution.record), key=f"{key}-report", description="What the run found")
    rows = metric_rows(execution.record)
    if rows:
        create_table_artifact(rows, key=f"{key}-metrics", description="Transfer metrics")
