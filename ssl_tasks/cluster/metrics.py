"""What a training says to Prometheus, through the exporter that every Ray node has.

A node started with `ray start --metrics-export-port=8080` shows at http://NODE:8080/metrics, for each training,
`ray_pretextflow_loss{run="...", artifact="...", method="..."}` and the other gauges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GAUGES = {
    "step": "Optimizer steps taken",
    "loss": "Loss of the last step, mean over workers",
    "rows_per_second": "Rows of all workers a second, since this process began",
    "feed_wait": "Share of the time that the first worker has waited for data, since it last said so",
}
"""Keys of a training's progress; Ray puts `ray_` before the names."""


class Metrics:
    """Gauges of one training, set by its first worker."""

    def __init__(self, run: str, artifact: str, method: str) -> None:
        from ray.util.metrics import Gauge

        tags = {"run": run, "artifact": artifact, "method": method}
        self._gauges = {key: Gauge(f"pretextflow_{key}", text, tuple(tags)) for key, text in GAUGES.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags(tags)

    def tell(self, progress: Mapping[str, Any]) -> None:
        """Set what `progress` holds a number of."""
        for key, gauge in self._gauges.items():
            if isinstance(progress.get(key), int | float):
                gauge.set(progress[key])
