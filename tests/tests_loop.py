"""The training loop without Ray: a job on a small built-in data set, trained in this process or in this rank."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import distributed

from ssl_tasks import methods
from ssl_tasks.store import Output, Store
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import Job
from ssl_tasks.training.loop import Trainer
from ssl_tasks.training.setup import Ranks
from ssl_tasks.training.timing import READ, VIEWS, tell_feed
from ssl_tasks.training.views import make_views

COMMON = {"batch_size": 32, "layout": "contiguous", "compile": "never", "health_checks": 2, "max_steps": 50}
STORE = "PRETEXTFLOW_TEST_ARTIFACTS"


@functools.cache
def artifacts(modality: str, size: int) -> tuple[Any, ...]:
    """The same data in every process: the built-in sets, small; made once where `STORE` names a place."""
    from tests_chain import run_chain

    store = Store.open(os.path.join(os.environ.get(STORE) or tempfile.mkdtemp(), "store"))
    cancer = {"path": "builtin:cancer", "modality": "tabular", "label_column": "diagnosis"}
    recipe: dict[str, Any] = {"normalize": {"size": size, "channels": 1}, "clean": {"near_duplicates": None}}
    made = run_chain(store, recipe | ({"ingest": cancer} if modality == "tabular" else {}))
    return made["normalize"], made["split"], made["augment"]


def make_job(size: int = 8, place: tuple[str, str] | None = None, **options: Any) -> Job:
    """A job on digits of `size` pixels, or on a table.

    Args:
        place: store and fingerprint of another process's job, to go on from its checkpoint; by default of its own.
    """
    config = PretrainConfig.model_validate({**COMMON, **options})
    normalized, split, augmented = artifacts(config.modality, size)
    uri, name = place or (normalized.uri, f"{os.getpid()}-{np.random.default_rng().integers(1 << 62)}")
    out = Output(uri, name, "a", "pretrain")
    return Job(
        config, out, normalized, split, augmented, methods.view_policies(config.method.options(), config.modality)
    )


def train(job: Job, stop: int | None = None, slow: float = 0.0, told: list[dict[str, Any]] | None = None) -> Trainer:
    """Train in this process; `stop` breaks off before that step, as a kill would.

    Args:
        slow: seconds that the feed lets each step wait.
        told: gets what the loop reports.
    """
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    rank = distributed.get_rank() if world > 1 else 0

    def feed(first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
        for step in range(first, last):
            if step == stop:
                raise KeyboardInterrupt
            before = READ.seconds, VIEWS.seconds
            made = tell_feed(before, make_views(job, step, rank, world))
            time.sleep(slow)
            yield made

    torch.set_num_threads(1)
    trainer = Trainer(job, Ranks(rank, world, torch.device("cpu")))
    try:
        trainer.run(feed, ([] if told is None else told).append)
    except KeyboardInterrupt:
        trainer.checkpoints.wait()
    return trainer
