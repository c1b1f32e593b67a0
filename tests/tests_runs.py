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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ssl_tasks.artifact import Manifest
from ssl_tasks.store import Store
from ssl_tasks.store.output import PROGRESS_FILE
from ssl_tasks.training.job import checkpoint_steps

MINUTES = 60
MARK = "PRETEXTFLOW_FAULT_RUN"
ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "flows.cli")
STEPS = 108
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
        "timeout_minutes": 1,
    },
    "transfer": {"seeds": 2, "label_fractions": [0.1], "bootstrap": 100, "scratch": {"steps": 10}},
}


def write_recipe(folder: Path) -> Path:
    """Of `STEPS` steps."""
    path = folder / "faults.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


class Run:
    """One `pretextflow` process with a store of its own; what it starts carries its mark in the environment."""

    def __init__(
        self,
        store: Path | str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.store, self.mark = store, uuid.uuid4().hex
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [*command, *(arguments or ("rerun",)), "--store", str(store), "--json"],
            env={**os.environ, "PYTHONPATH": paths, MARK: self.mark, **(environment or {})},
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
        return marked(self.mark, title)

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
        return [title_of(pid)[:120] for pid in found]


def marked(mark: str, title: str = "") -> list[int]:
    """Numbers of the live processes with this mark in their environment and `title` in their command lines."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            said = title_of(int(path.parent.name))
            if said and title in said and wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return sorted(found)


def title_of(pid: int) -> str:
    """Its command line; empty for one that is dead and was not waited for."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _manifests(store: Path | str) -> list[Manifest]:
    opened = Store(str(store))
    found = (opened.read_json(f"objects/{name}/manifest.json") for name in opened.list("objects"))
    return [Manifest.model_validate(each) for each in found if each]


def checksums(store: Path | str) -> dict[str, str]:
    """Of the data of each stage's artifact."""
    return {manifest.stage: manifest.data_checksum for manifest in _manifests(store)}


def step_of(store: Path | str) -> int:
    """Of the training, as it was last reported; the progress of other stages counts something else."""
    opened, steps = Store(str(store)), [0]
    for name in opened.list("partial"):
        with contextlib.suppress(OSError):
            steps.append(int((opened.read_json(f"partial/{name}/{PROGRESS_FILE}") or {}).get("step", 0)))
    return max(steps)


def step_now(store: Path | str) -> int:
    """The step that the training has come to: a report is up to a second old, and holds the rate."""
    opened, steps = Store(str(store)), [0]
    for name in opened.list("partial"):
        with contextlib.suppress(OSError):
            path = f"partial/{name}/{PROGRESS_FILE}"
            said = opened.read_json(path) or {}
            written_at = opened.fs.get_file_info(opened.full(path)).mtime_ns
            if written_at is None:  # gone by now
                continue
            age = max(0.0, time.time() - written_at / 1e9)
            since = int(age * said.get("rows_per_second", 0.0) / RECIPE["pretrain"]["batch_size"])
            written = max(checkpoint_steps(opened, f"partial/{name}"), default=0)
            steps.append(max(written, min(int(said.get("step", 0)) + since, int(said.get("total_steps", 0)))))
    return max(steps)


def resumed_at(store: Path | str) -> int | None:
    """The step that the training which was finished went on from; None where it began at 0, or is not finished."""
    for manifest in _manifests(store):
        if manifest.stage == "pretrain":
            found: int | None = manifest.measured.get("resumed_at")
            return found
    return None


def wait_for(happened: Callable[[], bool], run: Run) -> None:
    """Return when it has happened; the run must live as long."""
    deadline = time.monotonic() + 5 * MINUTES  # as long as a whole run may take
    while not happened():
        if run.process.poll() is not None:
            raise AssertionError(f"ended before it could be disturbed: {run.process.communicate()[1].decode()}")
        assert time.monotonic() < deadline
        time.sleep(0.002)
