"""What is kept of every labelled test row, by task: one schema each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.schema import GROUP_ID, LABEL, LABELS, NUMBER, ROW
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.fits import Fit
from ssl_tasks.transfer.multi_label import THRESHOLD
from ssl_tasks.transfer.retrieved import METRICS
from ssl_tasks.transfer.tables import PER_CLASS, PREDICTIONS
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL, REGRESSION, RETRIEVAL

_NAMES = pa.list_(pa.string())
_OF_TASK = {
    REGRESSION: [
        pa.field(NUMBER, pa.float64(), nullable=False),
        pa.field("predicted", pa.float64(), nullable=False),
    ],
    MULTI_LABEL: [
        pa.field(LABELS, _NAMES, nullable=False),
        pa.field("predicted", _NAMES, nullable=False),
        pa.field("probabilities", pa.list_(pa.float64()), nullable=False),
    ],
    RETRIEVAL: [
        pa.field(LABEL, pa.string(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in METRICS),
    ],
}
"""`probabilities` are in the order of the classes' names, `mean_average_precision` is one row's average precision."""


def schema_of(task: str) -> pa.Schema:
    """That of the predictions' file; for `classification` it is `tables.PREDICTIONS`."""
    if task == CLASSIFICATION:
        return PREDICTIONS
    shared = [PREDICTIONS.field(name) for name in ("strategy", "method", "label_fraction", "seed", ROW, GROUP_ID)]
    return pa.schema([*shared, *_OF_TASK[task], PER_CLASS])


def columns(fit: Fit, data: Labelled, test: pa.Table) -> dict[str, Any]:
    """What a fit said of the test rows, and what is true of them.

    Args:
        test: the split's rows, of those alone.
    """
    truth = data.labels[data.test]
    if data.task == REGRESSION:
        return {NUMBER: pa.array(truth), "predicted": pa.array(fit.predicted)}
    if data.task == MULTI_LABEL:
        probabilities = pa.array(list(fit.predicted), pa.list_(pa.float64()))
        said = _names(fit.predicted > THRESHOLD, data.classes)
        return {LABELS: _names(truth == 1, data.classes), "predicted": said, "probabilities": probabilities}
    if data.task == RETRIEVAL:
        return {LABEL: test[LABEL], **dict(zip(METRICS, map(pa.array, fit.predicted.T), strict=True))}
    return {
        LABEL: test[LABEL],
        "predicted": pa.array(data.classes, pa.string()).take(pa.array(fit.predicted)),
        "confidence": pa.array(fit.confidence),
        "likelihood": pa.array(fit.likelihood),
    }


def _names(table_TK: Any, classes: list[str]) -> pa.Array:
    return pa.array([[classes[k] for k in np.flatnonzero(row)] for row in table_TK], _NAMES)
