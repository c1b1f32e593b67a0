"""What it takes two busy processes of one machine to tell each other a kilobyte. Prints JSON.

    python tests/benchmarks/exchange.py [ROUNDS]        # 300

Microseconds of an exchange of 257 numbers (the statistics of a batch norm of 128 channels), means over rounds, by what
each process computes before it: nothing, or products of matrices, about 2 ms of them. gloo's all-gather and
all-reduce, and `ssl_tasks.training.mesh`. Meant for two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

NUMBERS = 257
PRODUCTS = {"idle": 0, "busy": 2}
WARM_UP = 20


def microseconds(exchange: Callable[[], Any], products: int, rounds: int) -> float:
    """Mean time inside of `exchange`."""
    matrix, inside = torch.randn(400, 400), 0.0
    for number in range(-WARM_UP, rounds):
        for _ in range(products):
            matrix @ matrix
        began = time.perf_counter()
        exchange()
        inside += time.perf_counter() - began if number >= 0 else 0.0
    return round(1e6 * inside / rounds)


def one_rank(rounds: int, rank: int, meeting: str) -> None:
    """Measure, and print on rank 0."""
    from ssl_tasks.training.mesh import connect

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    mesh, vector = connect(), torch.randn(NUMBERS)
    assert mesh is not None
    parts = [torch.empty_like(vector) for _ in range(2)]
    ways: dict[str, Callable[[], Any]] = {
        "gloo all-gather": lambda: distributed.all_gather(parts, vector),
        "gloo all-reduce": lambda: distributed.all_reduce(vector.clone()),
        "mesh": lambda: mesh.gather(vector),
    }
    found = {
        load: {name: microseconds(way, products, rounds) for name, way in ways.items()}
        for load, products in PRODUCTS.items()
    }
    if rank == 0:
        print(json.dumps({"cores": os.cpu_count(), "rounds": rounds, "microseconds": found}, indent=1))


def main(rounds: int = 300) -> None:
    """Start both ranks and wait for them."""
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(rounds), f"file://{folder}/meeting"]
        ranks = [subprocess.Popen([*command, str(rank)], env=env) for rank in range(2)]
        sys.exit(max(process.wait() for process in ranks))


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) == 3:
        one_rank(int(given[0]), int(given[2]), given[1])
    else:
        main(*map(int, given))
