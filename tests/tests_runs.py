"""Runs that the fault tests disturb: a small recipe, how to start it, what it left, and which processes are its own.

run = Run(folder / "store", recipe)          # pretextflow run, in a session and with a mark of its own
run.finish()
assert checksums(run.store) == before and run.processes() == []
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ssl_tasks.artifact import Manifest

MINUTES = 60
MARK = "PRETEXTFLOW_FAULT_RUN"
ROOT = Path(__file__).parents[1]
CHECKPOINT_EVERY = 10
RECIPE: dict[str, Any] = {
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
        "checkpoint_every_steps": CHECKPOINT_EVERY,
    },
    "transfer": {"seeds": 2, "label_fractions": [0.1], "bootstrap": 100, "scratch": {"steps": 10}},
}


def write_recipe(folder: Path) -> Path:
    """Of 108 steps."""
    path = folder / "faults.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


class Run:
    """One `pretextflow` process with a store of its own; what it starts carries its mark in the environment."""

    def __init__(self, store: Path, *arguments: str) -> None:
        self.store, self.mark = store, uuid.uuid4().hex
        command = [sys.executable, "-m", "flows.cli", *(arguments or ("rerun",)), "--store", str(store), "--json"]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": paths, MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def wait(self, minutes: float = 5) -> int:
        """Its exit status; negative after a signal."""
        self.output, self.errors = self.process.communicate(timeout=minutes * MINUTES)
        return self.process.returncode

    def finish(self) -> dict[str, Any]:
        """Its answer, when it must go well."""
        status = self.wait()
        assert status == 0, self.errors.decode()
        answer: dict[str, Any] = json.loads(self.output.decode().splitlines()[-1])
        assert answer["state"] == "completed"
        return answer

    def processes(self, title: str = "") -> list[int]:
        """Numbers of the processes that it started and that live, `title` being a part of their command lines."""
        return [pid for pid in _marked(self.mark) if title in _title(pid)]

    def kill(self, title: str) -> bool:
        """SIGKILL for one of them; whether there was one."""
        found = self.processes(title)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[0], signal.SIGKILL)
        return bool(found)

    def kill_group(self) -> None:
        """SIGKILL for the process and its group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def left_behind(self, seconds: float = 30.0) -> list[str]:
        """What still lives of it so long after its end."""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return [_title(pid)[:120] for pid in found]


def _marked(mark: str) -> list[int]:
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0") and _title(int(path.parent.name)):
                found.append(int(path.parent.name))
    return sorted(found)


def _title(pid: int) -> str:
    """Its command line; empty for one that is dead and was not waited for."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def checksums(store: Path) -> dict[str, str]:
    """Of the data of each stage's artifact."""
    found = {}
    for path in sorted(store.glob("objects/*/manifest.json")):
        manifest = Manifest.model_validate_json(path.read_text())
        found[manifest.stage] = manifest.data_checksum
    return found


def step_of(store: Path) -> int:
    """Of the training; the progress of other stages counts something else."""
    steps = [0]
    for path in store.glob("partial/*/progress.json"):
        with contextlib.suppress(OSError, ValueError):  # just being written
            steps.append(int(json.loads(path.read_text()).get("step", 0)))
    return max(steps)


def resumed_at(store: Path) -> int | None:
    """The step that the training which was finished went on from; None where it began at 0, or is not finished."""
    for path in store.glob("objects/*/manifest.json"):
        manifest = Manifest.model_validate_json(path.read_text())
        if manifest.stage == "pretrain":
            found: int | None = manifest.measured.get("resumed_at")
            return found
    return None


def wait_for(happened: Callable[[], bool], run: Run) -> None:
    """Return when it has happened; the run must live as long."""
    deadline = time.monotonic() + 2 * MINUTES
    while not happened():
        if run.process.poll() is not None:
            raise AssertionError(f"ended before it could be disturbed: {run.process.communicate()[1].decode()}")
        assert time.monotonic() < deadline
        time.sleep(0.002)
