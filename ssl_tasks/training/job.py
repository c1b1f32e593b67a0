"""One pretraining: what every process of it needs to know, and what it can work out from that alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.modalities.captions import CAPTIONS, TextShape
from ssl_tasks.policy import Views
from ssl_tasks.schema import LABEL, SPLITS_FILE, STATS_FILE, TOKENS, TRAIN, VAL, VIEWS_FILE
from ssl_tasks.shards import Shards
from ssl_tasks.splitting.read import positions_of
from ssl_tasks.store import Output, Store
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.plan import Plan

DONE_FILE = "done.json"
FAILURE_FILE = "failure.json"
"""Beside the checkpoints: what a training leaves for the process that waits for it."""
STARTS = "starts"
"""Key of the progress that stands there while no worker trains, yet or any more."""


@dataclass(frozen=True)
class Job:
    """Small and picklable; the data is opened where it is used."""

    config: PretrainConfig
    out: Output
    normalized: Artifact
    split: Artifact
    augmented: Artifact
    view_names: tuple[str, ...]
    """Policies of the method's views, so that the feed can be laid out before torch is imported."""
    initial: Artifact | None = None
    """Encoder to start from."""
    until: int | None = None
    """Step to pause at, with a checkpoint, before the schedule's end: one of `health_steps`. None: train to the end."""
    reads_text: bool = False
    """Whether the method needs captions."""

    @property
    def partial(self) -> str:
        """Folder of the store for checkpoints and progress."""
        return f"partial/{self.out.fingerprint}"

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps."""
        steps = self.config.epochs * self.plan.steps_per_epoch
        return min(steps, self.config.max_steps or steps)

    @property
    def last_step(self) -> int:
        """Number of optimizer steps to have taken when training ends or pauses."""
        return self.total_steps if self.until is None else min(self.until, self.total_steps)

    @property
    def health_steps(self) -> list[int]:
        """After how many steps the features are looked at, ascending; the last is `total_steps`."""
        total, checks = self.total_steps, self.config.health_checks
        return sorted({round((k + 1) * total / checks) for k in range(checks)})

    @property
    def stats(self) -> dict[str, Any]:
        """The fitted normalization."""
        stats: dict[str, Any] = self.normalized.json(STATS_FILE)
        return stats

    @property
    def modality(self) -> Any:
        """The modality's operations."""
        return modalities.modality(self.config.modality)

    @property
    def shards(self) -> Shards:
        """The payload, mapped once per process."""
        return _shards(self.normalized)

    @property
    def tokens(self) -> Shards:
        """The captions' token ids, mapped once per process."""
        return _tokens(self.normalized)

    @property
    def text_shape(self) -> TextShape | None:
        """Of the captions' token ids; None where the data was normalized without captions."""
        found = self.normalized.measured.get(CAPTIONS)
        return TextShape(found["vocabulary"], found["length"]) if found else None

    @property
    def plan(self) -> Plan:
        """Which rows each step sees.

        Raises:
            RequestError: the batch is larger than the train rows.
        """
        return _plan(self.normalized, self.split, self.config.batch_size, self.config.seed, self.config.shuffle_shards)

    @property
    def views(self) -> Views:
        """The policies that views are drawn from."""
        return _views(self.augmented)

    def probe_rows(self, limit: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions of at most `limit` val rows (train rows where there is no val) and their class numbers.

        Labels of train and test rows are never looked at; where val rows have none, the second is None.
        """
        positions = positions_of(self.split, VAL)
        on_val = len(positions) > 1
        if not on_val:
            positions = positions_of(self.split, TRAIN)
        random = np.random.Generator(np.random.Philox(key=[self.config.seed, 1 << 32]))
        positions = np.sort(random.permutation(positions)[:limit])
        labels = self.split.table(SPLITS_FILE, [LABEL])[LABEL].take(positions).to_pylist()
        if not on_val or any(label is None for label in labels) or len(set(labels)) < 2:
            return positions, None
        classes = {label: number for number, label in enumerate(sorted(set(labels)))}
        return positions, np.array([classes[label] for label in labels])


@functools.lru_cache(maxsize=4)
def _shards(normalized: Artifact) -> Shards:
    return Shards.open(normalized)


@functools.lru_cache(maxsize=4)
def _tokens(normalized: Artifact) -> Shards:
    return Shards.open(normalized, TOKENS)


@functools.lru_cache(maxsize=4)
def _views(augmented: Artifact) -> Views:
    return Views.model_validate(augmented.json(VIEWS_FILE))


@functools.lru_cache(maxsize=4)
def _plan(normalized: Artifact, split: Artifact, batch_size: int, seed: int, shuffle_shards: int) -> Plan:
    train = positions_of(split, TRAIN)
    if batch_size > len(train):
        raise RequestError(f"pretrain.batch_size: {batch_size} is larger than the {len(train)} train rows")
    return Plan(train, _shards(normalized).starts, batch_size, seed, shuffle_shards)


def checkpoint_steps(store: Store, folder: str) -> list[int]:
    """Steps whose checkpoints have a marker, ascending. Here and not in `checkpoints`, which imports torch."""
    names = store.list(folder)
    return sorted(int(name[5:13]) for name in names if name.startswith("step-") and name.endswith(".json"))


def read_own(job: Job, name: str) -> Any:
    """What the workers of this attempt have left, or None."""
    found = job.out.store.read_json(f"{job.partial}/{name}")
    return found if found and found.get("attempt") == job.out.attempt else None
