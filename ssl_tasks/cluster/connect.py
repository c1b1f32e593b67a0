"""Connect to Ray: a local one of our own, ended with us, or a running cluster that we never shut down."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ssl_tasks.cluster.allocator import children_keep_memory
from ssl_tasks.cluster.reaper import VARIABLE, reaper
from ssl_tasks.errors import RequestError

ENVIRONMENT = {
    # Plain variables, set before Ray starts, and no runtime_env: that would force new processes for every actor.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # the default of 2 s is waited for at the end of every run
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # opts in to what 2.61 does by default, and so ends its warning
    "RAY_TQDM": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread that outlives the connection starts a new cluster of its own
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
NEEDED = ("raylet", "gcs_server")


@dataclass(frozen=True)
class Connection:
    """A live connection to Ray."""

    embedded: bool
    """Whether the cluster is our own and ends with this process."""

    def dead(self) -> str:
        """Which of the processes that a cluster of our own cannot do without has died; "" where none has.

        Ray waits for ever for a node that nobody starts again, and a minute for the head before it ends this process.
        """
        import ray._private.worker

        node = ray._private.worker._global_node  # no public name gives it
        found = [kind for kind, _ in node.dead_processes()] if self.embedded and node else []
        return next((kind for kind in found if kind in NEEDED), "")


@contextlib.contextmanager
def connection(
    address: str | None = None,
    num_cpus: int = 0,
    verbose: bool = False,
    resources: Mapping[str, float] | None = None,
) -> Iterator[Connection]:
    """Be connected to Ray while the block runs.

    Args:
        address: host:port of a running cluster; None for a local one of our own.
        num_cpus: logical CPUs that a local one declares: more than there are cores, because training workers
            reserve theirs and the feed hangs for ever without any (ray#41603).
        resources: custom ones that a local one declares.

    Raises:
        RequestError: nothing answers at the address.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address is not None:
        use_token()
    import ray  # after the environment is set: it reads some of it when it is imported

    if ray.is_initialized():
        yield Connection(embedded=address is None)
        return
    if address is not None:
        require_answer(address)
    level = logging.INFO if verbose else logging.ERROR
    logging.getLogger("ray").setLevel(level)
    options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level, "configure_logging": verbose}
    if address is None:
        # "local" said aloud: without it Ray reads an address file that a killed cluster leaves behind
        options |= {"num_cpus": num_cpus or None, "include_dashboard": False, "resources": dict(resources or {})}
    with contextlib.nullcontext() if address else reaper() as mark:
        try:
            _init(address, mark, options)
            yield Connection(embedded=address is None)
        finally:
            ray.shutdown()


def _init(address: str | None, mark: str | None, options: Mapping[str, Any]) -> None:
    """`ray.init`; the processes that it starts inherit the mark."""
    import ray

    if mark:
        os.environ[VARIABLE] = mark
    try:
        with children_keep_memory():
            ray.init(address=address or "local", **options)
    except ray.exceptions.AuthenticationError as error:
        raise RequestError(
            f"ray_address: the cluster at {address} takes another token than this host gives ({error.message}); copy "
            "the cluster's to ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        token = "; does this host have the cluster's token (RAY_AUTH_TOKEN_PATH)?" if address else ""
        raise RequestError(f"ray_address: cannot use Ray at {address or 'local'}: {error}{token}") from error
    finally:
        os.environ.pop(VARIABLE, None)


def require_answer(address: str) -> None:
    """Ask for a TCP connection before Ray does, whose own attempt takes a minute to give up.

    Raises:
        RequestError: the address is no host:port, or nothing answers there.
    """
    place = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = place.hostname, place.port or {"http": 80, "https": 443}.get(place.scheme)
    except ValueError:  # a port that is no number, or too large a one
        host = port = None
    if not host or not port:
        raise RequestError(f"ray_address: {address!r} is not host:port")
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        raise RequestError(
            f"ray_address: no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or leave "
            "ray_address and RAY_ADDRESS out to use a local one"
        ) from error


def use_token() -> None:
    """Ray checks tokens by default since 2.60, but a client that connects by address sends one only when told to."""
    there = (
        "RAY_AUTH_TOKEN" in os.environ
        or Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")).exists()
    )
    if there:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
