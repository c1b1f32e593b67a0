"""Two runs on one cluster, one of them cancelled in Prefect: the other must not notice. Not in the test command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from nodes import several_nodes
from tests_runs import MINUTES, RECIPE, ROOT, Run, checksums, marked, step_of

EPOCHS = 60
"""540 steps: both train when one is cancelled, and the other goes on for a while."""
START_MINUTES = 8
"""Of two drivers, their controllers and their workers, on a busy machine."""
TRAINING = "ray::RayTrainWorker"
SERVER = """
import time
from flows import server
started = server.start(scheduler=True)
started.wait()
print(started.url, flush=True)
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "cancel.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "pretrain": {**RECIPE["pretrain"], "epochs": EPOCHS}}))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Prefect server that both runs use."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen([sys.executable, "-c", SERVER], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        yield parent.stdout.readline().strip()
        parent.kill()


def ask(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def cancel(server: str, store: Path) -> None:
    """As the button of the UI does it."""
    (record,) = store.glob("runs/*.json")
    (flow_run,) = ask(f"{server}/flow_runs/filter", {"flow_runs": {"name": {"any_": [record.stem]}}})
    ask(f"{server}/flow_runs/{flow_run['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})


def within(seconds: float, happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := happened()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return done


@pytest.mark.timeout(20 * MINUTES)
def test_cancelling_a_run_stops_its_work_and_nobody_elses(tmp_path: Path, recipe: Path, server: str) -> None:
    with several_nodes(tmp_path, recipe, redis=False) as place:
        place.nodes.order("add_node")  # a worker and its feed on each
        place.environment["PREFECT_API_URL"] = server
        folders = [tmp_path / "cancelled", tmp_path / "other"]
        cancelled, other = (
            Run(folder, "run", str(recipe), environment=place.environment, command=place.command) for folder in folders
        )

        def trainings() -> int:
            return len(marked(place.nodes.mark, TRAINING))

        assert within(START_MINUTES * MINUTES, lambda: all(step_of(folder) > 0 for folder in folders))
        assert trainings() == 2
        before = step_of(folders[1])
        cancel(server, folders[0])
        assert cancelled.wait() == 130
        assert json.loads(cancelled.output.decode().splitlines()[-1])["state"] == "cancelled"
        assert within(30, lambda: trainings() == 1), "a worker of the cancelled run lives"
        assert within(30, lambda: step_of(folders[1]) > before), "the other one stands still"
        assert other.wait(minutes=10) == 0, other.errors.decode()
        assert place.left() == []
        assert [run.left_behind() for run in (cancelled, other)] == [[], []]
        Run(folders[0], "rerun", environment=place.environment, command=place.command).finish()
        assert place.left() == []
    Run(tmp_path / "alone", "run", str(recipe), environment={"PREFECT_API_URL": server}).finish()
    assert checksums(folders[1]) == checksums(folders[0]) == checksums(tmp_path / "alone")
