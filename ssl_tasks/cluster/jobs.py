"""Run a command as a Ray job: for a process on no Ray node, such as a Prefect pod, which reaches the cluster by HTTP.

run("http://head:8265", ["python", "-m", "ssl_tasks.cluster.look", "", store], name="look")     its last line
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import time
import uuid
from collections.abc import Sequence
from typing import Any

from ssl_tasks.cluster.connect import ENVIRONMENT, require_answer, use_token
from ssl_tasks.errors import RequestError, TryAgainError

SCHEMES = ("http://", "https://")
POLL_SECONDS = 1.0
LOST_SECONDS = 60.0
"""How long the job server may be away before the job is given up."""
STOP_SECONDS = 3.5
"""Ray gives a job that is stopped 3 s before it kills it (RAY_JOB_STOP_WAIT_TIME_S of the cluster)."""


def is_job_server(address: str | None) -> bool:
    """Whether the address is that of a cluster's job server (http://host:8265), and not of its Ray (host:6379)."""
    return address is not None and address.startswith(SCHEMES)


def run(address: str, command: Sequence[str], *, name: str, num_cpus: float = 0.0) -> str:
    """Submit a command, wait for its end, and return the last line of its log.

    An interruption stops the job. A caller that is killed leaves it: what it makes is then in the store.

    Args:
        address: of the job server.
        name: start of the job's id, as it stands in Ray's dashboard.
        num_cpus: of a node that the command runs on; with 0 it runs on the head.

    Raises:
        RequestError: nothing answers there, or it wants another token.
        TryAgainError: the job was stopped by others or lost, or its process was killed.
    """
    client, job = _client(address), f"pretextflow-{name}-{uuid.uuid4().hex[:8]}"
    try:
        client.submit_job(entrypoint=shlex.join(command), submission_id=job, entrypoint_num_cpus=num_cpus or None)
        status, said = _wait(client, job)
        lines: list[str] = client.get_job_logs(job).rstrip().splitlines()
    except RuntimeError as error:  # the client's own kind: the server refuses or forgot the job, or went away for good
        raise TryAgainError(f"Ray job {job} at {address} is lost: {_short(error)}") from error
    except BaseException:
        _stop(client, job)
        raise
    last = lines[-1] if lines else ""
    if status != "SUCCEEDED":
        raise TryAgainError(f"Ray job {job} at {address} ended as {status.lower()}: {_short(said or last)}")
    return last


def _client(address: str) -> Any:
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    use_token()
    require_answer(address)
    if importlib.util.find_spec("aiohttp") is None:
        raise RequestError("ray_address: stages as Ray jobs need the extra `jobs`: pip install 'pretextflow[jobs]'")
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # else a RAY_ADDRESS of the environment is taken, whatever is given
    import ray.exceptions
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except ray.exceptions.AuthenticationError as error:
        raise RequestError(
            f"ray_address: the job server at {address} takes another token than this host gives; copy the cluster's to "
            "~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        ) from error
    except (RuntimeError, ConnectionError) as error:
        raise RequestError(f"ray_address: no job server at {address}: {_short(error)}") from error


def _wait(client: Any, job: str) -> tuple[str, str]:
    """The job's last status, and what Ray says of it."""
    seen = time.monotonic()
    while True:
        try:
            info = client.get_job_info(job)
            seen = time.monotonic()
            if info.status.is_terminal():
                return info.status.value, info.message or ""
        except (ConnectionError, OSError):
            if time.monotonic() - seen > LOST_SECONDS:
                raise RuntimeError(f"the job server does not answer for {LOST_SECONDS:g} s") from None
        time.sleep(POLL_SECONDS)


def _stop(client: Any, job: str) -> None:
    """Ask for the job's end and wait for it as long as Ray lets it live."""
    until = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(Exception):  # the caller has been told to end: a cluster that is away must not keep it
        client.stop_job(job)
        while time.monotonic() < until and not client.get_job_status(job).is_terminal():
            time.sleep(0.2)


def _short(said: object) -> str:
    """The end of what Ray says, which often begins with pages."""
    return " ".join(str(said).split())[-300:]
