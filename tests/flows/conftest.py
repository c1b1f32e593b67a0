"""A tiny DAG, a recipe for it, the command line on it as a process of its own, and one Prefect server for all."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flows.execution import Execution, Listener, prepare
from flows.recipe import load_recipe

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny.py")
SITE = """
import importlib.util, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, {tiny!r}) if name == "flows.dag" else None

sys.meta_path.insert(0, Finder)
"""
"""Puts the tiny DAG in the place of the real one, in every process that has this on its path."""


def python_path(*first: Path) -> str:
    """`first`, then what is there already."""
    return os.pathsep.join([*map(str, first), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tiny DAG in the place of the real one."""
    spec = importlib.util.spec_from_file_location("flows.dag", TINY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "flows.dag", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe of the tiny DAG over ten rows, with a store beside it."""
    (tmp_path / "data.txt").write_text("\n".join(f"f{number}.png" for number in range(10)))
    path = tmp_path / "tiny.yaml"
    path.write_text(
        textwrap.dedent(
            f"""
            name: tiny
            seed: 7
            store: {tmp_path / "store"}
            retry_delay: 0.1
            ingest:
              path: {tmp_path / "data.txt"}
            pretrain:
              batch_size: 4
            """
        )
    )
    return path


@pytest.fixture
def begin(tiny: ModuleType, recipe_file: Path) -> Callable[..., Execution]:
    """Prepare a run of the recipe, with overrides; `previous` and `forced` as `prepare` has them."""

    def begin(*overrides: str, **options: Any) -> Execution:
        return prepare(load_recipe(str(recipe_file), overrides), listener=Listener(), **options)

    return begin


PARENT = """
import time
from flows import server
started = server.start(scheduler=True)
print(started.child.pid, started.url, flush=True)
started.wait()
print("answers", flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Servers:
    """Two servers that were started at once on one new database, each by a process of its own."""

    parents: list[subprocess.Popen[str]]
    children: list[int]
    urls: list[str]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The first is for all tests; the second is there to be killed."""
    home = tmp_path_factory.mktemp("prefect")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PYTHONPATH": python_path(ROOT)}
    parents = [
        subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True, cwd=home)
        for _ in range(2)
    ]
    children, urls = [], []
    for parent in parents:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        assert parent.stdout.readline() == "answers\n"
        children.append(int(pid))
        urls.append(url)
    yield Servers(parents, children, urls)
    for parent in parents:
        parent.kill()
        parent.communicate()


@pytest.fixture(scope="session")
def server(servers: Servers) -> str:
    """URL of a Prefect server with its own database."""
    return servers.urls[0]


@pytest.fixture
def environment(server: str, tmp_path: Path) -> dict[str, str]:
    """For processes that run the tiny DAG against the server."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE.format(tiny=str(TINY)))
    return {
        **os.environ,
        "PYTHONPATH": python_path(tmp_path / "site", ROOT),
        "PREFECT_API_URL": server,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "OMP_NUM_THREADS": "1",
    }


Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Iterator[Command]:
    """Start `pretextflow ...` as a process."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=tmp_path,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


Api = Callable[..., Any]
BUSY_SECONDS = 30.0
"""The server answers 503 when its database is locked, and expects that its clients ask again."""


@pytest.fixture
def api(server: str) -> Api:
    """Ask the server: `api("flow_runs/filter", {...})` posts, `api("deployments/name/a/b")` gets."""

    def ask(path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{server}/{path}", data=data, headers={"Content-Type": "application/json"})
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    return ask
