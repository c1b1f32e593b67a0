"""Normalize: turn raw content into payload shards, once, and fit statistics on train rows alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from ssl_tasks import modalities
from ssl_tasks.adoption import agreement
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config
from ssl_tasks.errors import RequestError
from ssl_tasks.modalities.captions import CAPTIONS, TextShape, TokenizerConfig, fit
from ssl_tasks.norms import evenly
from ssl_tasks.schema import (
    ASSIGNMENT_FILE,
    MEASURES_FILE,
    PAYLOAD,
    ROW,
    SPLIT,
    STATS_FILE,
    TEXT,
    TOKENIZER_FILE,
    TOKENS,
    TRAIN,
)
from ssl_tasks.shards import Shards, ShardWriter, in_parts, iterate, member, read_shard, select, tensor_array
from ssl_tasks.splitting.groups import side_by_side
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.ingest import parts
from ssl_tasks.store import Output

if TYPE_CHECKING:
    from ssl_tasks.modalities.base import Modality, Vocabulary  # imports torch
    from ssl_tasks.modalities.image.stored_targets import StoredTargets

FIRST_ROWS, PART_ROWS, PART_BYTES = 16, 512, 32 << 20
Fit = Literal["crop", "pad", "stretch"]
Percentile = Annotated[float, Field(ge=0, le=100)]


class LikeConfig(Config):
    """The section `normalize` where an encoder is there already and brings its own sizes and statistics."""

    fit: Fit = "crop"
    """Images: what becomes of one that is no square: its middle, all of it in a black frame, or another aspect."""
    masks: bool = False
    """Images: their masks of classes are stored too, in the same frame, each pixel the nearest one's class."""
    boxes: bool = False
    """Images: the boxes around their objects are stored too, in the same frame, in stored pixels."""
    modality: str = "image"


class NormalizeConfig(LikeConfig):
    """The stored form of a sample. Tables need no settings."""

    size: int = Field(32, ge=4, le=4096)
    """Images: side in pixels of what is stored."""
    channels: int | Literal["auto"] = Field("auto", union_mode="left_to_right")
    """Images: 1 (grey), 3 (RGB), the number of bands of arrays, or auto: as the train rows have them."""
    clip_percentiles: tuple[Percentile, Percentile] | Literal["auto"] | None = "auto"
    """Images: stored values that stand for black and white. auto is the range of uint8, and (0.1, 99.9) of the train
    rows for 16 bits and floats; null takes the whole range."""
    input: Literal["standard", "unit", "symmetric"] = "standard"
    """Images: what the model sees, mean 0 and deviation 1, or 0..1, or -1..1."""
    captions: bool = False
    """Images: their captions are stored too, as tokens."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Images with captions."""

    @model_validator(mode="after")
    def _sensible(self) -> NormalizeConfig:
        if isinstance(self.channels, int) and self.channels < 1:
            raise ValueError(f"channels is at least 1, or auto (got {self.channels})")
        if isinstance(self.clip_percentiles, tuple) and self.clip_percentiles[0] >= self.clip_percentiles[1]:
            raise ValueError(f"clip_percentiles is [lower, upper] (got {list(self.clip_percentiles)})")
        if self.tokenizer != TokenizerConfig() and not self.captions:
            raise ValueError("tokenizer: means nothing without captions; set ingest.captions=true, or leave it out")
        return self

    def largest_text(self) -> TextShape | None:
        """Of the tokens, as far as it can be told without the captions; None where there are none."""
        return TextShape(self.tokenizer.vocabulary_size, self.tokenizer.length) if self.captions else None


def run(config: NormalizeConfig, out: Output, ingested: Artifact, cleaned: Artifact, assigned: Artifact) -> Artifact:
    """Write `payload/*.arrow` (rows of the assignment, in its order) and `stats.json`; with captions, `tokenizer.json`.

    Raises:
        RequestError: no row is left for train, rows do not go together, or one has no caption.
    """
    modality = modalities.modality(config.modality)
    rows, is_train = _assignment(assigned)
    train = rows[is_train]
    assert len(train), "assign leaves rows for train, or raises"
    vocabulary = modality.learn(select(ingested, "raw", train), _measures(cleaned, train), config)
    texts = _Texts(config.tokenizer, ingested, assigned) if config.captions else None
    targets = _targets(config, vocabulary, ingested, cleaned, rows)
    shards = _store(out, ingested, rows, modality, vocabulary, config, texts, targets)
    stats = modality.fit(_train_payload(out, train), vocabulary, config)
    out.json(STATS_FILE, stats)
    measured: dict[str, Any] = {"train_rows": len(train), "shape": stats["shape"], "shards": shards}
    if texts is not None:
        with out.file(TOKENIZER_FILE) as path:
            path.write_text(texts.tokenizer.json(), encoding="utf-8")
        measured[CAPTIONS] = texts.measured()
    if targets is not None:
        measured |= targets.measured()
    return out.artifact(rows=len(rows), measured=measured)


def run_like(
    config: LikeConfig, out: Output, ingested: Artifact, cleaned: Artifact, assigned: Artifact, adopted: Artifact
) -> Artifact:
    """Write `payload/*.arrow` and `stats.json` as `run` does, normalized as the encoder was trained: nothing is fitted.

    Raises:
        RequestError: the data cannot be stored as the encoder's was.
    """
    modality = modalities.modality(config.modality)
    stats = adopted.json("encoder.json")["stats"]
    rows, is_train = _assignment(assigned)
    vocabulary = modality.recall(stats, iterate(ingested, "raw"), _measures(cleaned, rows))
    targets = _targets(config, vocabulary, ingested, cleaned, rows)
    shards = _store(out, ingested, rows, modality, vocabulary, config, None, targets)
    out.json(STATS_FILE, stats)
    measured: dict[str, Any] = {"train_rows": int(is_train.sum()), "shape": stats["shape"], "shards": shards}
    if targets is not None:
        measured |= targets.measured()
    stored = Shards.map([out.path(name) for name in sorted(out.entries) if name.startswith("payload/")], PAYLOAD)
    if unlike := agreement.warnings(stored.take(evenly(np.flatnonzero(is_train), agreement.ROWS)), modality, stats):
        measured["warnings"] = unlike
    return out.artifact(rows=len(rows), measured=measured)


def _store(
    out: Output,
    ingested: Artifact,
    rows: np.ndarray,
    modality: Modality,
    vocabulary: Vocabulary,
    config: LikeConfig,
    texts: _Texts | None,
    targets: StoredTargets | None,
) -> int:
    """Write `payload/*.arrow`; the number of shards."""
    writer = ShardWriter(out, "payload")
    for raw in select(ingested, "raw", rows):
        for payload, numbers, others in _transformed(modality, raw, vocabulary, config, targets):
            columns = {ROW: numbers, PAYLOAD: tensor_array(payload), **others}
            if texts is not None:
                columns[TOKENS] = texts.next_tokens(len(payload))
            writer.write(pa.table(columns))
            out.progress(int(np.searchsorted(rows, numbers[-1].as_py())) + 1, len(rows), "samples")
    writer.flush()
    return writer.count


def _targets(
    config: LikeConfig, vocabulary: Vocabulary, ingested: Artifact, cleaned: Artifact, rows: np.ndarray
) -> StoredTargets | None:
    if not (config.masks or config.boxes):
        return None
    from ssl_tasks.modalities.image.stored_targets import StoredTargets  # imports torch

    return StoredTargets(config, vocabulary, ingested, cleaned, rows)


class _Texts:
    """The captions of all rows of the assignment as tokens, in its order, by a tokenizer of train rows."""

    def __init__(self, config: TokenizerConfig, ingested: Artifact, assigned: Artifact) -> None:
        self.tokenizer = fit(lambda: _captions(ingested, assigned, train_only=True), config)
        self._left = _captions(ingested, assigned, train_only=False)
        self._num_cut = 0

    def next_tokens(self, count: int) -> pa.Array:
        """Of the next `count` rows."""
        captions = list(itertools.islice(self._left, count))
        assert len(captions) == count, "there is a caption for each row"
        tokens, num_cut = self.tokenizer.encode(captions)
        self._num_cut += num_cut
        return tensor_array(tokens)

    def measured(self) -> dict[str, int]:
        """Number of tokens, the length that captions are stored in, and how many were cut."""
        shape = self.tokenizer.shape
        return {"vocabulary": shape.vocabulary, "length": shape.length, "cut": self._num_cut}


def _captions(ingested: Artifact, assigned: Artifact, *, train_only: bool) -> Iterator[str]:
    for kept, found in side_by_side(ingested, assigned.batches(ASSIGNMENT_FILE, [ROW, SPLIT]), [TEXT]):
        column = found[TEXT]
        if column.null_count:
            raise RequestError(
                "normalize.captions: there are images without a caption, which clean.captions=true rejects; set "
                "ingest.captions=true in place of both"
            )
        yield from (column.filter(pc.equal(kept[SPLIT], TRAIN)) if train_only else column).to_pylist()


def _transformed(
    modality: Modality, raw: pa.Table, vocabulary: Vocabulary, config: LikeConfig, targets: StoredTargets | None
) -> Iterator[tuple[np.ndarray, pa.ChunkedArray, dict[str, pa.Array]]]:
    """Payloads, row numbers and columns of targets of one raw shard, in parts of bounded size: a small file can be a
    large picture."""
    first, count = 0, FIRST_ROWS
    while first < raw.num_rows:
        part = raw.slice(first, count)
        others: dict[str, pa.Array] = {}
        if targets is None:
            payload = modality.transform(part, vocabulary, config)
        else:
            payload, others = targets.transform(part)
        yield payload, part[ROW], others
        first += part.num_rows
        count = max(1, PART_BYTES * part.num_rows // max(1, payload.nbytes))


def _assignment(assigned: Artifact) -> tuple[np.ndarray, np.ndarray]:
    """(N,) rows, ascending, and whether each is a train row."""
    rows, is_train = np.empty(assigned.rows, np.int64), np.empty(assigned.rows, bool)
    first = 0
    for batch in assigned.batches(ASSIGNMENT_FILE, [ROW, SPLIT]):
        part = slice(first, first + batch.num_rows)
        rows[part] = batch[ROW].to_numpy()
        is_train[part] = pc.equal(batch[SPLIT], TRAIN).to_numpy()
        first += batch.num_rows
    return rows, is_train


def _measures(cleaned: Artifact, train: np.ndarray) -> Iterator[pa.Table] | None:
    """The measures of train rows."""
    if MEASURES_FILE not in cleaned.names():
        return None
    return (batch.filter(pa.array(member(batch[ROW].to_numpy(), train))) for batch in cleaned.batches(MEASURES_FILE))


def _train_payload(out: Output, train: np.ndarray) -> Iterator[np.ndarray]:
    for name in sorted(name for name in out.entries if name.startswith("payload/")):
        for part in in_parts(read_shard(out.path(name)), PART_ROWS):
            wanted = member(part[ROW].chunk(0).to_numpy(), train)
            yield part[PAYLOAD].chunk(0).to_numpy_ndarray()[wanted]


STAGE = Stage("normalize", NormalizeConfig, ("ingest", "clean", "assign"), run, version=3, parts=parts)
LIKE = replace(STAGE, config=LikeConfig, inputs=("ingest", "clean", "assign", "adopt"), run=run_like)
"""In the DAG of an existing encoder."""
