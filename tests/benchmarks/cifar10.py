"""SimCLR on CIFAR-10, from 60,000 JPEG files to the report, for several pretraining seeds. Prints JSON.

    python tests/benchmarks/cifar10.py WORK_FOLDER [NUM_SEEDS]        # 3 seeds; an hour and a half on two cores

The recipe is cifar10.yaml beside this file. Data and store stay in WORK_FOLDER: called again, it goes on where it
stopped, and what is there is only read. The archive is that of PRETEXTFLOW_TEST_DATA (by default ../shared/data
beside the checkout).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_suffix(".yaml")
COLUMNS = ("pretrained", "random_init", "from_scratch")
ONCE = ["--set", "transfer.scratch.steps=1", "--set", "transfer.scratch.learning_rates=[0.003]"]
"""Of every seed after the first: training from scratch knows nothing of the pretraining seed, and takes longer than
everything else of transfer."""


def run(work: Path, seed: int) -> dict[str, Any]:
    """One run of the recipe; the answer of the command."""
    command = [sys.executable, "-m", "flows.cli", "run", str(RECIPE), "--json", "--store", str(work / "store")]
    command += ["--set", f"ingest.path={work / 'cifar10'}", "--set", f"pretrain.seed={seed}"]
    command += ONCE if seed else []
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main(work: Path, num_seeds: int = 3) -> None:
    """Unpack, run, print."""
    if not (work / "cifar10").exists():
        archive = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or ROOT.parent / "shared" / "data") / "cifar10.tar.gz"
        with tarfile.open(archive) as packed:
            packed.extractall(work / "unpacking", filter="data")
        (work / "unpacking" / "cifar10").rename(work / "cifar10")
    answers = [run(work, seed) for seed in range(num_seeds)]
    cells: dict[tuple[str, float, str], list[float]] = defaultdict(list)
    for number, answer in enumerate(answers):
        for line in answer["metrics"]["transfer"]["summary"]:
            for column in COLUMNS[:2] if number else COLUMNS:
                cells[line["strategy"], line["label_fraction"], column].append(line[column])
    table = [
        {
            "strategy": strategy,
            "labels": fraction,
            "of": column,
            "mean": round(statistics.mean(values), 4),
            "deviation": round(statistics.stdev(values), 4) if len(values) > 1 else None,
        }
        for (strategy, fraction, column), values in cells.items()
    ]
    seeds = [
        {
            "run": answer["run_id"],
            "seconds": {stage["name"]: round(stage["seconds"]) for stage in answer["stages"]},
            "pretrain": {k: answer["metrics"]["pretrain"][k] for k in ("steps", "rows_per_second", "loss", "rankme")},
            "verdict": None if number else answer["metrics"]["report"]["verdict"],
        }
        for number, answer in enumerate(answers)
    ]
    print(json.dumps({"cores": os.cpu_count(), "seeds": seeds, "accuracy_over_pretraining_seeds": table}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *map(int, sys.argv[2:]))
