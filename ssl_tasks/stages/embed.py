"""embed: features of every kept row, by the pretrained encoder and by the same network before its first step.

    embed.table("embeddings/pretrained.parquet")

gives `row` and `embedding` in payload order, all splits. The untrained network's batch norms get the statistics of
train rows, as pretraining gives them to the encoder: what they alone are worth is no gain of the pretext task.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config, execution
from ssl_tasks.errors import StageError
from ssl_tasks.norms import sample, settle
from ssl_tasks.schema import (
    EMBEDDING,
    PRETRAINED_FILE,
    RANDOM_INIT_FILE,
    ROW,
    STATS_FILE,
    TRAIN,
)
from ssl_tasks.splitting.read import positions_of
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output

if TYPE_CHECKING:
    from ssl_tasks.encoder import Encoder
    from ssl_tasks.shards import Shards

ROW_GROUP_ROWS = 8192


class EmbedConfig(Config):
    """Section `embed`."""

    batch_size: int = Field(256, ge=1)
    """Rows of one forward pass. Hashed: on a CPU it decides the last bits of the features."""
    device: str = execution("auto")
    """`auto` is a GPU where there is one; or any name that torch knows."""


def run(config: EmbedConfig, out: Output, normalize: Artifact, split: Artifact, pretrain: Artifact) -> Artifact:
    """Embed all rows with both sets of weights.

    Raises:
        RequestError: the data was normalized otherwise than what the encoder was trained on.
        StageError: an embedding is not finite.
    """
    import torch

    from ssl_tasks.device import pick
    from ssl_tasks.encoder import check_stats, load_encoder, ready, reload
    from ssl_tasks.shards import Shards

    shards = Shards.open(normalize)
    device = pick(config.device, "embed.device")
    encoder = load_encoder(pretrain)
    check_stats(encoder, normalize.json(STATS_FILE))
    encoder = ready(encoder, device)
    num_features = _write(out, PRETRAINED_FILE, encoder, shards, config.batch_size)
    reload(encoder, pretrain, "initial")
    settle(
        encoder,
        lambda rows: torch.from_numpy(shards.take(rows)).to(device),
        sample(positions_of(split, TRAIN)),
        config.batch_size,
    )
    _write(out, RANDOM_INIT_FILE, encoder, shards, config.batch_size)
    return out.artifact(rows=len(shards), measured={"num_features": num_features})


def _write(out: Output, name: str, encoder: Encoder, shards: Shards, batch_size: int) -> int:
    """Stream batches into row groups, each written beside the network's next: memory holds two, whatever the rows."""
    rows = np.concatenate(shards.rows)
    with out.file(name) as path, ThreadPoolExecutor(1, "writer") as thread:
        writer: pq.ParquetWriter | None = None
        written: Future[None] | None = None
        for first in range(0, len(rows), ROW_GROUP_ROWS):
            group = np.arange(first, min(first + ROW_GROUP_ROWS, len(rows)))
            table = _table(rows[group], _features(encoder, shards, group, batch_size), name)
            if written:
                written.result()
            writer = writer or pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
            written = thread.submit(writer.write_table, table)
        assert writer is not None, "a payload has at least one row"
        assert written is not None
        written.result()
        writer.close()
    out.schemas[name] = table.schema.to_string(show_schema_metadata=False)
    return int(table.schema.field(EMBEDDING).type.list_size)


def _features(encoder: Encoder, shards: Shards, group: np.ndarray, batch_size: int) -> np.ndarray:
    """(R, num_features) float32 of the rows at the positions of a group (R,)."""
    import torch

    device = next(encoder.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(group), batch_size):
            payload = torch.from_numpy(shards.take(group[start : start + batch_size])).to(device)
            parts.append(encoder(payload).float().cpu().numpy())
    return np.concatenate(parts)


def _table(rows: np.ndarray, features: np.ndarray, name: str) -> pa.Table:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise StageError(f"embed: {name}: the embedding of row {rows[bad[0]]} is not finite ({len(bad)} such rows)")
    width = features.shape[1]
    values = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel(), pa.float32()), width)
    fields = [pa.field(ROW, pa.int64(), nullable=False), pa.field(EMBEDDING, values.type, nullable=False)]
    return pa.table([pa.array(rows, pa.int64()), values], schema=pa.schema(fields))


STAGE = Stage("embed", EmbedConfig, ("normalize", "split", "pretrain"), run, version=3)
OF_ADOPTED = replace(STAGE, inputs=("normalize", "split", "adopt"))
"""In the DAG of an existing encoder."""
