"""What more workers and checkpoints cost in images/s of the pretrain stage, feed included. Prints JSON.

    python tests/benchmarks/workers.py [ROUNDS] [STEPS]        # 3 rounds of 150 steps

SimCLR on CIFAR-10 as in `pretraining.py small`. The sides take turns: one worker with two threads, two workers with one
thread each (global batch, samples and views are the same), and one worker that saves a checkpoint every 50 steps.
Memory layout is fixed and nothing is compiled, so that all sides do the same. images/s count from the tenth step on;
ratios are medians over the rounds. Meant for two cores.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from pretraining import CACHE, CONTESTS, POLICY, files, ratio, run

SAME = {"layout": "channels_last", "compile": "never", "checkpoint_every_steps": 1_000_000}
SIDES: dict[str, dict[str, Any]] = {
    "one worker": {**SAME, "num_workers": 1, "threads": 2},
    "two workers": {**SAME, "num_workers": 2, "threads": 1},
    "checkpoints": {**SAME, "num_workers": 1, "threads": 2, "checkpoint_every_steps": 50},
}


def main(rounds: int = 3, steps: int = 150) -> None:
    """Run the sides in turn and print what they did."""
    work = CACHE / "pretraining-small"
    work.mkdir(parents=True, exist_ok=True)
    files("small", work)
    contest = CONTESTS["small"]
    task = {**contest, "work": str(work), "steps": contest["warm_up"] + steps, "policy": POLICY}
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    seed = int(time.time())  # seeds of their own, so that no earlier call's artifact is found
    for _ in range(rounds):
        for side, settings in SIDES.items():
            seed += 1
            answer = run("ours", Path(sys.executable), {**task, "seed": seed, "pretrain": settings})
            speeds[side].append(round(answer["images_per_second"], 1))
        print(json.dumps(speeds), file=sys.stderr)
    figures = {
        "cores": os.cpu_count(),
        "rounds": rounds,
        "steps": steps,
        "images_per_second": speeds,
        "median": {side: statistics.median(values) for side, values in speeds.items()},
        "two_workers_over_one": ratio(speeds["two workers"], speeds["one worker"]),
        "checkpoints_over_none": ratio(speeds["checkpoints"], speeds["one worker"]),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
