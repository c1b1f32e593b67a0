"""Where a run's time goes before the first optimizer step and after the last, by cause. Prints JSON.

    python tests/benchmarks/fixed_cost.py [RECIPE] [ROUNDS]        # digits, 3

Runs a recipe in a new store, without transfer, and looks every 20 ms at what the run writes there for the progress
bar. Nothing is built into the program for this. Seconds, medians over rounds; `steps` is what is no fixed cost.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 40
CAUSES = {
    None: "process, imports, Prefect server, plan, data stages",
    "starting Ray": "Ray",
    "starting workers": "the training worker",
    "building the model": "torch, feed, model and its calibration",
    "waiting for the first batch": "the first batch and the first second of steps",
}
"""By the note that stands in the progress while it passes."""
LOOK_SECONDS = 0.02


def read(path: Path) -> dict[str, Any]:
    """A file of JSON, empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {}


def look(store: Path) -> str:
    """What the run is about."""
    found = [read(path) for path in store.glob("partial/*/progress.json")]
    if not (progress := next((one for one in found if "step" in one), None)):  # others are of data stages
        records = [read(path) for path in store.glob("runs/*.json")]
        done = records and any(stage["name"] == "pretrain" and stage["seconds"] for stage in records[0]["stages"])
        return "the stages after pretraining, and the end of the process" if done else CAUSES[None]
    if "note" in progress:
        return CAUSES[progress["note"]]
    last = progress.get("step") == progress.get("total_steps")
    return "results, and the end of worker and Ray" if last else "steps"


def one(recipe: str, folder: Path, env: dict[str, str]) -> dict[str, float]:
    """Seconds by cause of one run."""
    settings = [f"pretrain.max_steps={STEPS}", "transfer.strategies=[]", "pretrain.health_checks=1"]
    command = [sys.executable, "-m", "flows.cli", "run", recipe, "--store", str(folder), "--json"]
    command += [word for setting in settings for word in ("--set", setting)]
    seconds: dict[str, float] = {}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = began = time.monotonic()
    about = CAUSES[None]
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        seconds[about] = seconds.get(about, 0.0) + now - before
        before, about = now, look(folder)
    assert process.returncode == 0, f"the run ended with {process.returncode}"
    return {**seconds, "whole process": time.monotonic() - began}


def main(recipe: str = "digits", rounds: int = 3) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PREFECT_HOME": f"{folder}/prefect", "PYTHONPATH": str(Path(__file__).parents[2])}
        one(recipe, Path(folder, "first"), env)  # Prefect migrates its database once
        found = [one(recipe, Path(folder, str(number)), env) for number in range(rounds)]
    medians = {name: round(statistics.median(one.get(name, 0.0) for one in found), 2) for name in found[0]}
    print(json.dumps({"recipe": recipe, "cores": os.cpu_count(), "steps": STEPS, "seconds": medians}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
