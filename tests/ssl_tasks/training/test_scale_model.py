"""The model of many GPUs in `tests/benchmarks/scale_model.py`, on cases worked out by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "scale_model.py"


@pytest.fixture(scope="module")
def model() -> Any:
    spec = importlib.util.spec_from_file_location("scale_model", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_model"] = module  # its dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


def test_exchange_by_hand(model: Any) -> None:
    assert model.ring(8e9, 4, 1e9, 0.5) == pytest.approx(2 * 3 / 4 * 8 + 2 * 3 * 0.5)  # 12 + 3
    assert model.tree(8e9, 4, 1e9, 0.5) == pytest.approx(16 + 2)
    assert model.tree(8e9, 5, 1e9, 0.5) == pytest.approx(16 + 3)
    assert model.ring(8e9, 1, 1e9, 0.5) == model.tree(8e9, 1, 1e9, 0.5) == 0
    machine = model.Machine(gpus_per_node=2, gpu_bandwidth=4e9, node_bandwidth=1e9, latency=1.0)
    # inside: 2 * 1/2 * 4e9/4e9 + 2 * 0.1; between 2 nodes: a ring of 2 * 1/2 * 4 + 2 * 1, a tree of 8 + 2
    assert model.all_reduce(4e9, 4, machine) == pytest.approx(1.2 + 6)
    assert model.all_reduce(4e9, 2, machine) == pytest.approx(1.2)
    assert model.all_gather(4e9, 4, machine) == pytest.approx(3.6)
    # 16 nodes, hardly a byte: 30 messages around a ring, 8 up and down a tree
    assert model.all_reduce(0.0, 32, machine) == pytest.approx(0.2 + 8)


def test_a_step_by_hand(model: Any) -> None:
    machine = model.Machine(
        gpus_per_node=2, cores_per_node=10, node_bandwidth=1e9, gpu_bandwidth=4e9, latency=0.0,
        feed_rate=5.0, sample_bytes=1e6, store_bandwidth=1e8,
    )  # fmt: skip
    training = model.Training("x", parameters=1e9, rate=4.0, features=250_000)
    found = model.step(training, gpus=4, batch=400, machine=machine)
    assert found.compute == pytest.approx(100 / 4)
    assert found.gradients == 0  # 1 + 4 s beside 12.5 s of computing
    assert found.embeddings == pytest.approx(1.5 * (0.1 + 0.4))  # 4e8 bytes gathered, and added up on the way back
    assert found.feed == pytest.approx(400 / (20 * 5))
    assert found.store == pytest.approx(4)
    assert found.seconds == pytest.approx(25.75)
    assert found.breaks == "compute"
    few = model.step(training, gpus=4, batch=8, machine=machine)
    assert few.gradients == pytest.approx(5 - 0.25)
    assert few.breaks == "gradients"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"feed_rate": 1.0}, "feed"),
        ({"store_bandwidth": 1e6}, "store"),
        ({"store_bandwidth": 1e6, "cached": True}, "compute"),
        ({"feed_rate": 1.0, "feed_on_gpu": True}, "compute"),
    ],
)
def test_what_breaks_first_is_named_and_its_setting_mends_it(model: Any, change: dict[str, Any], part: str) -> None:
    assert model.step(model.TRAININGS[0], 8, 4096, model.Machine(**change)).breaks == part
    assert set(model.ADVICE) == {"compute", "rows", "gradients", "embeddings", "norms", "feed", "store"}


def test_more_gpus_at_one_batch_do_less_each(model: Any) -> None:
    found = [row for row in model.rows(model.Machine(cached=True)) if row["batch"] == 4096]
    for training in model.TRAININGS:
        of = [row["efficiency"] for row in found if row["training"] == training.name]
        assert of == sorted(of, reverse=True)
        assert 0 < of[-1] < of[0] <= 1
    assert found[2]["breaks_first"] == "rows"  # SimCLR on 512: 8 rows a GPU
