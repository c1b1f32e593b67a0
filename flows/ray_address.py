"""Which Ray cluster a run goes to, and whether something answers there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from flows.recipe import Recipe
from ssl_tasks.cluster.connect import require_answer
from ssl_tasks.cluster.jobs import is_job_server
from ssl_tasks.errors import RequestError

ADDRESS_FILE = Path("/tmp/ray/ray_current_cluster")


def cluster_address(given: str | None) -> str | None:
    """host:port of the cluster that the recipe or RAY_ADDRESS names, or its job server; None for a local Ray."""
    address = given or "local"
    if address == "auto":
        address = ADDRESS_FILE.read_text().strip() if ADDRESS_FILE.exists() else "no address file"
    return None if address == "local" else address


def job_server(recipe: Recipe) -> str | None:
    """The address of the job server that the recipe or RAY_ADDRESS names; None where stages run in this process."""
    address = recipe.ray_address or os.environ.get("RAY_ADDRESS")
    return address if is_job_server(address) else None


@contextlib.contextmanager
def ray_environment(recipe: Recipe) -> Iterator[None]:
    """RAY_ADDRESS, which stages read, as host:port of the cluster; absent for a local Ray."""
    before = os.environ.pop("RAY_ADDRESS", None)
    address = cluster_address(recipe.ray_address or before)
    if address:
        os.environ["RAY_ADDRESS"] = address
    try:
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before


def check_ray(recipe: Recipe) -> None:
    """Refuse to start when nothing listens at the Ray address.

    Raises:
        RequestError: the address is not host:port, or nothing answers there.
    """
    address = cluster_address(recipe.ray_address or os.environ.get("RAY_ADDRESS"))
    if address is None:
        return
    where = "ray_address" if recipe.ray_address else "RAY_ADDRESS"
    problem = unreachable(address)
    if problem:
        raise RequestError(
            f"{where}: no Ray cluster at {address} ({problem}); start one there (ray start --head), correct the "
            "address, or unset it for a local Ray"
        )


def unreachable(address: str) -> str | None:
    """Why nothing can be reached at [ray://]host:port, or None where something listens."""
    try:
        require_answer(address)
    except RequestError as error:
        return str(error.__cause__ or "expected host:port")
    return None
