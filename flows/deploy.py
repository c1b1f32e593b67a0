"""Scheduled runs: a deployment for a work pool, or a runner on this machine.

Both name the flow by its module, so whoever executes it needs pretextflow installed and nothing copied. The
recipe goes along as the flow's parameter, complete and with absolute paths.
"""

from __future__ import annotations

import asyncio
import shlex
import warnings
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flows.recipe import Recipe
from ssl_tasks.errors import RequestError

POOL = "pretextflow"


@dataclass(frozen=True)
class Deployed:
    """What was deployed."""

    deployment_id: str
    name: str
    pool: str
    made_pool: bool

    @property
    def worker_command(self) -> str:
        """Starts the worker that executes the runs."""
        return f"prefect worker start --pool {shlex.quote(self.pool)} --type process"


def deploy(recipe: Recipe, *, cron: str, timezone: str, pool: str = POOL) -> Deployed:
    """Make or replace the deployment of a recipe, and the work pool where it is missing.

    Raises:
        RequestError: the cron line or the time zone is wrong.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    deployment = _deployment(recipe, cron, timezone, pool)
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
            made = False
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            made = True
    identity = asyncio.run(_apply(deployment))
    return Deployed(str(identity), f"{deployment.flow_name}/{deployment.name}", pool, made)


def serve(recipe: Recipe, *, cron: str, timezone: str) -> None:
    """Execute the recipe's runs in this process's children until it is told to stop.

    Raises:
        RequestError: the cron line or the time zone is wrong.
    """
    from prefect import serve as serve_deployments

    # Prefect's own slip when it is told to end; it ends all the same
    warnings.filterwarnings("ignore", "coroutine 'Runner.astop' was never awaited", RuntimeWarning)
    # one at a time: a run that takes longer than its period must not compete with the next one
    serve_deployments(_deployment(recipe, cron, timezone, None), print_starting_message=False, limit=1)


async def _apply(deployment: Any) -> Any:
    return await deployment.aapply()


def _deployment(recipe: Recipe, cron: str, timezone: str, pool: str | None) -> Any:
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise RequestError(f"--timezone {timezone}: no such time zone; for example Europe/Berlin") from error
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.flow import flow_of

    try:
        schedule = Cron(cron, timezone=timezone)
    except ValueError as error:
        raise RequestError(f"--cron {cron!r}: {error}; expected five fields, for example '0 2 * * *'") from error
    return RunnerDeployment.from_flow(
        flow_of(recipe),
        name=recipe.name,
        schedule=schedule,
        parameters={"recipe": recipe.to_dict()},
        description=f"Recipe {recipe.name}; artifacts in {recipe.store}",
        work_pool_name=pool,
        enforce_parameter_schema=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
