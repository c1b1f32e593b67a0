"""What the real loop says of its own speed: where steps go, what it reports, a trace."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests_loop import make_job, train

from ssl_tasks.training.bottleneck import find
from ssl_tasks.training.timing import PARTS

SCARF = {"method": "scarf", "backbone": "mlp:32x2", "modality": "tabular"}


def test_a_slow_feed_is_named_and_reported() -> None:
    job, told = make_job(**SCARF, max_steps=10), []
    trainer = train(job, slow=0.1, told=told)
    found = find(trainer.clock.steps, job.config)
    assert found is not None
    assert found.part == "feed"
    assert found.step_seconds > 0.1
    assert found.feed_read_seconds > 0
    assert found.feed_augment_seconds > 0
    assert set(told[-1]) == {"step", "loss", "rows_per_second", "feed_wait"}
    assert 0.3 < told[-1]["feed_wait"] <= 1
    assert trainer.trace is None


def test_views_made_where_the_model_is_are_no_computing() -> None:
    job = make_job(method="simclr", backbone="test_resnet", augment_on="device", max_steps=8)
    seconds = train(job).clock.seconds
    assert seconds["augment"] > 0
    assert train(make_job(method="simclr", backbone="test_resnet", max_steps=8)).clock.seconds["augment"] == 0


def seconds() -> dict[str, float]:
    return train(make_job(method="simclr", backbone="test_resnet", max_steps=8)).clock.seconds


def test_ranks_say_how_long_they_exchange(run_ranks: Any) -> None:
    alone = seconds()
    assert alone["communication"] == 0
    for together in run_ranks(seconds):
        assert set(together) == set(PARTS)
        assert together["communication"] > 0
        assert together["compute"] > 0
        assert 0 < together["transfer"] < together["compute"]


@pytest.mark.parametrize(("max_steps", "traced"), [(8, 2), (2, 2), (1, 1)])
def test_a_trace_of_some_steps(max_steps: int, traced: int, tmp_path: Path) -> None:
    options = {"method": "simclr", "backbone": "test_resnet", "max_steps": max_steps}
    trainer = train(make_job(**options, profile_steps=2))
    assert trainer.trace is not None
    assert trainer.trace.is_done
    trainer.trace.write(tmp_path / "trace.json.gz")
    events = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))["traceEvents"]
    steps = [event for event in events if event.get("name", "").startswith("Optimizer.step#")]
    assert len(steps) == traced
    assert any(event.get("name") == "aten::convolution" for event in events)
    assert trainer.history == train(make_job(**options)).history  # looking changes nothing
