"""Arrow schemas of what the transfer stage writes beside `schema.TRANSFER`."""

from __future__ import annotations

import pyarrow as pa

from ssl_tasks.schema import GROUP_ID, LABEL, ROW

RANDOM_INIT = "random_init"
FROM_SCRATCH = "from_scratch"
RAW_INPUT = "raw_input"
MAJORITY = "majority"
BASELINES = (RANDOM_INIT, FROM_SCRATCH, RAW_INPUT, MAJORITY)
PREFIXES = {RANDOM_INIT: "", FROM_SCRATCH: "scratch_", RAW_INPUT: "raw_", MAJORITY: "majority_"}
"""Of a baseline's comparison in the summary."""
TRAIN_FACTS = ("train_accuracy", "train_r2", "train_pixel_accuracy", "train_iou_over_half")
"""How well training from scratch fits its own labelled rows, by the task's name for it; 1 is entirely."""
PER_CLASS = pa.field("labels_per_class", pa.int64(), nullable=False)
"""0 where the label budget is a fraction; `label_fraction` is the share of all labels either way."""

COMPARISONS = pa.schema(
    [
        pa.field("strategy", pa.string(), nullable=False),
        pa.field("label_fraction", pa.float64(), nullable=False),
        pa.field("baseline", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("difference", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("num_seeds", pa.int64(), nullable=False),
        pa.field("num_test_groups", pa.int64(), nullable=False),
        PER_CLASS,
        pa.field("p_value", pa.float64(), nullable=False),
        pa.field("p_holm", pa.float64(), nullable=False),
    ]
)
"""`difference` is the pretrained encoder minus the baseline, mean over seeds; low and high its 95% interval.

`p_value` is of the paired bootstrap, and `p_holm` the same corrected for all comparisons by that metric.
"""

PREDICTIONS = pa.schema(
    [
        pa.field("strategy", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("label_fraction", pa.float64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(GROUP_ID, pa.string(), nullable=False),
        pa.field(LABEL, pa.string(), nullable=False),
        pa.field("predicted", pa.string(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("likelihood", pa.float64(), nullable=False),
        PER_CLASS,
    ]
)
"""Of every labelled test row: `confidence` is the probability of `predicted`, `likelihood` that of `label`."""

CHOICES = pa.schema(
    [
        pa.field("strategy", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("label_fraction", pa.float64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        PER_CLASS,
    ]
)
"""What each fit chose on val (C, k, learning rate), what it reached there, and what else is worth knowing of it."""

CHOICES_FILE = "choices.parquet"

DOMAINS = pa.schema(
    [
        pa.field("target", pa.string(), nullable=False),
        pa.field("strategy", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("label_fraction", pa.float64(), nullable=False),
        PER_CLASS,
        pa.field("num_labels", pa.int64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)
"""With `transfer.domains`, of each fit for each target domain: every metric of the target's test rows, the main one of
the sources' (`source_` before it), and the gap between the domains in the encoder's features (`mmd_before`,
`a_distance_before`) and in those of the fitted network (`_after`), where it has its own."""
DOMAINS_FILE = "domains.parquet"

FAILURES = pa.schema(
    [
        pa.field("strategy", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("label_fraction", pa.float64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        PER_CLASS,
    ]
)
"""Fits that failed. What the other tables say of their strategy and label budget rests on the other seeds."""

FAILURES_FILE = "failures.parquet"
RULES_FILE = "rules.parquet"
"""What fits have to say in words, a row for each; written where a strategy has something to say."""
