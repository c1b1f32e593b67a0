"""Where the time of a training goes: the parts of a step, one after the other, and what the feed does beside them.

clock = Clock()
with clock(FEED):
    batch = next(batches)
with clock(COMPUTE, {COMMUNICATION: EXCHANGE}):      # what is spent inside on exchanging is counted as that
    ...
clock.lap(step)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SPEED_FILE = "speed.parquet"
"""`Clock.steps`, a file of the pretrain artifact; times, and so no part of its data."""
FEED, TRANSFER, AUGMENT, COMPUTE, COMMUNICATION = "feed", "transfer", "augment", "compute", "communication"
HEALTH, CHECKPOINT = "health", "checkpoint"
PARTS = (FEED, TRANSFER, AUGMENT, COMPUTE, COMMUNICATION, HEALTH, CHECKPOINT)
"""Of a step: waiting for a batch, moving it to the model as floats, making views there (`augment_on: device`),
computing, exchanging with other workers (and waiting for the slowest), health checks, checkpoints. On a GPU, which
works on its own, moving and exchanging are seen only where they hold this process up; the rest is in computing."""
FEED_READ, FEED_AUGMENT = "feed_read", "feed_augment"
BESIDE = (FEED_READ, FEED_AUGMENT)
"""Of the feed's task that made the batch, beside training."""


class Stopwatch:
    """Seconds inside its `with` blocks."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now, self.seconds, self._began = now, 0.0, 0.0

    def __enter__(self) -> None:
        self._began = self.now()

    def __exit__(self, *_error: object) -> None:
        self.seconds += self.now() - self._began


READ, VIEWS, EXCHANGE = Stopwatch(), Stopwatch(), Stopwatch()
"""Of this process: reading stored rows, making views of them, exchanging with other ranks."""


@dataclass
class Clock:
    """Seconds of each part, in all and of each step. A few readings of a clock a part: nothing beside a step."""

    now: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    steps: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ("step", *PARTS, *BESIDE)})
    """A line for each step that this process took: its number and the seconds of each part."""
    _before: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _beside: tuple[float, ...] = (0.0, 0.0)

    @contextlib.contextmanager
    def __call__(self, part: str, inside: Mapping[str, Stopwatch] | None = None) -> Iterator[None]:
        """Adds the time inside to `part`, but for what the stopwatches of other parts counted meanwhile."""
        watches = dict(inside or {})
        before = {name: watch.seconds for name, watch in watches.items()}
        began = self.now()
        yield
        taken = self.now() - began
        for name, watch in watches.items():
            self.seconds[name] += watch.seconds - before[name]
            taken -= watch.seconds - before[name]
        self.seconds[part] += taken

    def beside(self, seconds: Iterable[float]) -> None:
        """What making this step's batch took, in the order of `BESIDE`."""
        self._beside = tuple(seconds)

    def lap(self, step: int) -> None:
        """Ends the line of a step."""
        self.steps["step"].append(float(step))
        for part in PARTS:
            self.steps[part].append(self.seconds[part] - self._before[part])
        for name, value in zip(BESIDE, self._beside, strict=True):
            self.steps[name].append(value)
        self._before = dict(self.seconds)


class LastGradient:
    """When the last gradient of a backward pass was there: what DDP takes after it is exchanging.

    Earlier buckets are exchanged beside computing and hold nobody up. For CPUs: on a GPU backward returns at once.
    """

    def __init__(self, module: nn.Module) -> None:
        self.at = 0.0
        for weight in module.parameters():
            if weight.requires_grad:
                weight.register_hook(self._note)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _note(self, _gradient: Tensor) -> None:
        self.at = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Around a backward pass at whose end DDP exchanges."""
        self.at = time.perf_counter()
        yield
        EXCHANGE.seconds += time.perf_counter() - self.at


def tell_feed(before: tuple[float, float], made: dict[str, Any]) -> dict[str, Any]:
    """`made` with what it took since `before`, as `Clock.beside` reads it."""
    import numpy as np

    return {**made, "feed_seconds": np.array([READ.seconds - before[0], VIEWS.seconds - before[1]])}
