"""A trace of some steps, on request: what the process and its device did, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

TRACE_FILE = "trace.json.gz"
"""A file of the pretrain artifact where `pretrain.profile_steps` asks for it."""
WARM_UP_STEPS = 3
"""Steps of this process before the first that is traced."""


class Trace:
    """Profiles `num_steps` steps of this process, from the fourth on, or as many as there are."""

    def __init__(self, num_steps: int, first: int, end: int, device_type: str) -> None:
        self.begin = min(first + WARM_UP_STEPS, max(first, end - num_steps))
        self.end = min(self.begin + num_steps, end)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device_type == "cuda" else [])]
        self._profile: Any = profile(activities=activities)
        self._state = "before"

    def before_step(self, step: int) -> None:
        """Begins at its first step."""
        if step == self.begin and self._state == "before":
            self._profile.start()
            self._state = "running"

    def after_step(self, step: int) -> None:
        """Ends after its last one."""
        if step + 1 == self.end and self._state == "running":
            self._profile.stop()
            self._state = "done"

    @property
    def is_done(self) -> bool:
        """Whether there is something to write."""
        return self._state == "done"

    def write(self, path: Path) -> None:
        """As gzipped JSON of Chrome's trace format."""
        self._profile.export_chrome_trace(str(path))
