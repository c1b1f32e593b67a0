"""A budgeted search over methods and their options: trains trials rung by rung, and writes the best as a recipe.

A trial is the pretraining of a recipe, laid out for its whole budget. At a rung it pauses with its checkpoint in the
store, as an interrupted run does, and goes on from there: who came through all rungs has the very artifact that
`pretextflow run` would make. What the store holds is not trained again.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from flows.compare import Trial, naming
from flows.execution import Listener
from flows.plan import Planned, make_plan
from flows.recipe import Recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.materialize import materialize
from ssl_tasks.report.searched import Row, State
from ssl_tasks.schema import HEALTH_FILE
from ssl_tasks.stages import pretrain
from ssl_tasks.store import Output, Store
from ssl_tasks.store.filesystem import DamagedError
from ssl_tasks.store.lease import lease
from ssl_tasks.store.runs import StageRecord

if TYPE_CHECKING:
    from flows.spaces import Draw
    from ssl_tasks.cluster.search import Reached
    from ssl_tasks.training.job import Job


@dataclass(frozen=True)
class Course:
    """What a trial's process needs to train it from rung to rung; picklable."""

    planned: Planned
    """Of the pretrain stage."""
    store: str
    parents: dict[str, Artifact]
    steps: tuple[int, ...]
    """At each rung."""


def courses(wanted: Sequence[Trial], *, rungs: int, reduction: int, metric: str, listener: Listener) -> list[Course]:
    """Make what the trials read, once for all that share it, and lay out their rungs.

    Raises:
        RequestError: names the candidate whose batch, labels or health checks do not do.
    """
    from ssl_tasks.training.probe import PROBE_ROWS  # imports torch

    shown: set[str] = set()
    made = []
    for trial in wanted:
        store = Store.open(trial.recipe.store)
        artifacts: dict[str, Artifact] = {}
        for planned in make_plan(trial.recipe, store):
            if planned.name == pretrain.STAGE.name:
                break
            artifacts[planned.name] = _stage(store, planned, artifacts, listener, quiet=planned.fingerprint in shown)
            shown.add(planned.fingerprint)
        parents = {name: artifacts[name] for name in planned.stage.inputs}
        with naming(trial.candidate):
            job = _job(planned, store, parents)
            if metric == "knn" and job.probe_rows(PROBE_ROWS)[1] is None:
                raise RequestError("--metric knn: val rows have no labels; use --metric rankme")
            steps = rung_steps(job.health_steps, rungs, reduction)
        made.append(Course(planned, trial.recipe.store, parents, steps))
    return made


def _stage(
    store: Store, planned: Planned, artifacts: dict[str, Artifact], listener: Listener, *, quiet: bool
) -> Artifact:
    listener = Listener() if quiet else listener
    listener.started(planned)
    made = materialize(
        store, planned.stage, planned.config, artifacts, fingerprint=planned.fingerprint,
        on_wait=lambda holder: listener.waiting(planned.name, holder),
    )  # fmt: skip
    listener.finished(
        StageRecord(
            name=planned.name, fingerprint=planned.fingerprint, status=made.status, seconds=made.seconds,
            rows=made.artifact.rows, reason=planned.reason,
        )
    )  # fmt: skip
    return made.artifact


def _job(planned: Planned, store: Store, parents: dict[str, Artifact], until: int | None = None) -> Job:
    out = Output(store.uri, planned.fingerprint, uuid.uuid4().hex[:12], planned.name)
    config: Any = planned.config
    normalized, split, augmented = (parents[name] for name in planned.stage.inputs)
    return pretrain.make_job(config, out, normalized, split, augmented, until)


def rung_steps(health_steps: Sequence[int], rungs: int, reduction: int) -> tuple[int, ...]:
    """Steps at which a trial is judged: each about 1/reduction of the next, where features are looked at anyway.

    Raises:
        RequestError: these steps are too few.
    """
    total = health_steps[-1]
    targets = [total / reduction**k for k in reversed(range(rungs))]
    found = tuple(min(health_steps, key=lambda step, target=target: abs(step - target)) for target in targets)  # type: ignore[misc]  # mypy infers no default
    if len(set(found)) < rungs:
        raise RequestError(
            f"--rungs {rungs} with --reduction {reduction}: of {total} steps the features are looked at after "
            f"{', '.join(map(str, health_steps))}, which is too few for different rungs; raise pretrain.health_checks "
            "or the steps, or ask for fewer rungs"
        )
    return found


def train_to(wanted: Sequence[Course], metric: str, address: str | None, trial: int, rung: int) -> float:
    """Train a trial to its rung, from the one before, and give the metric there; what is known is not trained again.

    Raises:
        StageError: training failed, collapsed, or measured no such thing.
    """
    course = wanted[trial]
    store, step, planned = Store.open(course.store), course.steps[rung], course.planned
    os.environ.pop("RAY_ADDRESS", None)
    if address:
        os.environ["RAY_ADDRESS"] = address
    measured = _known(store, planned.fingerprint, step)
    if measured is None and step == course.steps[-1]:
        made = materialize(store, planned.stage, planned.config, course.parents, fingerprint=planned.fingerprint)
        measured = made.artifact.measured
    elif measured is None:
        with lease(store, planned.fingerprint):
            measured = _pause(course, store, step, address)
    value = measured.get(metric)
    if value is None:
        raise StageError(f"pretrain: no {metric} was measured at step {step}")
    return float(value)


def _pause(course: Course, store: Store, step: int, address: str | None) -> dict[str, Any]:
    from ssl_tasks.cluster.train import train

    measured = train(_job(course.planned, store, course.parents, step), address)
    store.write_json(_rung_file(course.planned.fingerprint, step), measured)
    return measured


def _known(store: Store, fingerprint: str, step: int) -> dict[str, Any] | None:
    """What was measured at a step by a training that came that far, or None."""
    try:
        artifact = store.lookup(fingerprint)
    except DamagedError:
        artifact = None
    if artifact is None:
        found: dict[str, Any] | None = store.read_json(_rung_file(fingerprint, step))
        return found
    return next((row for row in artifact.table(HEALTH_FILE).to_pylist() if row["step"] == step), None)


def _rung_file(fingerprint: str, step: int) -> str:
    return f"partial/{fingerprint}/rung-{step:08d}.json"


def rows(
    drawn: Sequence[Draw], wanted: Sequence[Trial], made: Sequence[Course], reached: Sequence[Reached]
) -> list[Row]:
    """What became of each trial, in their order."""
    found = []
    for number, (draw, trial, course) in enumerate(zip(drawn, wanted, made, strict=True)):
        own = [event for event in reached if event.trial == number]
        done = [event for event in own if event.error is None]
        section: Any = getattr(trial.recipe, "pretrain", None)
        found.append(
            Row(
                trial=draw.candidate.name,
                method=section.method.name,
                parameters=draw.parameters,
                rung=done[-1].rung if done else -1,
                steps=course.steps[done[-1].rung] if done else 0,
                total_steps=course.steps[-1],
                value=done[-1].value if done else None,
                state=_state(own, len(course.steps)),
                error=own[-1].error if own else None,
            )
        )
    return found


def _state(own: Sequence[Reached], num_rungs: int) -> State:
    if not own:
        return "not begun"
    last = own[-1]
    if last.error is not None:
        return "failed"
    if last.rung == num_rungs - 1:
        return "finished"
    # one that would have gone on was cut short by another's reaching the end of the budget
    return "out of budget" if last.out_of_budget or last.goes_on else "stopped"


def winner_yaml(recipe: Recipe, heading: str) -> str:
    """The recipe as a file: what differs from the defaults, method and all, below a comment."""
    data = recipe.model_dump(mode="json", exclude_defaults=True)
    section: Any = getattr(recipe, "pretrain", None)
    data["pretrain"] = {**data.get("pretrain", {}), "method": section.method.options()}
    return f"# {heading}\n" + yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
