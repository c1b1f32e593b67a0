"""Which train rows the encoder holds to be most like some of the test rows: nearest by cosine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.embedded import Float, parts, take
from ssl_tasks.report.pictures import Pictures
from ssl_tasks.report.predictions import Int
from ssl_tasks.schema import LABEL, LABEL_KEY, PRETRAINED_FILE, SAMPLE_ID, SPLIT, SPLITS_FILE, TEST, TRAIN

QUERIES, NEAREST = 8, 5
PICTURE_SIDE = 64


def chosen(splits: pa.Table) -> Int:
    """(Q,) positions of test rows in the random order of their keys, one of each class before a second of any."""
    test = np.flatnonzero(pc.equal(splits[SPLIT], TEST).to_numpy())
    test = test[np.argsort(splits[LABEL_KEY].to_numpy()[test], kind="stable")]
    seen: dict[str | None, int] = {}
    turns = []
    for label in splits[LABEL].take(pa.array(test)).to_pylist():
        seen[label] = seen.get(label, 0) + 1
        turns.append(seen[label])
    return test[np.argsort(turns, kind="stable")][:QUERIES]


def nearest(queries: Float, train: Int, embeddings: Iterable[tuple[int, Any]], number: int) -> tuple[Int, Float]:
    """Positions (Q, K) of the nearest train rows, the nearest first, and their cosines (Q, K); K <= `number`.

    Args:
        queries: (Q, D).
        train: ascending positions.
        embeddings: as `embedded.parts` gives them; at any time one part and the best so far are held.
    """
    wanted = _of_length_1(queries)
    best, cosines = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
    for first, values in embeddings:
        begin, end = np.searchsorted(train, [first, first + len(values)])
        here = train[begin:end]
        alike = wanted @ _of_length_1(values[here - first].astype(np.float64)).T
        best = np.hstack([best, np.broadcast_to(here, alike.shape)])
        cosines = np.hstack([cosines, alike])
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :number]
        best, cosines = np.take_along_axis(best, order, 1), np.take_along_axis(cosines, order, 1)
    return best, cosines


def _of_length_1(values: Float) -> Float:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Float = values / np.where(lengths > 0, lengths, 1)
    return unit


def section(splits: pa.Table, split: Artifact, embed: Artifact, pictures: Pictures | None) -> dict[str, Any]:
    """A strip for each query, for the template; empty where there are no test rows.

    Args:
        splits: split, label and label key of all rows.
        split: what has the rest of them.
    """
    queries = chosen(splits)
    if not len(queries):
        return {}
    train = np.flatnonzero(pc.equal(splits[SPLIT], TRAIN).to_numpy())
    wanted = take(embed, PRETRAINED_FILE, queries)
    best, cosines = nearest(wanted, train, parts(embed, PRETRAINED_FILE), NEAREST)
    positions = np.unique(np.concatenate([queries, best.ravel()]))
    known = _take(split, positions, [SAMPLE_ID, LABEL]).to_pylist()
    images: list[str] = pictures.take(positions, PICTURE_SIDE) if pictures else [""] * len(positions)
    cards = {
        int(position): {"id": row[SAMPLE_ID], "label": row[LABEL], "image": image}
        for position, row, image in zip(positions, known, images, strict=True)
    }
    strips: list[dict[str, Any]] = [
        {
            "query": cards[query],
            "found": [_judged(cards[query], cards[row], cosine) for row, cosine in zip(rows, alike, strict=True)],
        }
        for query, rows, alike in zip(queries.tolist(), best.tolist(), cosines.tolist(), strict=True)
    ]
    judged = [card["wrong"] for strip in strips for card in strip["found"] if card["wrong"] is not None]
    return {"strips": strips, "right": judged.count(False), "judged": len(judged), "pictures": pictures is not None}


def _take(split: Artifact, positions: Int, columns: list[str]) -> pa.Table:
    """A few rows (ascending) of the table of all, whose ids alone take more than the report holds of a row."""
    parts, first = [], 0
    for batch in split.batches(SPLITS_FILE, columns):
        begin, end = np.searchsorted(positions, [first, first + batch.num_rows])
        parts.append(batch.take(pa.array(positions[begin:end] - first)))
        first += batch.num_rows
    return pa.concat_tables(parts)


def _judged(query: dict[str, Any], found: dict[str, Any], cosine: float) -> dict[str, Any]:
    """`wrong` is None where one of the two has no label."""
    known = query["label"] is not None and found["label"] is not None
    return {**found, "cosine": f"{cosine:.2f}", "wrong": query["label"] != found["label"] if known else None}
