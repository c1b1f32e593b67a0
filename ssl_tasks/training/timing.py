"""Where the time of a training goes: waiting for the feed, computing, checking health, writing checkpoints.

clock = Clock()
with clock("feed"):
    batch = next(batches)
clock.lap(step)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SPEED_FILE = "speed.parquet"
"""`Clock.steps`, a file of the pretrain artifact; times, and so no part of its data."""
FEED, COMPUTE, HEALTH, CHECKPOINT = "feed", "compute", "health", "checkpoint"
PARTS = (FEED, COMPUTE, HEALTH, CHECKPOINT)


@dataclass
class Clock:
    """Seconds of each part, in all and of each step. Two readings of a clock a part: nothing beside a step."""

    now: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    steps: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ("step", *PARTS)})
    """A line for each step that this process took: its number and the seconds of each part."""
    _before: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time inside to `part`."""
        began = self.now()
        yield
        self.seconds[part] += self.now() - began

    def lap(self, step: int) -> None:
        """Ends the line of a step."""
        self.steps["step"].append(float(step))
        for part in PARTS:
            self.steps[part].append(self.seconds[part] - self._before[part])
        self._before = dict(self.seconds)
