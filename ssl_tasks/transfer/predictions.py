"""What is kept of every labelled test row, by task: one schema each."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ssl_tasks.schema import GROUP_ID, LABEL, LABELS, NUMBER, ROW
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.fits import Fit
from ssl_tasks.transfer.located import intersection_over_union
from ssl_tasks.transfer.multi_label import THRESHOLD
from ssl_tasks.transfer.retrieved import METRICS
from ssl_tasks.transfer.tables import PER_CLASS, PREDICTIONS
from ssl_tasks.transfer.targets import (
    CLASSIFICATION,
    LOCALIZATION,
    MULTI_LABEL,
    REGRESSION,
    RETRIEVAL,
    SEGMENTATION,
)

_NAMES = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float64())
_COUNTS = ("right_pixels", "true_pixels", "predicted_pixels")
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
    SEGMENTATION: [
        *(pa.field(name, _NUMBERS, nullable=False) for name in _COUNTS),
        pa.field("predicted", pa.binary()),
    ],
    LOCALIZATION: [
        pa.field("box", _NUMBERS, nullable=False),
        pa.field("predicted", _NUMBERS, nullable=False),
        pa.field("iou", pa.float64(), nullable=False),
    ],
}
"""Numbers of pixels are in the order of the classes; `predicted` is a mask as PNG, of the first rows only. A box is
x, y, width and height as shares of the stored side. `probabilities` are in the order of the classes' names,
`mean_average_precision` is one row's average precision."""


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
    truth = data.labels[data.test if data.task != SEGMENTATION else data.test[:0]]  # counts stand for masks
    if data.task == REGRESSION:
        return {NUMBER: pa.array(truth), "predicted": pa.array(fit.predicted)}
    if data.task == MULTI_LABEL:
        probabilities = pa.array(list(fit.predicted), pa.list_(pa.float64()))
        said = _names(fit.predicted > THRESHOLD, data.classes)
        return {LABELS: _names(truth == 1, data.classes), "predicted": said, "probabilities": probabilities}
    if data.task == SEGMENTATION:
        counted = np.split(fit.predicted, len(_COUNTS), axis=1)
        masks = [_png(mask) for mask in fit.examples] if fit.examples is not None else []
        return {
            **{name: pa.array(list(part), _NUMBERS) for name, part in zip(_COUNTS, counted, strict=True)},
            "predicted": pa.array(masks + [None] * (len(fit.predicted) - len(masks)), pa.binary()),
        }
    if data.task == LOCALIZATION:
        boxes = {"box": truth, "predicted": fit.predicted}
        lists = {name: pa.array(list(values), _NUMBERS) for name, values in boxes.items()}
        return {**lists, "iou": pa.array(intersection_over_union(fit.predicted, truth))}
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


def _png(mask: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return stream.getvalue()
