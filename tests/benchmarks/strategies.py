"""Every way to go on with an encoder's weights or knowledge, on the digits: accuracy beside the baselines, as Markdown.

    python tests/benchmarks/strategies.py WORK_FOLDER [NUM_SEEDS]      # 5 draws of labels; twenty minutes on two cores

Two runs of the built-in recipe `digits` by the command line, one with its ResNet and one with a small ViT, with 2% and
10% of the labels, 300 steps a fit, three learning rates of which val rows choose, and a student of a quarter of the
weights. From scratch gets the same steps and rates. Called again it takes what is in the store.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import COMPARISONS_FILE, METRICS_FILE
from ssl_tasks.store import Store
from ssl_tasks.transfer.tables import FAILURES_FILE

ROOT = Path(__file__).parents[2]

BASELINES = ("from_scratch", "random_init")
STEPS = 300
TRANSFER: dict[str, Any] = {
    "label_fractions": [0.02, 0.1],
    "tune": {"steps": STEPS},
    "scratch": {"steps": STEPS},
    "distill": {"student": "test_efficientnet"},
}
STRATEGIES = {
    "test_resnet": [
        *("linear_probe", "fine_tune", "last_layers", "gradual_unfreezing", "layer_decay", "lp_ft"),
        *("reuse_stages", "net2net", "distill_logits", "distill_features", "surrogate"),
    ],
    "test_vit": ["linear_probe", "fine_tune", "lp_ft", "lora"],
}


def run(work: Path, backbone: str, seeds: int) -> Artifact:
    """The transfer artifact of one run."""
    section = TRANSFER | {"strategies": STRATEGIES[backbone], "seeds": seeds}
    command = [sys.executable, "-m", "flows.cli", "run", "digits", "--json", "--store", str(work / "store")]
    for setting in (f"transfer={json.dumps(section)}", f"pretrain.backbone={backbone}"):
        command += ["--set", setting]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    store = Store.open(str(work / "store"))
    stages = json.loads(done.stdout.splitlines()[-1])["stages"]
    (made,) = (stage["fingerprint"] for stage in stages if stage["name"] == "transfer")
    found = store.handle(store.manifest(made))
    failed = found.table(FAILURES_FILE).to_pylist()
    assert not failed, failed
    return found


def rows(made: Artifact) -> Iterator[list[str]]:
    """A row for each strategy: at each share of the labels its accuracy, then what it gains over each baseline."""
    fits, compared = (
        table.filter(pc.equal(table["metric"], "accuracy")).to_pylist()
        for table in (made.table(METRICS_FILE), made.table(COMPARISONS_FILE))
    )
    reached: dict[tuple[str, float], list[float]] = {}
    for fit in fits:
        if fit["method"] == "simclr":
            reached.setdefault((fit["strategy"], fit["label_fraction"]), []).append(fit["value"])
    gains = {(line["strategy"], line["label_fraction"], line["baseline"]): line for line in compared}
    for name in dict.fromkeys(name for name, _ in reached):
        row = [f"`{name}`"]
        for share in TRANSFER["label_fractions"]:
            row.append(f"{statistics.mean(reached[name, share]):.1%}")
            row += [_points(gains[name, share, baseline]) for baseline in BASELINES]
        yield row


def _points(line: dict[str, Any]) -> str:
    """With the 95% interval."""
    return "{:+.1f} ({:+.1f}, {:+.1f})".format(*(100 * line[key] for key in ("difference", "low", "high")))


def main(work: Path, seeds: int = 5) -> None:
    """Run both and print a table of each."""
    names = ["strategy"]
    for share in TRANSFER["label_fractions"]:
        names += [f"{share:.0%} of the labels", *(f"over {baseline.replace('_', ' ')}" for baseline in BASELINES)]
    for backbone in STRATEGIES:
        table = [names, ["---"] * len(names), *rows(run(work, backbone, seeds))]
        print(f"\n`{backbone}`\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in table), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *map(int, sys.argv[2:]))
