"""Gauges of a training: names, tags and values as they are handed to Ray."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_tasks.cluster.metrics import GAUGES, Metrics


def test_progress_becomes_gauges_by_run(monkeypatch: pytest.MonkeyPatch) -> None:
    set_: dict[str, tuple[float, dict[str, str]]] = {}

    class Gauge:
        def __init__(self, name: str, text: str, tag_keys: tuple[str, ...]) -> None:
            self.name, self.keys = name, tag_keys

        def set_default_tags(self, tags: dict[str, str]) -> None:
            assert tuple(tags) == self.keys
            self.tags = tags

        def set(self, value: float) -> None:
            set_[self.name] = value, self.tags

    monkeypatch.setattr("ray.util.metrics.Gauge", Gauge)
    metrics = Metrics("20261128-1", "abc", "simclr")
    metrics.tell({"step": 0, "note": "building the model"})
    assert set(set_) == {"pretextflow_step"}
    progress: dict[str, Any] = {"step": 7, "loss": 1.5, "rows_per_second": 300.0, "feed_wait": 0.25, "total_steps": 9}
    metrics.tell(progress)
    tags = {"run": "20261128-1", "artifact": "abc", "method": "simclr"}
    assert set_ == {f"pretextflow_{key}": (progress[key], tags) for key in GAUGES}


def test_ray_takes_the_gauges() -> None:
    Metrics("run", "abc", "simclr").tell({"step": 1, "loss": 0.5})
