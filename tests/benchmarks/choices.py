"""What precision, memory layout, compilation and threads give to a step of SimCLR on this CPU. Prints a table and JSON.

    python tests/benchmarks/choices.py [small|photographs] [ROUNDS]        # small, 2

Steps on one batch that lies ready, without feed and Ray; the networks and batches are those of pretraining.py. Each
cell is the better of ROUNDS processes, which take turns. `bf16` is autocast; `bf16 weights` keeps fp32 masters for the
optimizer.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pretraining import CONTESTS

STEPS, WARM_UP = 11, 3
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"autocast": True},
    "bf16 weights": {"weights": "bfloat16"},
}
LAYOUTS = ("contiguous", "channels_last")


def measure(task: dict[str, Any]) -> float:
    """One cell, in this process."""
    import torch
    from pretraining_ours import stepped

    torch.set_num_threads(task["threads"])
    options = {**PRECISIONS[task["precision"]], "compiled": task["compiled"]}
    return round(stepped(task, task["layout"], **options), 1)


def in_child(task: dict[str, Any]) -> float | None:
    """The same in a process of its own; none where that ends badly or takes two minutes."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, "--measure", json.dumps(task)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def main(name: str = "small", rounds: int = 2) -> None:
    """Measure and print."""
    cores = os.cpu_count() or 1
    cells: dict[tuple[str, str, bool, int], list[float]] = {}
    for _ in range(rounds):
        for precision, layout, compiled, threads in itertools.product(
            PRECISIONS, LAYOUTS, (False, True), sorted({1, cores})
        ):
            if threads < cores and (compiled or precision != "fp32"):
                continue  # what threads give is seen on the plain network
            task = {**CONTESTS[name], "steps": STEPS, "warm_up": WARM_UP}
            task |= {"precision": precision, "layout": layout, "compiled": compiled, "threads": threads}
            if (speed := in_child(task)) is not None:
                cells.setdefault((precision, layout, compiled, threads), []).append(speed)
            print(precision, layout, compiled, threads, speed, file=sys.stderr)
    print("| precision | layout | compiled | threads | images/s |\n| --- | --- | --- | --- | --- |")
    for (precision, layout, compiled, threads), speeds in cells.items():
        print(f"| {precision} | {layout} | {'yes' if compiled else 'no'} | {threads} | {max(speeds):.0f} |")
    found = [[*key, *speeds] for key, speeds in cells.items()]
    print(json.dumps({"contest": name, "cores": cores, "images_per_second": found}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(measure(json.loads(sys.argv[2])))
    else:
        main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
