"""The masks and boxes of the images that normalize stores, found by row and brought to the same frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact, Cursor
from ssl_tasks.cleaning.targets import BATCH_ROWS, wanted
from ssl_tasks.modalities.image import spare
from ssl_tasks.modalities.image.placing import IGNORED
from ssl_tasks.modalities.image.targets import transform
from ssl_tasks.schema import BOX, BOXES, MASK, MEASURES_FILE, PAYLOAD, ROW, ROWS_FILE
from ssl_tasks.shards import member, tensor_array


class StoredTargets:
    """Walks beside the raw shards of the rows that are stored, in their order."""

    def __init__(
        self, config: Any, vocabulary: Mapping[str, Any], ingested: Artifact, cleaned: Artifact, rows: NDArray[np.int64]
    ) -> None:
        """Args: config: normalize's; rows: those that are stored, ascending."""
        self.config, self.vocabulary, self.names = config, vocabulary, wanted(config)
        self._given = Cursor(_only(ingested.batches(ROWS_FILE, [ROW, *self.names], rows=BATCH_ROWS), rows))
        self._sizes = Cursor(_only(cleaned.batches(MEASURES_FILE, [ROW, "height", "width"]), rows))
        self._with = dict.fromkeys(self.names, 0)
        self._pixels = np.zeros(IGNORED + 1, np.int64)

    def transform(self, raw: pa.Table) -> tuple[NDArray[Any], dict[str, pa.Array]]:
        """The payload of the next rows, and what stands beside it: `mask` and `boxes`, as far as they are asked for."""
        given, sizes = self._given.take(raw.num_rows), self._sizes.take(raw.num_rows)
        assert all(table[ROW].equals(raw[ROW]) for table in (given, sizes)), "targets stand beside other rows"
        payload, masks, boxes = transform(
            raw[PAYLOAD].to_pylist(),
            given[MASK].to_pylist() if MASK in self.names else None,
            given[BOXES].to_pylist() if BOXES in self.names else None,
            list(zip(sizes["height"].to_pylist(), sizes["width"].to_pylist(), strict=True)),
            self.vocabulary,
            self.config.fit,
            spare(self.vocabulary["size"]),
        )
        columns: dict[str, pa.Array] = {}
        if masks is not None:
            columns[MASK] = tensor_array(masks)
            self._with[MASK] += int((masks != IGNORED).any(axis=(1, 2)).sum())
            self._pixels += np.bincount(masks.ravel(), minlength=IGNORED + 1)
        if boxes is not None:
            columns[BOXES] = pa.array(boxes, pa.list_(BOX))
            self._with[BOXES] += sum(bool(several) for several in boxes)
        return payload, columns

    def measured(self) -> dict[str, Any]:
        """How many rows have a mask with a class, or a box, in the stored frame, and which classes there are."""
        found: dict[str, Any] = {}
        if MASK in self.names:
            found["masks"] = {"rows": self._with[MASK], "classes": np.flatnonzero(self._pixels[:IGNORED]).tolist()}
        if BOXES in self.names:
            found["boxes"] = {"rows": self._with[BOXES]}
        return found


def _only(batches: Iterator[pa.Table], rows: NDArray[np.int64]) -> Iterator[pa.Table]:
    """The lines of these rows (ascending)."""
    for batch in batches:
        yield batch.filter(pa.array(member(batch[ROW].to_numpy(), rows)))
