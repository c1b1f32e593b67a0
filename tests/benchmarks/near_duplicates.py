"""Which near duplicates between test and train of CIFAR-10 are found, and how many pairs are looked at. Prints JSON.

    python tests/benchmarks/near_duplicates.py [NUM_TEST]        # 10000: all test images

Two lists are made by comparing each of the test images with all 50,000 train images:

- prints: pairs whose prints are alike by the default `clean.near_duplicates`. What is found of them is the index's
  recall.
- gradients: pairs whose horizontal and vertical differences of luma, at the full 32 x 32 pixels, correlate by 0.8 and
  more, or 0.85. This list knows nothing of prints; what is found of it says whether prints see what is there.

The data is CIFAR-10's of PRETEXTFLOW_TEST_DATA (by default ../shared/data beside the checkout).
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.scan import PRINT
from ssl_tasks.materialize import materialize
from ssl_tasks.shards import Shards, iterate
from ssl_tasks.stages import clean, ingest
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Store

ROOT = Path(__file__).parents[2]
Pairs = set[tuple[int, int]]


def run(folder: Path, store: Store) -> tuple[Artifact, Artifact, float]:
    """Ingest and clean, and the seconds of clean."""
    made: dict[str, Artifact] = {}

    def step(stage: Stage, config: Any, source: str | None) -> float:
        parents = {name: artifact.fingerprint for name, artifact in made.items()}
        done = materialize(store, stage, config, made, fingerprint=stage.fingerprint(config, parents, source))
        made[stage.name] = done.artifact
        return done.seconds

    config = ingest.IngestConfig(path=str(folder))
    step(ingest.STAGE, config, ingest.source(config))
    seconds = step(clean.STAGE, clean.CleanConfig(), None)
    return made["ingest"], made["clean"], seconds


def gradients(ingested: Artifact) -> np.ndarray:
    """(N, 2 * 31 * 31) of length 1, by row."""
    from ssl_tasks.modalities.image.decoding import decode

    parts = []
    for raw in iterate(ingested, "raw"):
        pixels = np.stack([decode(data).pixels for data in raw["payload"].to_pylist()]).astype(np.float32)
        luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        both = np.stack([np.diff(luma, axis=2)[:, :-1], np.diff(luma, axis=1)[:, :, :-1]], axis=1)
        flat = both.reshape(len(both), -1)
        parts.append(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))
    return np.concatenate(parts)


def alike(vectors: np.ndarray, test: np.ndarray, train: np.ndarray, least: float) -> Pairs:
    """Pairs (test row, train row) whose product is at least that, by comparing all."""
    found: Pairs = set()
    for first in range(0, len(test), 500):
        block = test[first : first + 500]
        rows, columns = np.nonzero(vectors[block] @ vectors[train].T >= least)
        found.update(zip(block[rows].tolist(), train[columns].tolist(), strict=True))
    return found


def main(num_test: int = 10_000) -> None:
    """Measure and print."""
    archive = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or ROOT.parent / "shared" / "data") / "cifar10.tar.gz"
    with tempfile.TemporaryDirectory() as name, tarfile.open(archive) as packed:
        packed.extractall(name, filter="data")
        ingested, cleaned, seconds = run(Path(name) / "cifar10", Store.open(f"{name}/store"))
        splits = np.array(ingested.table("rows.parquet", ["split"])["split"].to_pylist())
        test, train = np.flatnonzero(splits == "test"), np.flatnonzero(splits == "train")
        test = np.random.default_rng(0).permutation(test)[:num_test]
        pairs = cleaned.table("duplicates.parquet").to_pylist()
        found = {(pair["row"], pair["other"]) for pair in pairs}
        found |= {(second, first) for first, second in found}
        prints = Shards.map([cleaned.path(n) for n in cleaned.names("prints/")], PRINT)
        vectors = prints.take(np.arange(len(prints))).astype(np.float32)
        lists = {"prints": alike(vectors, test, train, clean.CleanConfig().near_duplicates or 1.0)}
        vectors = gradients(ingested)
        lists |= {f"gradients {least}": alike(vectors, test, train, least) for least in (0.8, 0.85)}
    all_pairs = len(splits) * (len(splits) - 1) // 2
    figures = {
        what: {
            "pairs": len(listed),
            "found": len(listed & found),
            "recall": round(len(listed & found) / len(listed), 3),
        }
        for what, listed in lists.items()
    }
    print(
        json.dumps(
            {
                "images": len(splits),
                "test_images": len(test),
                "clean_seconds": round(seconds, 1),
                "compared": cleaned.measured["compared_pairs"],
                "share_of_all_pairs": round(cleaned.measured["compared_pairs"] / all_pairs, 5),
                "near_pairs": cleaned.measured["near_pairs"],
                "test_images_with_a_near_duplicate_in_train": len({row for row, _ in lists["prints"]}),
                "lists": figures,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
