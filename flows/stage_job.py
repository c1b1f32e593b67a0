"""One stage made by a Ray job, for a run whose process is on no Ray node: a Prefect pod, a laptop beside the cluster.

The run needs the store, the data and the job server; artifacts, leases and progress are in the store, as ever.
What passes between the two is a request on the job's command line, and an answer on the last line that it prints. A run
that is killed leaves its job: the next try waits for the job's lease and takes what it made.

    python -m flows.stage_job REQUEST
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from flows.plan import Planned
from flows.recipe import Recipe, build_recipe, dag_of
from ssl_tasks import errors
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import PretextflowError, RequestError, TryAgainError
from ssl_tasks.materialize import Materialized, find, materialize
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RUN_VARIABLE

LIGHT = "pretrain"
"""Its work is done by actors of its own, so that its job waits on the head. The jobs of others take a CPU of a node."""


@dataclass(frozen=True)
class Request:
    """What the job is asked for."""

    recipe: dict[str, Any]
    """As `Recipe.to_dict` gives it; the job uses the cluster that it runs on."""
    stage: str
    fingerprint: str
    parents: dict[str, dict[str, Any]]
    """Handles of the artifacts that the stage reads."""
    run_id: str
    force: bool


def make_there(
    address: str,
    store: Store,
    recipe: Recipe,
    planned: Planned,
    parents: Mapping[str, Artifact],
    *,
    run_id: str,
    force: bool,
    verify: bool,
) -> Materialized:
    """Find a stage's artifact here, or have a job of the cluster at `address` make it.

    Raises:
        PretextflowError: what the stage refuses.
        RuntimeError: an unforeseen error of the stage.
    """
    found, warning = find(store, planned.fingerprint, verify)
    if found and not force:
        return Materialized(found, "cached", 0.0)
    from ssl_tasks.cluster import jobs

    handles = {name: parents[name].to_dict() for name in planned.stage.inputs}
    request = Request(
        {**recipe.to_dict(), "ray_address": None}, planned.name, planned.fingerprint, handles, run_id, force
    )
    command = ["python", "-m", "flows.stage_job", json.dumps(asdict(request))]
    last = jobs.run(address, command, name=f"{run_id}-{planned.name}", num_cpus=float(planned.name != LIGHT))
    made = _read(last)
    if store.lookup(planned.fingerprint) is None:
        raise RequestError(f"store: the cluster has another {store.uri} than this host; choose one that both can reach")
    return Materialized(made.artifact, made.status, made.seconds, made.warning or warning)


def _read(line: str) -> Materialized:
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        raise TryAgainError(f"the stage's Ray job ended without an answer: {line[-300:]}") from None
    if "error" in answer:
        kind = getattr(errors, answer["kind"], RuntimeError)
        raise kind(answer["error"])
    return Materialized(Artifact(**answer["artifact"]), answer["status"], answer["seconds"], answer["warning"])


def make_here(request: Request) -> dict[str, Any]:
    """The job's part: the answer, whatever comes of the stage."""
    os.environ[RUN_VARIABLE] = request.run_id
    try:
        recipe = build_recipe(request.recipe, where="request of a stage")
        stage = next(stage for stage in dag_of(recipe) if stage.name == request.stage)
        parents = {name: Artifact(**handle) for name, handle in request.parents.items()}
        made = materialize(
            Store.open(recipe.store), stage, recipe.config_of(stage), parents,
            fingerprint=request.fingerprint, force=request.force, on_wait=lambda holder: _say(f"waits for {holder}"),
        )  # fmt: skip
        return asdict(made)
    except PretextflowError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # told to the run, which may try again; where it came from is in the job's log
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "kind": "unforeseen"}


def _say(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


def main(request: str) -> None:
    """Make the stage and print the answer; the signal with which Ray stops a job interrupts it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    _say(json.dumps(make_here(Request(**json.loads(request)))))


if __name__ == "__main__":
    main(sys.argv[1])
