"""How long the probes on frozen embeddings take, and how much memory. Prints one JSON object.

    python tests/benchmarks/probes.py [ROWS]        # 50000 labelled train rows where none are named

Linear probe, ridge, kNN, linear support vector machine and perceptron on made-up embeddings of 512 features in ten
classes, as the transfer stage runs them: 1%, 10% and 20 labels a class with five seeds each, then all rows once. The
spectrum falls as that of trained encoders does, so that solvers have something to do; 2,500 val rows choose, 5,000 test
rows are scored. They are read in parts from a file, as the stage reads those of the embed stage. Memory is the most
that the process held (maximum resident set), libraries included, in MB of 1,000,000 bytes; the aim is 2,000 of them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ssl_tasks.schema import SPLIT_ROWS, align
from ssl_tasks.transfer.budgets import Budget
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.evaluate import Plan, evaluate
from ssl_tasks.transfer.rows import PART_ROWS, Parts
from ssl_tasks.transfer.runners import threads

STRATEGIES = ("linear_probe", "ridge", "knn", "linear_svm", "mlp")
WIDTH, CLASSES, VAL, TEST = 512, 10, 2500, 5000
APART = 0.12
"""Deviation of the classes' means, in that of a feature: linear probes then get three of four test rows right."""
SMALL = (Budget(fraction=0.01), Budget(fraction=0.1), Budget(per_class=20))


def embeddings(labels: np.ndarray) -> np.ndarray:
    """(N, 512) float32: classes that overlap, features that are correlated, a spectrum that falls as 1 / rank."""
    random = np.random.default_rng(0)
    scales = 1.0 / np.sqrt(np.arange(1, WIDTH + 1))
    rotation = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    means = APART * random.normal(size=(CLASSES, WIDTH)) * scales
    made = np.empty((len(labels), WIDTH), np.float32)
    for start in range(0, len(labels), 4096):
        part = labels[start : start + 4096]
        made[start : start + 4096] = (means[part] + scales * random.normal(size=(len(part), WIDTH))) @ rotation
    return np.maximum(made, -0.1)


@dataclass(frozen=True)
class Filed(Parts):
    """Embeddings in a file, as `rows.Stored` has them in an artifact."""

    file: Path

    def parts(self) -> Iterator[np.ndarray]:
        """(rows, D) each."""
        with self.file.open("rb") as stream:
            while len(part := np.fromfile(stream, np.float32, PART_ROWS * WIDTH)):
                yield part.reshape(-1, WIDTH).astype(np.float64)


def labelled(rows: int) -> Labelled:
    """Train rows first, then val, then test, each test row a group of its own."""
    random = np.random.default_rng(1)
    total = rows + VAL + TEST
    labels = random.integers(0, CLASSES, total)
    ids = [str(number) for number in range(total)]
    columns = {
        "row": np.arange(total),
        "sample_id": ids,
        "group_id": ids,
        "split": ["train"] * rows + ["val"] * VAL + ["test"] * TEST,
        "label": [str(label) for label in labels],
        "label_key": random.integers(-(2**63), 2**63 - 1, total),
    }
    positions = np.arange(total)
    return Labelled(
        splits=align(pa.table(columns), SPLIT_ROWS),
        classes=[str(number) for number in range(CLASSES)],
        labels=labels,
        train=positions[:rows],
        val=positions[rows : rows + VAL],
        test=positions[rows + VAL :],
        groups=np.arange(TEST),
    )


def cpu_seconds() -> float:
    """Of this process so far, on all cores: what other processes on the machine do not lengthen."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(rows: int, file: Path) -> None:
    """Run both plans and print what they took."""
    data = labelled(rows)
    embeddings(data.labels).tofile(file)
    answer: dict[str, object] = {"rows": rows, "features": WIDTH, "cores": os.cpu_count()}
    total = 0.0
    for name, budgets, seeds in (("small", SMALL, range(5)), ("all", (Budget(),), range(1))):
        plan = Plan(STRATEGIES, budgets, list(seeds), "accuracy", slow_rows=5000)
        began, cpu_before = time.monotonic(), cpu_seconds()
        encoders = {"encoder": lambda: Filed(file)}
        with threads(workers=0) as runner:
            fits, failures = evaluate(plan, data, encoders, None, runner)
        assert not failures, failures
        seconds = time.monotonic() - began
        total += seconds
        answer[name] = {
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_seconds() - cpu_before, 1),
            "fits": len(fits),
            "fit_seconds": {of: round(sum(fit.seconds for fit in fits if fit.strategy == of), 1) for of in STRATEGIES},
            "accuracy": {
                of: round(float(np.mean([fit.values["accuracy"] for fit in fits if fit.strategy == of])), 3)
                for of in STRATEGIES
            },
        }
    answer |= {"seconds": round(total, 1), "cpu_seconds": round(cpu_seconds(), 1)}
    answer["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
    print(json.dumps(answer))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000, Path(folder) / "embeddings")
