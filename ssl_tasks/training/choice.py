"""Memory layout and compilation, chosen by timing a few steps.

choice = calibrate(job, method, ranks, autocast)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ssl_tasks.methods.base import Method
from ssl_tasks.training.job import Job
from ssl_tasks.training.setup import Ranks, as_input, place, wrap
from ssl_tasks.training.views import make_views, to_batch

COMPILE_ABOVE_SECONDS = 600.0
"""`compile: auto` tries it only in runs that are expected to take longer: compiling takes a minute itself."""
CLEARLY_FASTER = 0.9
"""Share of the plain choice's seconds below which another is taken: results differ in the last bits between them, so
what a busy moment adds to one of them should not decide."""


@dataclass(frozen=True)
class Choice:
    """What calibration chose; kept for a resumed run, because layouts differ in the last bits."""

    layout: Literal["contiguous", "channels_last"]
    compiled: bool
    seconds: dict[str, float]


def calibrate(job: Job, method: Method, ranks: Ranks, autocast: Callable[[], Any]) -> Choice:
    """Time a few steps on copies of the method in each layout, and compiled where the run is long enough.

    On one kind of CPU a ResNet-18 at 32 px ran at 41 images/s in fp32, 12 in bf16 and 70 in bf16 with
    channels_last: no rule would have told.
    """
    config = job.config
    if config.sharding != "none":  # a network that needs it has no room for trials, and cannot be channels_last
        return Choice("contiguous", False, {})
    images = len(job.modality.input_shape(job.stats)) == 3
    layouts = ["contiguous", "channels_last"] if config.layout == "auto" and images else [config.layout]
    layouts = ["contiguous" if layout == "auto" else layout for layout in layouts]
    seconds: dict[str, float] = {}
    if len(layouts) > 1 or config.compile == "auto":
        for layout in layouts:
            seconds[layout] = _time_steps(job, method, ranks, layout, autocast, compiled=False)
    plain, other = layouts[0], layouts[-1]
    best = other if seconds and seconds[other] < CLEARLY_FASTER * seconds[plain] else plain
    compiled = config.compile == "always"
    if config.compile == "auto" and seconds[best] * job.total_steps > COMPILE_ABOVE_SECONDS and ranks.world == 1:
        compiled = _faster_compiled(job, method, ranks, best, autocast, seconds)
    return Choice(best, compiled, seconds)  # type: ignore[arg-type]  # a layout by now


def _faster_compiled(
    job: Job, method: Method, ranks: Ranks, layout: str, autocast: Callable[[], Any], seconds: dict[str, float]
) -> bool:
    """Try it, once: compiled code that corrupts memory ends the process, and the next one must not try again.

    torch 2.14.1 does that with CPC at 32 px ("malloc(): invalid size").
    """
    store, marker = job.out.store, f"{job.partial}/compiling.json"
    if store.read_json(marker) is not None:
        seconds["not compiled: the process ended while it was tried"] = 0.0
        return False
    store.write_json(marker, {})
    try:
        seconds["compiled"] = _time_steps(job, method, ranks, layout, autocast, compiled=True)
    except Exception as error:  # no compiler, an operator it cannot take: the run goes on without
        seconds[f"not compiled: {type(error).__name__}"] = 0.0
        return False
    return seconds["compiled"] < CLEARLY_FASTER * seconds[layout]


def _time_steps(
    job: Job, method: Method, ranks: Ranks, layout: str, autocast: Callable[[], Any], compiled: bool
) -> float:
    """Least seconds of forward and backward, after one step of warm-up; the method itself is not touched."""
    alone = job.config.model_copy(update={"sync_batch_norm": False})
    trial = place(copy.deepcopy(method), ranks, layout, alone)
    call = wrap(trial, Ranks(0, 1, ranks.device), compiled, sync_batch_norm=False)
    batch = to_batch(make_views(job, 0, ranks.rank, ranks.world), job, job.stats, ranks.device)
    batch = as_input(batch, layout, job.config.precision)
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        with autocast():
            loss = call(batch, trial.phases[0])["loss"]
        loss.backward()
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])
