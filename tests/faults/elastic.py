"""A training on a cluster whose nodes come and go: a node killed, and one added.

    python tests/faults/elastic.py WORK_FOLDER [MINUTES]

Several raylets on this machine: two nodes that each hold a worker and its feed. One is killed (SIGKILL); the training
must go on with one worker from its last checkpoint. One is added; it must go on with two. At the end the losses must be
those of a training that nobody disturbed, and nothing may be left. Prints what was seen as JSON on its last line;
exit status 1 where it was not so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests_chain import run_chain

from ssl_tasks.cluster.connect import ENVIRONMENT
from ssl_tasks.store import Store

MINUTES = 9.0
"""Of the training; a busy machine needs more."""
PRETRAIN = {
    "method": "simclr", "backbone": "test_resnet", "batch_size": 64, "precision": "fp64", "max_steps": 2000,
    "epochs": 1000, "health_checks": 2, "layout": "contiguous", "compile": "never", "threads": 1,
    "optimizer": {"name": "sgd", "lr": 1e-4, "momentum": 0.0}, "checkpoint_every_steps": 20, "placement": "SPREAD",
}  # fmt: skip
"""At this rate last bits, which sums in another order leave, do not grow; at 0.002 they are 0.1 after 130 steps."""


def recipe(**pretrain: Any) -> dict[str, dict[str, Any]]:
    return {"normalize": {"size": 8, "channels": 1}, "clean": {"near_duplicates": None},
            "pretrain": {**PRETRAIN, **pretrain}}  # fmt: skip


def train(store: str, **pretrain: Any) -> None:
    """What the driver's process does."""
    run_chain(Store.open(store), recipe(**pretrain), until="pretrain")


class Driver:
    """A training in a process of its own."""

    def __init__(self, store: Path, address: str, deadline: float) -> None:
        self.deadline = deadline
        code = f"import elastic; elastic.train({str(store)!r}, num_workers=[1, 2], max_failures=3)"
        paths = [str(Path(__file__).parent), *(entry for entry in sys.path if entry)]
        env = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": os.pathsep.join(paths)}
        self.store, self.process = Store.open(str(store)), subprocess.Popen([sys.executable, "-c", code], env=env)

    def progress(self) -> dict[str, Any]:
        found = [self.store.read_json(f"partial/{name}/progress.json") for name in self.store.list("partial")]
        return next((each for each in found if each), {})

    def wait(self, until: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Progress, as soon as `until` holds for it."""
        while not until(seen := self.progress()):
            if time.monotonic() > self.deadline or self.process.poll() is not None:
                raise SystemExit(f"never: {what}; exit status {self.process.poll()}, progress {seen}")
            time.sleep(0.1)
        print(f"{what}: {seen}", file=sys.stderr)
        return seen


def disturb(work: Path, minutes: float) -> dict[str, Any]:
    """Kill a node and add one while a training goes on; what was seen."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    driver = Driver(work / "elastic", cluster.address, time.monotonic() + 60 * minutes)
    try:
        before = driver.wait(lambda seen: seen.get("step", 0) > 60, "step 60")
        killed = time.monotonic()
        cluster.remove_node(nodes[1], allow_graceful=False)
        alone = driver.wait(lambda seen: seen.get("workers") == 1 and "loss" in seen, "one worker alone")
        lost = time.monotonic()
        fewer = driver.wait(lambda seen: seen.get("step", 0) > before["step"] + 60, "60 steps alone")
        added = time.monotonic()
        cluster.add_node(num_cpus=2)
        again = driver.wait(lambda seen: seen.get("workers") == 2 and "loss" in seen, "two workers again")
        grown = time.monotonic()
        driver.wait(lambda seen: not seen, "the end")
        if driver.process.wait(timeout=60):
            raise SystemExit("the training failed")
        ray.init(address=cluster.address, logging_level="ERROR")
        left = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
        ray.shutdown()
    finally:
        driver.process.kill()
        cluster.shutdown()
    return {
        "workers": [before["workers"], alone["workers"], again["workers"]],
        "steps": [before["step"], alone["step"], fewer["step"], again["step"]],
        "seconds_to_go_on_alone": round(lost - killed, 1),
        "seconds_to_grow": round(grown - added, 1),
        "placement_groups_left": len(left),
    }


def main(work: Path, minutes: float = MINUTES) -> int:
    """Disturb, compare with a training that nobody disturbs, print; the exit status."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    os.environ["RAY_AUTH_MODE"] = "disabled"
    seen = disturb(work, minutes)
    os.environ.pop("RAY_ADDRESS", None)
    stores = [Store.open(str(work / name)) for name in ("elastic", "whole")]
    elastic, whole = (run_chain(store, recipe(), until="pretrain")["pretrain"] for store in stores)
    losses = [artifact.table("metrics.parquet")["loss"].to_pylist() for artifact in (elastic, whole)]
    apart = max(abs(one - other) for one, other in zip(*losses, strict=True))
    seen |= {"steps_in_all": len(losses[0]), "losses_apart": apart, "ended_with": elastic.measured["workers"]}
    good = elastic.fingerprint == whole.fingerprint and apart < 1e-8 and seen["placement_groups_left"] == 0
    print(json.dumps({**seen, "good": good}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), *map(float, sys.argv[2:])))
