"""Fixtures of all tests: a cache of their own, one Ray for the session, the data stages as a chain."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors are small; read when NumPy and torch are imported

import numpy as np
import pytest

from ssl_tasks.artifact import Artifact
from ssl_tasks.store import Store

sys.path.insert(0, str(Path(__file__).parent))
import tests_schedule
from tests_chain import run_chain

Chain = Callable[..., dict[str, Artifact]]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `pytest -n 2`."""
    return tests_schedule.scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        tests_schedule.longest_first(items)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's cache is read or written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.delenv("PRETEXTFLOW_STORE", raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")  # of the S3 server that tests start; Ray's workers inherit them
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that train: starting one costs seconds, and a second init breaks Ray Data."""
    from ssl_tasks.cluster.connect import connection

    with connection(num_cpus=8):
        yield


@pytest.fixture(scope="session")
def chain() -> Chain:
    return run_chain


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 96 small pictures in two classes that are easy to tell apart: bright left, bright right."""
    from PIL import Image

    root = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    for number in range(96):
        pixels = random.integers(0, 90, (8, 8, 3), dtype=np.uint8)
        side = slice(0, 4) if number % 2 else slice(4, 8)
        pixels[:, side] += 120
        folder = root / ("left" if number % 2 else "right")
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return root


SMALL = {
    "clean": {"near_duplicates": None},  # the pictures of `shapes` are alike and no copies of each other
    "normalize": {"size": 8, "channels": 3},
    "pretrain": {
        "backbone": "test_resnet",
        "batch_size": 16,
        "epochs": 2,
        "health_checks": 2,
        "layout": "contiguous",
        "compile": "never",
        "threads": 1,
    },
    "transfer": {"label_fractions": [0.2, 1.0], "seeds": 2, "bootstrap": 100, "scratch": {"steps": 4}},
}


@pytest.fixture(scope="session")
def small_recipe(shapes: Path) -> dict[str, Any]:
    """Sections of a recipe on `shapes` that trains in a moment."""
    return SMALL | {"ingest": {"path": str(shapes)}}


@pytest.fixture
def small(small_recipe: dict[str, Any]) -> dict[str, Any]:
    """`small_recipe`, to be changed."""
    return {name: dict(section) for name, section in small_recipe.items()}
