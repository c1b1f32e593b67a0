"""Recipes that share a cluster take turns: a Prefect concurrency limit whose slots are training workers.

    prefect gcl create trainings --limit 8            eight workers at a time, over all runs that name it
    pretextflow run RECIPE --set queue=trainings      takes as many as pretrain.num_workers, when they are free

A run's share is its `pretrain.num_workers`, of a range the most. One that dies gives its slots back when its lease
ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from flows.plan import Planned
from flows.recipe import Recipe
from ssl_tasks.errors import RequestError

STAGE = "pretrain"
LEASE_SECONDS = 120.0
"""Renewed while training goes on; a Prefect server that is away for longer ends no training."""


def share(recipe: Recipe) -> int:
    """Slots that the recipe's training takes."""
    asked = getattr(getattr(recipe, STAGE, None), "num_workers", 1)
    return max(asked) if isinstance(asked, (tuple, list)) else int(asked)


def check(recipe: Recipe) -> None:
    """Ask the server for the recipe's queue.

    Raises:
        RequestError: there is none of that name, or it is too small for this recipe, which would wait for ever.
    """
    if recipe.queue is None:
        return
    limit, workers = _limit(recipe.queue), share(recipe)
    if limit is None:
        raise RequestError(
            f"queue: Prefect has no concurrency limit {recipe.queue!r}; make it with `prefect gcl create "
            f"{recipe.queue} --limit WORKERS`, the number of training workers that the cluster is for"
        )
    if limit.limit < workers:
        raise RequestError(
            f"queue: {recipe.queue} lets {limit.limit} workers train at a time, and pretrain.num_workers asks for "
            f"{workers}; lower it, or `prefect gcl update {recipe.queue} --limit {workers}`"
        )


def _limit(name: str) -> Any:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            return None


@contextlib.contextmanager
def turn(recipe: Recipe, planned: Planned, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the recipe's share of its queue inside, once it is free; other stages, and what is cached, wait for nothing.

    Args:
        tell: what the user is told where it is not free at once.
    """
    if recipe.queue is None or planned.name != STAGE or planned.status == "cached":
        yield
        return
    from prefect.concurrency.sync import concurrency

    workers, limit = share(recipe), _limit(recipe.queue)
    if limit is not None and limit.active_slots + workers > limit.limit:
        tell(f"{STAGE}: waits for {workers} of the {limit.limit} workers of the queue {recipe.queue}, which others use")
    with concurrency(
        recipe.queue, occupy=workers, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False
    ):
        yield
