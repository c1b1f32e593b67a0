"""Whole commands against a real Prefect server, each as a process of its own, on the tiny DAG."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flows.deploy import deploy
from flows.recipe import load_recipe
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store
from ssl_tasks.store.runs import list_runs, load_run

Command = Callable[..., subprocess.Popen[str]]
Api = Callable[..., Any]


def finish(process: subprocess.Popen[str], timeout: float = 150) -> tuple[int, dict[str, Any], str]:
    """Exit status, the JSON object of the last line, and stderr."""
    out, err = process.communicate(timeout=timeout)
    answer: dict[str, Any] = json.loads(out.splitlines()[-1]) if out else {}
    return process.returncode, answer, err


def wait_for_training(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    """Until the stage `pretrain` says that it is at work."""
    deadline = time.monotonic() + 150
    while not list(tmp_path.glob("store/partial/*/progress.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def flow_run(api: Api, run_id: str) -> Any:
    (found,) = api("flow_runs/filter", {"flow_runs": {"name": {"any_": [run_id]}}})
    return found


def task_states(api: Api, run_id: str) -> dict[str, str]:
    tasks = api("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run(api, run_id)["id"]]}}})
    return {task["name"]: task["state_name"] for task in tasks}


def test_a_run_and_its_repetition(command: Command, api: Api, recipe_file: Path, tmp_path: Path) -> None:
    status, answer, err = finish(
        command("run", str(recipe_file), "--json", "--set", "pretrain.fail=once", TINY_FLAG=str(tmp_path / "flag"))
    )
    assert status == 0, err
    assert answer["state"] == "completed"
    assert [stage["status"] for stage in answer["stages"]] == ["ran"] * 6
    assert {"name", "status", "seconds", "rows", "uri", "fingerprint", "reason"} <= set(answer["stages"][0])
    assert answer["metrics"]["transfer"]["summary"][0]["strategy"] == "knn"
    assert Path(answer["report"]).read_text() == "<p>hello</p>"
    assert "the network went away; it is tried again" in err
    assert "Pretraining helped." in err
    for noise in ("Traceback", "prefect", "\x1b["):
        assert noise not in err
    assert set(task_states(api, answer["run_id"]).values()) == {"Completed"}
    artifacts = {artifact["key"]: artifact for artifact in api("artifacts/filter", {})}
    assert "Pretraining helped." in artifacts["tiny-report"]["data"]
    assert json.loads(artifacts["tiny-metrics"]["data"])[0]["pretrained"] == 0.9

    status, again, err = finish(command("run", str(recipe_file), "--json"))
    assert status == 0, err
    assert {stage["status"] for stage in again["stages"]} == {"cached"}
    assert again["run_id"] != answer["run_id"]
    assert task_states(api, again["run_id"]) == dict.fromkeys((stage["name"] for stage in again["stages"]), "Cached")
    assert flow_run(api, again["run_id"])["parameters"]["recipe"]["name"] == "tiny"


def test_a_failure_and_its_rerun(command: Command, api: Api, recipe_file: Path, tmp_path: Path) -> None:
    status, failed, err = finish(command("run", str(recipe_file), "--json", "--set", "pretrain.fail=refuse"))
    assert status == 1
    assert "error: the representation collapsed; lower pretrain.lr" in err
    assert f"pretextflow rerun {failed['run_id']}" in err
    assert "Traceback" not in err
    assert [stage["status"] for stage in failed["stages"]] == ["ran"] * 3 + ["failed", "skipped", "skipped"]
    assert flow_run(api, failed["run_id"])["state_type"] == "FAILED"
    record = load_run(Store.open(str(tmp_path / "store")), failed["run_id"])
    assert record is not None
    record.recipe["pretrain"]["fail"] = ""
    Store.open(str(tmp_path / "store")).write_json(f"runs/{record.run_id}.json", record.model_dump(mode="json"))

    status, done, err = finish(command("rerun", "--store", str(tmp_path / "store"), "--json"))
    assert status == 0, err
    assert done["run_id"] == failed["run_id"]
    assert [stage["status"] for stage in done["stages"]] == ["cached"] * 3 + ["ran"] * 3


def test_an_unforeseen_error_is_one_line_with_a_log(command: Command, recipe_file: Path) -> None:
    status, answer, err = finish(
        command("run", str(recipe_file), "--json", "--set", "pretrain.fail=crash", "--set", "retries=0")
    )
    assert status == 1
    assert answer["error"] == "OSError: the network went away"
    assert "Traceback" not in err
    log = Path(err.split("(details: ")[1].split(")")[0])
    assert "in pretrain" in log.read_text()


DISK_IS_FULL = """
import flows.execution
save = flows.execution.save_run

def save_run(store, record):
    if record.state == "completed":
        raise OSError(28, "No space left on device")
    save(store, record)

flows.execution.save_run = save_run
"""


def test_a_record_that_cannot_be_closed_fails_the_run(command: Command, recipe_file: Path, tmp_path: Path) -> None:
    with (tmp_path / "site" / "sitecustomize.py").open("a") as site:
        site.write(DISK_IS_FULL)
    status, answer, err = finish(command("run", str(recipe_file), "--json"))
    assert status == 1, err
    assert answer["error"] == "OSError: [Errno 28] No space left on device"
    (record,) = list_runs(Store.open(str(tmp_path / "store")))
    assert (record.state, record.error) == ("failed", answer["error"])


def test_ctrl_c_ends_within_five_seconds_and_can_be_continued(
    command: Command, api: Api, recipe_file: Path, tmp_path: Path
) -> None:
    with (tmp_path / "site" / "sitecustomize.py").open("a") as site:
        site.write(
            "\nimport atexit, time; atexit.register(time.sleep, 10)\n"
        )  # as libraries that wait for their threads
    process = command("run", str(recipe_file), "--json", "--set", "pretrain.seconds=120")
    wait_for_training(tmp_path, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    status, answer, err = finish(process)
    assert time.monotonic() - began < 5
    assert status == 130
    assert answer["state"] == "interrupted"
    assert f"interrupted; continue with: pretextflow rerun {answer['run_id']}" in err
    assert flow_run(api, answer["run_id"])["state_name"] == "Interrupted"
    assert Store.open(str(tmp_path / "store")).list("leases") == []


def test_sigterm_is_recorded_too(command: Command, recipe_file: Path, tmp_path: Path) -> None:
    process = command("run", str(recipe_file), "--json", "--set", "pretrain.seconds=120")
    wait_for_training(tmp_path, process)
    process.terminate()
    status, answer, _ = finish(process)
    assert (status, answer["state"], answer["error"]) == (130, "interrupted", "interrupted")


def test_a_cancel_in_the_ui_ends_the_run(command: Command, api: Api, recipe_file: Path, tmp_path: Path) -> None:
    process = command("run", str(recipe_file), "--json", "--set", "pretrain.seconds=120")
    wait_for_training(tmp_path, process)
    (record,) = list_runs(Store.open(str(tmp_path / "store")))
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}  # what the UI's button sends
    api(f"flow_runs/{record.flow_run_id}/set_state", state)
    status, answer, err = finish(process)
    assert status == 130
    assert answer["state"] == "cancelled"
    assert "Traceback" not in err
    assert flow_run(api, record.run_id)["state_type"] == "CANCELLED"


def test_a_deployment_has_its_schedule_and_a_worker_runs_it(
    command: Command, api: Api, recipe_file: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ("deploy", str(recipe_file), "--json", "--cron")
    status, first, err = finish(command(*words, "0 3 1 1 *"))
    assert status == 0, err
    assert "prefect worker start --pool pretextflow --type process" in err
    status, second, err = finish(command(*words, "30 4 1 1 *", "--timezone", "Europe/Berlin"))
    assert status == 0, err
    assert second["deployment_id"] == first["deployment_id"]
    deployment = api("deployments/name/pretextflow/tiny")
    (schedule,) = deployment["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("30 4 1 1 *", "Europe/Berlin")
    assert schedule["active"]
    assert deployment["parameters"]["recipe"]["ingest"]["path"] == str(tmp_path / "data.txt")
    assert api("work_pools/pretextflow")["type"] == "process"

    scheduled = {
        "deployments": {"id": {"any_": [first["deployment_id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    deadline = time.monotonic() + 120
    while not (planned := api("flow_runs/filter", scheduled)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert {run["expected_start_time"][5:16] for run in planned} == {"01-01T03:30"}  # 4:30 in Berlin's winter

    asked = api(f"deployments/{first['deployment_id']}/create_flow_run", {})
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "pretextflow", "--run-once"]
    subprocess.run(worker, cwd=tmp_path, env=environment, check=True, timeout=200, capture_output=True)
    (record,) = list_runs(Store.open(str(tmp_path / "store")))
    assert record.state == "completed"
    assert record.flow_run_id == asked["id"]
    assert api(f"flow_runs/{asked['id']}")["state_type"] == "COMPLETED"


def test_a_cancel_in_the_ui_ends_the_run_of_a_worker(
    command: Command, api: Api, recipe_file: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ("deploy", str(recipe_file), "--json", "--pool", "cancels", "--set", "name=cancelled")
    status, made, err = finish(command(*words, "--set", "pretrain.seconds=120", "--cron", "0 3 1 1 *"))
    assert status == 0, err
    asked = api(f"deployments/{made['deployment_id']}/create_flow_run", {})
    words = ("worker", "start", "--pool", "cancels", "--run-once")
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", *words], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 90
        while not list(tmp_path.glob("store/partial/*/progress.json")) and time.monotonic() < deadline:
            time.sleep(0.2)
        api(f"flow_runs/{asked['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        worker.wait(100)
    finally:
        worker.kill()
        worker.wait()
    (record,) = list_runs(Store.open(str(tmp_path / "store")))
    assert (record.state, record.flow_run_id) == ("cancelled", asked["id"])
    assert api(f"flow_runs/{asked['id']}")["state_type"] == "CANCELLED"


def test_a_wrong_cron_line_is_refused(command: Command, recipe_file: Path) -> None:
    status, _, err = finish(command("deploy", str(recipe_file), "--cron", "every day"))
    assert status == 2
    assert "--cron 'every day'" in err
    assert "Traceback" not in err


def test_a_wrong_time_zone_is_refused(tiny: ModuleType, recipe_file: Path) -> None:
    with pytest.raises(RequestError, match="--timezone Mars/Base: no such time zone"):
        deploy(load_recipe(str(recipe_file)), cron="0 2 * * *", timezone="Mars/Base")
