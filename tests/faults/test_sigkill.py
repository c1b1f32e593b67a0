"""SIGKILL of the whole process group inside every stage, and in the middle of training; then `rerun`.

Not part of the test command (a quarter of an hour): `pytest tests/faults`. After each kill the run is continued,
and every artifact's data checksum must equal that of a run that nobody disturbed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.dag import DAG

STAGES = [stage.name for stage in DAG]
MINUTES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    sections: dict[str, Any] = {
        "name": "faults",
        "ingest": {"path": "builtin:digits"},
        "normalize": {"size": 8, "channels": 1},
        "augment": {"flip_probability": 0.0, "jitter_probability": 0.0, "gray_probability": 0.0},
        "pretrain": {
            "backbone": "test_resnet",
            "batch_size": 128,
            "epochs": 12,
            "health_checks": 4,
            "layout": "contiguous",  # the suite pins layout and threads: they decide the last bits
            "compile": "never",
            "threads": 1,
            "checkpoint_every_steps": 10,
        },
        "transfer": {"seeds": 2, "label_fractions": [0.1], "bootstrap": 100, "scratch": {"steps": 10}},
    }
    path = folder / "faults.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def start(*arguments: str, store: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.cli", *arguments, "--store", str(store), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=5 * MINUTES)
    assert process.returncode == 0, errors.decode()
    answer: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    assert answer["state"] == "completed"
    return answer


def checksums(store: Path) -> dict[str, str]:
    from ssl_tasks.artifact import Manifest

    found = {}
    for path in sorted(store.glob("objects/*/manifest.json")):
        manifest = Manifest.model_validate_json(path.read_text())
        found[manifest.stage] = manifest.data_checksum
    return found


@pytest.fixture(scope="module")
def undisturbed(folder: Path, recipe: Path) -> dict[str, str]:
    finish(start("run", str(recipe), store=folder / "whole"))
    return checksums(folder / "whole")


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 2 * MINUTES
    while not happened():
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()[1].decode()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def is_making(store: Path, stage: str) -> bool:
    """Whether the run record says that all stages before this one are there and a lease is held."""
    done = set(checksums(store))
    return set(STAGES[: STAGES.index(stage)]) <= done and any(store.glob("leases/*.json"))


def step_of(store: Path) -> int:
    """Of the training; the progress of other stages counts something else."""
    steps = [0]
    for path in store.glob("partial/*/progress.json"):
        with contextlib.suppress(OSError, ValueError):  # just being written
            steps.append(int(json.loads(path.read_text()).get("step", 0)))
    return max(steps)


def left_behind(store: Path) -> list[str]:
    """Command lines of processes that still mention the store or Ray's session after the kill."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if ("ray::" in text or "raylet" in text or "gcs_server" in text or str(store) in text) and "pytest" not in text:
            found.append(text[:120])
    return found


def check_after_kill(store: Path, undisturbed: dict[str, str]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while left_behind(store) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left_behind(store) == []
    answer = finish(start("rerun", store=store))
    assert checksums(store) == undisturbed
    return answer


@pytest.mark.timeout(15 * MINUTES)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_inside_a_stage(stage: str, folder: Path, recipe: Path, undisturbed: dict[str, str]) -> None:
    store = folder / f"killed-in-{stage}"
    process = start("run", str(recipe), store=store)
    wait_for(lambda: is_making(store, stage), process)
    kill_group(process)
    assert stage not in checksums(store)
    answer = check_after_kill(store, undisturbed)
    status = {entry["name"]: entry["status"] for entry in answer["stages"]}
    assert all(status[name] == "cached" for name in STAGES[: STAGES.index(stage)])
    assert all(status[name] == "ran" for name in STAGES[STAGES.index(stage) :])


@pytest.mark.timeout(15 * MINUTES)
@pytest.mark.parametrize("step", [33, 71])
def test_killed_in_the_middle_of_training(step: int, folder: Path, recipe: Path, undisturbed: dict[str, str]) -> None:
    store = folder / f"killed-at-{step}"
    process = start("run", str(recipe), store=store)
    wait_for(lambda: step_of(store) >= step, process)
    kill_group(process)
    answer = check_after_kill(store, undisturbed)
    assert answer["metrics"]["pretrain"]["resumed_at"] >= step - 10 - 10  # a checkpoint in 10, one being written
