"""Normalize: turn raw content into payload shards, once, and fit statistics on train rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import ASSIGNMENT_FILE, PAYLOAD, ROW, SPLIT, STATS_FILE, TRAIN
from ssl_tasks.shards import ShardWriter, iterate, read_shard, tensor_array
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.ingest import parts
from ssl_tasks.store import Output


class NormalizeConfig(Config):
    """The stored form of a sample. Tables need no settings."""

    size: int = Field(32, ge=4, le=1024)
    """Images: side in pixels of what is stored."""
    channels: Literal[1, 3] = 3
    """Images: 1 (grey) or 3 (RGB)."""
    modality: str = "image"


def run(config: NormalizeConfig, out: Output, ingested: Artifact, assigned: Artifact) -> Artifact:
    """Write `payload/*.arrow` (rows of the assignment, in its order) and `stats.json`."""
    modality = modalities.modality(config.modality)
    table = assigned.table(ASSIGNMENT_FILE)
    rows = table[ROW].to_numpy()
    train = rows[np.array([name == TRAIN for name in table[SPLIT].to_pylist()], bool)]
    if not len(train):
        raise RequestError("split.fractions: no row is left for train")
    vocabulary = modality.learn(_raw(ingested, train), config)
    writer = ShardWriter(out, "payload")
    for raw in _raw(ingested, rows):
        payload = modality.transform(raw, vocabulary, config)
        writer.write(pa.table({ROW: raw[ROW], PAYLOAD: tensor_array(payload)}))
    writer.flush()
    stats = modality.fit(_train_payload(out, train), vocabulary, config)
    out.json(STATS_FILE, stats)
    measured: dict[str, Any] = {"train_rows": len(train), "shape": stats["shape"], "shards": writer.count}
    return out.artifact(rows=len(rows), measured=measured)


def _raw(ingested: Artifact, rows: np.ndarray) -> Iterator[pa.Table]:
    """Raw shards, reduced to `rows` (ascending)."""
    for shard in iterate(ingested, "raw"):
        wanted = np.isin(shard[ROW].to_numpy(), rows)
        if wanted.any():
            yield shard if wanted.all() else shard.filter(pa.array(wanted))


def _train_payload(out: Output, train: np.ndarray) -> Iterator[np.ndarray]:
    for name in sorted(name for name in out.entries if name.startswith("payload/")):
        shard = read_shard(out.path(name))
        wanted = np.isin(shard[ROW].to_numpy(), train)
        yield shard[PAYLOAD].chunk(0).to_numpy_ndarray()[wanted]


STAGE = Stage("normalize", NormalizeConfig, ("ingest", "assign"), run, parts=parts)
