"""Ray jobs on a cluster with a job server, asked by a process on no node of it.

pip install --editable '.[test,jobs]' && pytest tests/ssl_tasks/cluster/test_jobs.py
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests_cluster import cluster

from flows.cluster_check import check_cluster
from flows.execution import Listener, prepare
from flows.recipe import load_recipe
from ssl_tasks.cluster import jobs
from ssl_tasks.errors import RequestError, TryAgainError
from ssl_tasks.store import Store

pytest.importorskip("aiohttp", reason="a job server needs the extra `jobs`: see the head of this file")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The job server of a cluster of a head without CPUs and a node of three."""
    with cluster({"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0}, {"num_cpus": 3}) as started:
        yield started.server


def python(code: str) -> list[str]:
    return ["python", "-c", code]


def states(server: str) -> dict[str, str]:
    from ray.job_submission import JobSubmissionClient

    return {job.submission_id or "": job.status.value for job in JobSubmissionClient(server).list_jobs()}


def test_the_last_line_comes_back(server: str) -> None:
    assert jobs.run(server, python("print('one'); print('it\\'s $HOME')"), name="quoted") == "it's $HOME"
    assert jobs.run(server, python("print(3)"), name="on-the-node", num_cpus=1) == "3"


def test_a_job_that_fails_may_be_tried_again(server: str) -> None:
    with pytest.raises(TryAgainError, match=r"Ray job pretextflow-dies-\w+ at http.* ended as failed: .*exit code 3"):
        jobs.run(server, python("raise SystemExit(3)"), name="dies")


def test_an_interruption_stops_the_job_and_no_other(server: str, tmp_path: Path) -> None:
    there, told = tmp_path / "there", tmp_path / "told"
    waits = f"""
import pathlib, signal, time
def end(*_):
    pathlib.Path({str(told)!r}).touch()
    raise SystemExit
signal.signal(signal.SIGTERM, end)
pathlib.Path({str(there)!r}).touch()
time.sleep(60)
"""
    other: list[str] = []
    beside = threading.Thread(
        target=lambda: other.append(jobs.run(server, python("import time; time.sleep(12); print(7)"), name="other"))
    )
    beside.start()

    def press() -> None:
        while not there.exists():
            time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        jobs.run(server, python(waits), name="waits")
    stopped = next(state for job, state in states(server).items() if "waits" in job)
    assert (stopped, told.exists()) == ("STOPPED", True)
    beside.join(60)
    assert other == ["7"]


def test_what_answers_otherwise_is_refused() -> None:
    with pytest.raises(RequestError, match=r"no Ray cluster answers at http://127\.0\.0\.1:1 "):
        jobs.run("http://127.0.0.1:1", python(""), name="nowhere")


def test_a_small_cluster_is_refused_from_outside(server: str, store: Store) -> None:
    recipe = load_recipe("digits", [f"ray_address={server}"], store=store.uri)
    check_cluster(recipe)
    with pytest.raises(RequestError, match=r"the Ray cluster has 3 CPU on 1 nodes; set pretrain\.num_workers=1"):
        check_cluster(load_recipe("digits", [f"ray_address={server}", "pretrain.num_workers=2"], store=store.uri))
    assert store.list("runs") == []


def digits(store: Store, *settings: str) -> Any:
    small = [
        "pretrain.backbone=test_resnet",
        "pretrain.batch_size=64",
        "pretrain.health_checks=1",
        "pretrain.threads=1",
    ]
    pinned = ["pretrain.max_steps=4", "pretrain.layout=contiguous", "pretrain.compile=never"]
    return load_recipe("digits", [*small, *pinned, *settings], store=store.uri)


def test_a_pretraining_by_a_job_equals_one_on_this_host(server: str, tmp_path: Path, ray_session: None) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    before = prepare(digits(Store.open(str(here))), listener=Listener())
    for planned in before.plan[:6]:
        before.run_stage(planned.name)
    shutil.copytree(here, there)
    made = []
    for path, settings in ((here, []), (there, [f"ray_address={server}"])):
        execution = prepare(digits(Store.open(str(path)), *settings), listener=Listener())
        assert [execution.run_stage(planned.name).status for planned in execution.plan[:7]] == ["cached"] * 6 + ["ran"]
        made.append(execution.artifacts["pretrain"].manifest)
    files, same = ({name: entry.sha256 for name, entry in manifest.files.items()} for manifest in made)
    weights = {name for name in files if name.endswith(".safetensors")}
    assert weights
    assert {name: files[name] for name in weights} == {name: same[name] for name in weights}
    assert [manifest.measured["steps"] for manifest in made] == [4, 4]
