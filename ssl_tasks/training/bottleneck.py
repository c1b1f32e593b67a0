"""What holds a training up, by the shares of its steps, and what to change.

find(clock.steps, config).sentence
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.timing import (
    AUGMENT,
    BESIDE,
    CHECKPOINT,
    COMMUNICATION,
    COMPUTE,
    FEED,
    FEED_AUGMENT,
    FEED_READ,
    HEALTH,
    PARTS,
    TRANSFER,
)

START_STEPS = 2
"""Left out: the first wait is for the feed's start, and the first steps warm caches up."""
FEW_STEPS = 5
"""Steps of which nothing can be said."""
TITLES = {
    FEED: "waiting for data",
    TRANSFER: "moving to the model",
    AUGMENT: "making views there",
    COMPUTE: "computing",
    COMMUNICATION: "exchanging",
    HEALTH: "health checks",
    CHECKPOINT: "checkpoints",
}
WORTH = {FEED: 0.1, TRANSFER: 0.15, AUGMENT: 0.25, COMMUNICATION: 0.2, HEALTH: 0.15, CHECKPOINT: 0.05}
"""Share of a step from which on a part is worth a change; below them all, computing is what there is to do."""


@dataclass(frozen=True)
class Bottleneck:
    """Of one rank's steps in one process."""

    part: str
    shares: dict[str, float]
    """Of a mean step; they add up to 1."""
    sentence: str
    step_seconds: float
    feed_read_seconds: float
    """Of a task that makes one batch."""
    feed_augment_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For the artifact's measurements."""
        return asdict(self)


def find(steps: Mapping[str, Sequence[float]], config: PretrainConfig) -> Bottleneck | None:
    """Judge the steps of a `Clock`; None where they are too few."""
    if len(steps["step"]) < START_STEPS + FEW_STEPS:
        return None
    mean = {name: float(np.mean(steps[name][START_STEPS:])) for name in (*PARTS, *BESIDE)}
    whole = sum(mean[part] for part in PARTS)
    shares = {part: mean[part] / whole for part in PARTS}
    worth = [part for part, least in WORTH.items() if shares[part] >= least]
    part = max(worth, key=lambda name: shares[name], default=COMPUTE)
    said = _SAID[part](shares[part], mean, config)
    return Bottleneck(part, shares, said, whole, mean[FEED_READ], mean[FEED_AUGMENT])


def in_words(measured: Mapping[str, Any] | None) -> list[str]:
    """The sentence, the shares of a step, and what the feed did beside it; nothing where it was not measured.

    Args:
        measured: `Bottleneck.to_dict()`.
    """
    if not measured:
        return []
    shares = sorted(measured["shares"].items(), key=lambda item: -item[1])
    listed = ", ".join(f"{TITLES[name]} {share:.0%}" for name, share in shares if share >= 0.005)
    read, views = (_seconds(measured[f"{name}_seconds"]) for name in BESIDE)
    sentence = measured["sentence"]
    return [
        sentence[:1].upper() + sentence[1:],
        f"Of a step of {_seconds(measured['step_seconds'])}: {listed}",
        f"Beside it a task of the feed takes {read} to read a batch and {views} to make its views",
    ]


def _feed(share: float, mean: Mapping[str, float], config: PretrainConfig) -> str:
    tasks, made = config.feed_workers, mean[FEED_READ] + mean[FEED_AUGMENT]
    model = sum(mean[part] for part in PARTS if part != FEED)
    times = f"a task of the feed makes a batch in {_seconds(made)}, the model takes {_seconds(model)} for it"
    waits = f"{share:.0%} of a step is waiting for data"
    needed = math.ceil(made / model)
    if needed <= tasks:
        return (
            f"{waits}, although making it would keep up ({times}, with {tasks} such tasks a worker): the feed's CPUs "
            "are busy with something else. Leave more CPUs free, or lower pretrain.threads"
        )
    lower = (
        "put the store on a faster disk, or lower pretrain.shuffle_shards"
        if mean[FEED_READ] > mean[FEED_AUGMENT]
        else "lower the views' number or size (augment), or with a GPU set pretrain.augment_on=device"
    )
    return (
        f"the feed is slower than the model: {waits} ({times}). Add {needed - tasks} CPU for each worker with "
        f"pretrain.feed_workers={needed}, or {lower}"
    )


def _transfer(share: float, _mean: Mapping[str, float], config: PretrainConfig) -> str:
    on_workers = config.augment_on == "workers"
    other = "pretrain.augment_on=device sends each sample once" if on_workers else "lower augment.size"
    return f"{share:.0%} of a step moves batches to the model and makes floats of them: {other}"


def _augment(share: float, _mean: Mapping[str, float], _config: PretrainConfig) -> str:
    return (
        f"{share:.0%} of a step makes views where the model is, which waits for them: set pretrain.augment_on=workers "
        "and give the feed CPUs (pretrain.feed_workers)"
    )


def _communication(share: float, _mean: Mapping[str, float], config: PretrainConfig) -> str:
    return (
        f"{config.num_workers} workers spend {share:.0%} of a step on exchanging and waiting for the slowest: use "
        "fewer with more threads (pretrain.cpus_per_worker), a larger pretrain.batch_size, or pretrain.placement=PACK"
    )


def _health(share: float, _mean: Mapping[str, float], config: PretrainConfig) -> str:
    return f"{share:.0%} of the time goes to health checks: lower pretrain.health_checks (now {config.health_checks})"


def _checkpoint(share: float, _mean: Mapping[str, float], config: PretrainConfig) -> str:
    every = config.checkpoint_every_steps
    return f"{share:.0%} of the time goes to checkpoints: raise pretrain.checkpoint_every_steps (now {every})"


def _compute(share: float, _mean: Mapping[str, float], config: PretrainConfig) -> str:
    first = "pretrain.precision=bf16 may, where the device computes in it; else " if config.precision == "fp32" else ""
    return (
        f"the model itself is what takes the time ({share:.0%} of a step): {first}only more workers or a faster "
        "device help"
    )


_SAID = {
    FEED: _feed,
    TRANSFER: _transfer,
    AUGMENT: _augment,
    COMMUNICATION: _communication,
    HEALTH: _health,
    CHECKPOINT: _checkpoint,
    COMPUTE: _compute,
}


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value >= 0.1 else f"{1000 * value:.2g} ms"
