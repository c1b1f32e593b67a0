"""How soon SimCLR's features of 5,000 CIFAR-10 images are as good as those of lightly-train 0.18. Prints JSON.

    python tests/benchmarks/time_to_quality.py [MINUTES] [SIDE ...]        # 8: so long the peer trains
    python tests/benchmarks/time_to_quality.py 8 ours:44 peer:48           # so many epochs, whatever they take

SIDE is `ours`, `peer` or `peer_with_ours`; all three without one.

The peer pretrains for MINUTES with its own hyper-parameters for SimCLR in fp32, and again with ours in bf16; ours runs
for half of that. Two short runs of a side tell how many epochs the time allows; all three are printed. Ours is
`pretextflow run` on time_to_quality.yaml, from the files to the report, and its seconds are those of the whole process;
the peer's are those of its pretraining process alone. Same backbone (resnet10t at 32 px), batch of 256, first 500 train
and 200 test images of each class. Accuracy: cosine kNN with 20 neighbours, from the train to the test images, on the
pooled features. Data and environments are those of pretraining.py.
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

import numpy as np
from methods_table import subset
from pretraining import CACHE, ROOT, environment
from sklearn.neighbors import KNeighborsClassifier

from ssl_tasks.schema import LABEL, PRETRAINED_FILE, RANDOM_INIT_FILE, SPLIT, SPLITS_FILE, TEST
from ssl_tasks.store import Store
from ssl_tasks.transfer.data import embeddings

NEIGHBOURS = 20
PROBES = (4, 16)
"""Epochs of the two short runs of a side."""
DEFAULTS: dict[str, Any] = {"method_args": {}, "optimizer": {}, "precision": "32-true"}
OURS: dict[str, Any] = {
    "precision": "bf16-mixed",
    "method_args": {"temperature": 0.1},
    "optimizer": {"optim": "adamw", "optim_args": {"lr": 0.004, "weight_decay": 0.0001}},
}
"""Hyper-parameters of the peer."""


def accuracy(train: Any, train_labels: Any, test: Any, test_labels: Any) -> float:
    """Of cosine kNN."""
    judge = KNeighborsClassifier(NEIGHBOURS, metric="cosine", algorithm="brute").fit(train, train_labels)
    return round(float(judge.score(test, test_labels)), 4)


def peer(images: Path, folder: Path, epochs: int, hyper: dict[str, Any]) -> dict[str, Any]:
    """Seconds and accuracy of the peer after `epochs`."""
    task = {"data": str(images), "out": str(folder), "epochs": epochs, **hyper}
    script, features = Path(__file__).with_name("time_to_quality_peer.py"), folder / "features.npz"
    began = time.monotonic()
    command = [str(environment()), str(script), json.dumps(task)]
    subprocess.run([*command, "pretrain"], check=True, stdout=sys.stderr)
    seconds = time.monotonic() - began
    subprocess.run([*command, "embed"], check=True, stdout=sys.stderr)
    with np.load(features) as found:
        reached = accuracy(*(found[name] for name in ("train", "train_labels", "test", "test_labels")))
    return {"epochs": epochs, "seconds": round(seconds, 1), "knn": reached}


def ours(images: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """The same of a run of ours in a new store, and the accuracy of its network before the first step."""
    command = [sys.executable, "-m", "flows.cli", "run", str(Path(__file__).with_suffix(".yaml")), "--json"]
    command += ["--store", str(folder), "--set", f"ingest.path={images}", "--set", f"pretrain.epochs={epochs}"]
    began = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.monotonic() - began
    reached = scores(Store.open(str(folder)), json.loads(done.stdout.splitlines()[-1]))
    return {"epochs": epochs, "seconds": round(seconds, 1), **reached}


def scores(store: Store, answer: dict[str, Any]) -> dict[str, float]:
    """Accuracy of the run's encoder and of the same network untrained."""
    made: dict[str, Any] = {stage["name"]: store.lookup(stage["fingerprint"]) for stage in answer["stages"]}
    splits = made["split"].table(SPLITS_FILE)
    tested, labels = splits[SPLIT].to_numpy() == TEST, splits[LABEL].to_numpy()
    found = {}
    for name, file in {"knn": PRETRAINED_FILE, "knn_untrained": RANDOM_INIT_FILE}.items():
        features = np.concatenate(list(embeddings(made["embed"], file, splits).parts()))
        found[name] = accuracy(features[~tested], labels[~tested], features[tested], labels[tested])
    return found


def affordable(short: list[dict[str, Any]], seconds: float) -> int:
    """Epochs of a run of that many seconds, judged by two short ones."""
    few, more = short
    of_one = (more["seconds"] - few["seconds"]) / (more["epochs"] - few["epochs"])
    return max(int(few["epochs"]), int(few["epochs"] + (seconds - few["seconds"]) / of_one))


def main(minutes: float = 8.0, *asked: str) -> None:
    """Measure and print."""
    images, found = subset(CACHE), dict[str, list[dict[str, Any]]]()
    with tempfile.TemporaryDirectory() as name:
        sides: dict[str, Callable[[int], dict[str, Any]]] = {
            "ours": lambda epochs: ours(images, Path(name, f"ours{epochs}"), epochs),
            "peer": lambda epochs: peer(images, Path(name, f"peer{epochs}"), epochs, DEFAULTS),
            "peer_with_ours": lambda epochs: peer(images, Path(name, f"with_ours{epochs}"), epochs, OURS),
        }
        for wanted in asked or sides:
            side, _, given = wanted.partition(":")
            if given:
                found[side] = [sides[side](int(given))]
            else:
                found[side] = [sides[side](epochs) for epochs in PROBES]
                budget = 60 * minutes / (2 if side == "ours" else 1)
                found[side].append(sides[side](affordable(found[side], budget)))
            print(json.dumps(found), file=sys.stderr)
    print(json.dumps({"cores": os.cpu_count(), "minutes": minutes, **found}, indent=1))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *sys.argv[2:])
