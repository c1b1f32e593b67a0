"""How fast rows are read from payload shards in random order, by one process. Prints JSON.

    python tests/benchmarks/shards.py [NUM_ROWS [BATCH]]        # 100000 rows of 32 px uint8, batches of 256

Rows are random bytes: what is measured is `Shards.take`, from memory-mapped files that the system has in its cache,
beside indexing one array in memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa

from ssl_tasks.schema import PAYLOAD, ROW
from ssl_tasks.shards import Shards, ShardWriter, tensor_array
from ssl_tasks.store import Output, Store

SECONDS = 2.0


def rate(take: object, count: int, batch: int) -> float:
    """Rows per second."""
    random = np.random.default_rng(0)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        take(random.integers(count, size=batch))  # type: ignore[operator]  # a callable
        done += batch
    return done / (time.perf_counter() - began)


def main(count: int = 100_000, batch: int = 256) -> None:
    """Measure and print."""
    values = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        out = Output(Store.open(folder).uri, "f" * 64, "a", "normalize")
        writer = ShardWriter(out, "payload")
        for first in range(0, count, 4096):
            part = values[first : first + 4096]
            writer.write(pa.table({ROW: np.arange(first, first + len(part)), PAYLOAD: tensor_array(part)}))
        writer.flush()
        shards = Shards.map([out.path(name) for name in sorted(out.entries)], PAYLOAD)
        picked = np.random.default_rng(1).integers(count, size=1000)
        assert np.array_equal(shards.take(picked), values[picked])
        figures = {
            "rows": count,
            "batch": batch,
            "shards": writer.count,
            "mapped_rows_per_second": round(rate(shards.take, count, batch)),
            "in_memory_rows_per_second": round(rate(values.__getitem__, count, batch)),
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
