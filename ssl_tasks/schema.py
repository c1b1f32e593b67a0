"""Names of files, columns and splits that stages agree on, and the Arrow schemas of the tables.

Every table is keyed by `row`, the sample's number in the ingest artifact. Where a table holds the kept rows
only (`assignment`, `splits`, the payload, the embeddings), they stand in ascending order of `row`; a sample's
place there is its `position`, the same in all of them.
"""

from __future__ import annotations

import pyarrow as pa

ROW = "row"
SAMPLE_ID = "sample_id"
CONTENT_ID = "content_id"
CONTENT_KEY = "content_key"
"""64 bits of a hash of the decoded content: equal for the same pixels in another file format."""
SOURCE = "source"
GROUP_ID = "group_id"
DOMAIN = "domain"
SPLIT = "split"
LABEL = "label"
LABELS = "labels"
NUMBER = "number"
MASK = "mask"
BOXES = "boxes"
PAYLOAD = "payload"
LABEL_KEY = "label_key"
EMBEDDING = "embedding"
TEXT = "text"
TOKENS = "tokens"
"""Of the captions of images: as they came, and as ids beside the payload."""

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)
SPLIT_NAMES = {
    TRAIN: TRAIN,
    "training": TRAIN,
    "unlabeled": TRAIN,
    "unlabelled": TRAIN,
    "unsupervised": TRAIN,
    VAL: VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    TEST: TEST,
    "testing": TEST,
}
"""What the world calls its splits, in small letters; a part without labels is for training."""

ROWS_FILE = "rows.parquet"
GROUPS_FILE = "groups.parquet"
QUARANTINE_FILE = "quarantine.parquet"
ASSIGNMENT_FILE = "assignment.parquet"
SPLITS_FILE = "splits.parquet"
STATS_FILE = "stats.json"
TOKENIZER_FILE = "tokenizer.json"
VIEWS_FILE = "views.json"
METRICS_FILE = "metrics.parquet"
HEALTH_FILE = "health.parquet"
COMPARISONS_FILE = "comparisons.parquet"
PREDICTIONS_FILE = "predictions.parquet"
MEASURES_FILE = "measures.parquet"
OUTLIERS_FILE = "outliers.parquet"
DUPLICATES_FILE = "duplicates.parquet"
CONTAMINATION_FILE = "contamination.parquet"
PRETRAINED_FILE = "embeddings/pretrained.parquet"
RANDOM_INIT_FILE = "embeddings/random_init.parquet"
PREVIEW_FILE = "preview.png"

BOX = pa.struct([("x", pa.float32()), ("y", pa.float32()), ("w", pa.float32()), ("h", pa.float32())])

ROWS = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(SAMPLE_ID, pa.string(), nullable=False),
        pa.field(CONTENT_ID, pa.string(), nullable=False),
        pa.field(SOURCE, pa.string(), nullable=False),
        pa.field(GROUP_ID, pa.string()),
        pa.field(DOMAIN, pa.string()),
        pa.field(SPLIT, pa.string()),
        pa.field(LABEL, pa.string()),
        pa.field(LABELS, pa.list_(pa.string())),
        pa.field(NUMBER, pa.float64()),
        pa.field(TEXT, pa.string()),
        pa.field(MASK, pa.large_binary()),
        pa.field(BOXES, pa.list_(BOX)),
    ]
)
"""Identity, groups, domain, given split and typed targets of every sample; any target may be null."""

GROUPS = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(GROUP_ID, pa.string(), nullable=False),
        pa.field(CONTENT_KEY, pa.uint64(), nullable=False),
    ]
)

QUARANTINE = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(SAMPLE_ID, pa.string(), nullable=False),
        pa.field(SOURCE, pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("thumbnail", pa.binary()),
    ]
)
"""Severity is `rejected` (the row is used nowhere after this stage) or `flagged` (it is used, and worth a look).

The thumbnail is a small JPEG, null where there is nothing to see.
"""
REJECTED, FLAGGED = "rejected", "flagged"

DUPLICATES = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field("other", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)
"""Pairs of kept rows: `equal` ones (a row and the first of the rows like it), and `near` ones."""

CONTAMINATION = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(SOURCE, pa.string(), nullable=False),
        pa.field("encoder", pa.string(), nullable=False),
        pa.field("other", pa.int64(), nullable=False),
        pa.field("other_source", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
    ]
)
"""Test rows that an encoder was pretrained on (`equal` or `near`), and the most alike row of its pretraining data:
`encoder` is the fingerprint of what was pretrained, `other` the row's number in that data's ingest artifact."""

OUTLIERS = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
    ]
)
"""For each kept row, how many (robust) deviations its most unusual measure lies from the median, and which it is."""

ASSIGNMENT = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(GROUP_ID, pa.string(), nullable=False),
        pa.field(SPLIT, pa.string(), nullable=False),
    ]
)

SPLIT_ROWS = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(SAMPLE_ID, pa.string(), nullable=False),
        pa.field(GROUP_ID, pa.string(), nullable=False),
        pa.field(DOMAIN, pa.string()),
        pa.field(SPLIT, pa.string(), nullable=False),
        pa.field(LABEL, pa.string()),
        pa.field(LABEL_KEY, pa.int64(), nullable=False),
    ]
)
"""`label_key` is random per row: a label budget of any seed is a prefix of an order that is drawn from it."""

TRANSFER = pa.schema(
    [
        pa.field("strategy", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("label_fraction", pa.float64(), nullable=False),
        pa.field("num_labels", pa.int64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("labels_per_class", pa.int64(), nullable=False),
    ]
)
"""`method` is the pretext method's name, `random_init` (same backbone, untrained), `raw_input` (no backbone),
`from_scratch` or `majority`; `labels_per_class` is 0 where the label budget is a fraction."""


def align(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns of `schema`: what is missing becomes null, what is more is refused."""
    unknown = set(table.column_names) - set(schema.names)
    assert not unknown, f"columns outside the schema: {sorted(unknown)}"
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
