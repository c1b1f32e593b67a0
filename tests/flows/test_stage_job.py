"""Stages as jobs: what a run and its job say to each other, with a process in the place of Ray's job."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flows.execution import Execution
from ssl_tasks.cluster import jobs
from ssl_tasks.errors import RequestError, StageError, TryAgainError

ADDRESS = "ray_address=http://127.0.0.1:8265"
Begin = Callable[..., Execution]


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> list[dict[str, Any]]:
    """The jobs that were submitted; each runs at once, as a process on this host with the tiny DAG."""
    told: list[dict[str, Any]] = []

    def run(address: str, command: Sequence[str], *, name: str, num_cpus: float = 0.0) -> str:
        told.append({"address": address, "name": name, "num_cpus": num_cpus})
        assert command[0] == "python"  # of the node
        done = subprocess.run(
            [sys.executable, *command[1:]], capture_output=True, text=True, env=environment, timeout=60
        )
        return done.stdout.rstrip().splitlines()[-1] if done.returncode == 0 else done.stderr

    monkeypatch.setattr("ssl_tasks.cluster.jobs.run", run)
    monkeypatch.setattr("flows.execution.check_ray", lambda recipe: None)
    return told


def run(execution: Execution) -> list[str]:
    return [execution.run_stage(planned.name).status for planned in execution.plan]


def test_a_run_by_jobs_makes_what_one_without_makes(begin: Begin, submitted: list[dict[str, Any]]) -> None:
    there = begin(ADDRESS)
    assert run(there) == ["ran"] * 6
    assert [job["name"] for job in submitted] == [f"{there.record.run_id}-{stage.name}" for stage in there.plan]
    assert {job["address"] for job in submitted} == {"http://127.0.0.1:8265"}
    assert [job["num_cpus"] for job in submitted] == [1, 1, 1, 0, 1, 1]  # the training's own job only waits
    made = {name: artifact.manifest.files for name, artifact in there.artifacts.items()}
    here = begin(forced=[planned.name for planned in there.plan])
    assert run(here) == ["ran"] * 6
    assert {name: artifact.manifest.files for name, artifact in here.artifacts.items()} == made
    assert [stage.reason for stage in there.record.stages] == ["first time"] * 6


def test_what_is_in_the_store_is_no_job(begin: Begin, submitted: list[dict[str, Any]]) -> None:
    run(begin())
    assert run(begin(ADDRESS)) == ["cached"] * 6
    assert submitted == []
    assert run(begin(ADDRESS, forced=["report"])) == ["cached"] * 5 + ["ran"]
    assert [job["num_cpus"] for job in submitted] == [1]


def before_pretraining(begin: Begin) -> None:
    """The stages before it, without jobs."""
    execution = begin()
    for name in ("ingest", "assign", "split"):
        execution.run_stage(name)


def test_a_refusal_comes_back_as_what_it_is(begin: Begin, submitted: list[dict[str, Any]]) -> None:
    before_pretraining(begin)
    execution = begin(ADDRESS, "pretrain.fail=refuse")
    with pytest.raises(StageError, match=r"^the representation collapsed; lower pretrain\.lr$") as caught:
        run(execution)
    assert type(caught.value) is StageError
    assert execution.record.stage("pretrain").status == "failed"


def test_an_unforeseen_error_may_be_tried_again(begin: Begin, submitted: list[dict[str, Any]]) -> None:
    before_pretraining(begin)
    execution = begin(ADDRESS, "pretrain.fail=crash")
    with pytest.raises(RuntimeError, match="OSError: the network went away"):
        run(execution)


def test_a_job_that_says_nothing_may_be_tried_again(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.execution.check_ray", lambda recipe: None)
    monkeypatch.setattr("ssl_tasks.cluster.jobs.run", lambda *_, **__: "Killed")
    with pytest.raises(TryAgainError, match="ended without an answer: Killed"):
        run(begin(ADDRESS))


def test_a_store_that_only_the_cluster_sees_is_refused(
    begin: Begin, submitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = begin(ADDRESS)
    monkeypatch.setattr("ssl_tasks.store.Store.lookup", lambda *_, **__: None)
    with pytest.raises(RequestError, match=r"store: the cluster has another .* than this host"):
        execution.run_stage("ingest")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(RequestError, match=r"pip install 'pretextflow\[jobs\]'"),
    ):
        jobs.run(f"http://127.0.0.1:{listening.getsockname()[1]}", ["true"], name="any")
