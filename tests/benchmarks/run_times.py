"""How long `pretextflow run` takes, and what it takes apart from training. Prints JSON.

    python tests/benchmarks/run_times.py [RECIPE]

Runs a recipe in a new store, again with everything cached, and cached against a running Prefect server. Whole
processes, from command to exit. Prefect's first migration is left out: its folder is used once before.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "flows.cli"]


def timed(arguments: list[str], env: dict[str, str]) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole process, and its answer."""
    began = time.monotonic()
    done = subprocess.run([*PROGRAM, *arguments, "--json"], env=env, capture_output=True, text=True, check=True)
    return time.monotonic() - began, json.loads(done.stdout.splitlines()[-1])


def training_seconds(answer: dict[str, Any], batch_size: int) -> float:
    """Of the optimizer steps of pretraining, first batch to last step."""
    measured = answer["metrics"]["pretrain"]
    return float(measured["steps"] * batch_size / measured["rows_per_second"])


def main(recipe: str) -> None:
    """Measure and print."""
    from flows.recipe import load_recipe

    batch_size = load_recipe(recipe, []).pretrain.batch_size
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PREFECT_HOME": f"{folder}/prefect", "PYTHONPATH": str(Path(__file__).parents[2])}
        tiny = ["--set", "pretrain.max_steps=1", "--set", "transfer.strategies=[]"]
        timed(["run", recipe, "--store", f"{folder}/first", *tiny], env)
        total, answer = timed(["run", recipe, "--store", f"{folder}/store"], env)
        cached, again = timed(["run", recipe, "--store", f"{folder}/store"], env)
        assert all(stage["status"] == "cached" for stage in again["stages"])
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env={**env, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}/api"
            wait_for(f"{url}/health")
            cached_running, _ = timed(["run", recipe, "--store", f"{folder}/store"], {**env, "PREFECT_API_URL": url})
        finally:
            server.terminate()
            server.wait()
    stages = {stage["name"]: round(stage["seconds"], 1) for stage in answer["stages"]}
    training = training_seconds(answer, batch_size)
    scratch = answer["metrics"]["transfer"]["fit_seconds"]["from_scratch"] / (os.cpu_count() or 1)  # one a core
    figures = {
        "recipe": recipe,
        "cores": os.cpu_count(),
        "total_seconds": total,
        "pretraining_seconds": training,
        "from_scratch_training_seconds": scratch,
        "everything_else_seconds": total - training - scratch,
        "cached_embedded_server_seconds": cached,
        "cached_running_server_seconds": cached_running,
        "rows_per_second": answer["metrics"]["pretrain"]["rows_per_second"],
    }
    rounded = {name: round(value, 1) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({**rounded, "stages": stages}, indent=1))


def wait_for(url: str) -> None:
    """Until a server answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(url)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "digits")
