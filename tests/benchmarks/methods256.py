"""What each method costs in the pipeline beside the same module stepped on tensors in memory. Prints JSON and a table.

    python tests/benchmarks/methods.py WORK_FOLDER [SIZES [METHODS]]     # digits,32px and all

Both sides train the same module, optimizer, layout and threads, in turn, for `ROUNDS` rounds. The pipeline is the feed
(views made by Ray Data in processes of its own) and the training loop, from the first step after `WARM_UP` to the last;
its start, health checks and checkpoints are not in it. The other side steps through a few batches that are there.
What is measured is kept in WORK_FOLDER: called again, the command goes on where it stopped.

The aim is a share of 90% where the module alone makes 1,000 images/s or less, and above, a feed of 1,000 or more.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
CANDIDATES = Path(__file__).with_name("methods_digits.yaml")
SIZES: dict[str, tuple[str, ...]] = {
    "digits": (),
    "32px": ("normalize.size=32", "normalize.channels=3", "pretrain.batch_size=256"),
}
BACKBONES = {"32px": {"test_resnet": "resnet10t"}}
IN_COLOUR = ("pretrain.method.name=colorization", "clean.near_duplicates=null", "clean.error_budget=0")
"""What colorization is told, on the tests' captioned pictures: the digits are grey."""
ROUNDS, SECONDS, WARM_UP, NUM_BATCHES = 2, 4.0, 4, 4
"""Seconds of each side in each round; steps that are not counted; batches of the side without a feed."""
SHARE, RATE = 0.9, 1000.0


def jobs(work: Path, size: str, wanted: set[str]) -> Iterator[tuple[str, Any]]:
    """Each method with what its pretraining is told, over data that is made once."""
    from flows.compare import candidates
    from flows.recipe import load_recipe
    from ssl_tasks import methods
    from ssl_tasks.store import Output, Store
    from ssl_tasks.training.job import Job

    sys.path.insert(0, str(ROOT / "tests"))
    from methods_table import pictures
    from tests_chain import run_chain

    chosen = {candidate.name: candidate.overrides for candidate in candidates(None, CANDIDATES)}
    if size != "digits":
        chosen["colorization"] = [*IN_COLOUR, f"ingest.path={pictures(work)}"]
    store = Store.open(str(work / "store"))
    for name, overrides in chosen.items():
        if wanted and name not in wanted:
            continue
        recipe: Any = load_recipe("digits", [*SIZES[size], *overrides])
        sections = {key: value for key, value in recipe.to_dict().items() if isinstance(value, dict)}
        made = run_chain(store, {key: sections[key] for key in ("ingest", "clean", "split", "normalize", "augment")})
        backbone = BACKBONES.get(size, {}).get(recipe.pretrain.backbone, recipe.pretrain.backbone)
        config = recipe.pretrain.model_copy(
            update={"backbone": backbone, "compile": "never", "health_checks": 1, "checkpoint_every_steps": 1 << 30}
        )
        out = Output(store.uri, uuid.uuid4().hex * 2, "a", "pretrain")
        names = methods.view_policies(config.method.options(), config.modality)
        yield name, Job(config, out, made["normalize"], made["split"], made["augment"], names)


def trainer_of(job: Any, num_steps: int) -> Any:
    """A trainer of so many steps, with nothing to resume."""
    import torch

    from ssl_tasks.store import Output
    from ssl_tasks.training.loop import Trainer
    from ssl_tasks.training.setup import Ranks

    out = Output(job.out.store.uri, uuid.uuid4().hex * 2, "a", "pretrain")
    config = job.config.model_copy(update={"max_steps": num_steps, "epochs": num_steps})
    return Trainer(dataclasses.replace(job, out=out, config=config), Ranks(0, 1, torch.device("cpu")))


def in_pipeline(job: Any, num_steps: int) -> float:
    """Images per second of feed and loop."""
    import torch

    from ssl_tasks.cluster.feed import start_feed

    torch.use_deterministic_algorithms(True, warn_only=True)  # as the training workers have it
    trainer = trainer_of(job, num_steps + WARM_UP + 1)
    asked: list[float] = []

    def feed(first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
        for made in start_feed(trainer.job, 0, 1, first, last):
            yield made
            asked.append(time.perf_counter())  # the loop is done with this batch

    trainer.run(feed, lambda progress: None)
    torch.use_deterministic_algorithms(False)
    return (len(asked) - 1 - WARM_UP) * job.config.batch_size / (asked[-1] - asked[WARM_UP])


def alone(job: Any, num_steps: int) -> float:
    """Images per second of forward, backward, optimizer and what the method does after a step."""
    from ssl_tasks.training.setup import as_input
    from ssl_tasks.training.views import make_views, to_batch

    trainer = trainer_of(job, num_steps + WARM_UP)
    layout, precision, device = trainer.choice["layout"], job.config.precision, trainer.ranks.device
    batches = [
        as_input(to_batch(make_views(job, step, 0, 1), job, trainer.stats, device), layout, precision)
        for step in range(NUM_BATCHES)
    ]
    trainer.method.before_epoch(lambda: _features(trainer))
    began = 0.0
    for step in range(num_steps + WARM_UP):
        if step == WARM_UP:
            began = time.perf_counter()
        for phase, optimizer in trainer.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            trainer.call(batches[step % NUM_BATCHES], phase)["loss"].backward()
            optimizer.step()
        trainer.method.after_step((step + 1) / (num_steps + WARM_UP))
    return num_steps * job.config.batch_size / (time.perf_counter() - began)


def _features(trainer: Any) -> Any:
    from ssl_tasks.training.probe import embed_rows

    return embed_rows(trainer, trainer.job.plan.positions)


def measure(job: Any) -> dict[str, Any]:
    """Both sides in turn, in the layout that calibration finds the faster one."""
    layout = trainer_of(job, 1).choice["layout"]
    job = dataclasses.replace(job, config=job.config.model_copy(update={"layout": layout}))
    first = alone(job, 8)
    num_steps = max(8, round(SECONDS * first / job.config.batch_size))
    rounds = [(in_pipeline(job, num_steps), alone(job, num_steps)) for _ in range(ROUNDS)]
    pipeline, bare = (statistics.median(side) for side in zip(*rounds, strict=True))
    share = statistics.median(there / without for there, without in rounds)
    return {
        "pipeline": round(pipeline),
        "alone": round(bare),
        "share": round(share, 3),
        "shares": [round(there / without, 3) for there, without in rounds],
        "steps": num_steps,
        "backbone": job.config.backbone,
        "layout": layout,
        "as_wanted": share >= SHARE if bare <= RATE else pipeline >= RATE,
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Of all that was measured, in Markdown."""
    lines = ["| images | method | backbone | in the pipeline | alone | share | as wanted |", "|" + " --- |" * 7]
    for key, row in found.items():
        size, name = key.split("/")
        yes = "yes" if row["as_wanted"] else "no"
        figures = f"{row['pipeline']:,} images/s | {row['alone']:,} images/s | {row['share']:.0%} | {yes}"
        lines.append(f"| {size} | `{name}` | {row['backbone']} | {figures} |")
    return "\n".join(lines)


def main(work: Path, sizes: str = ",".join(SIZES), methods: str = "") -> None:
    """Measure what is not there yet, and print all."""
    import torch

    from ssl_tasks.cluster.connect import connection

    work.mkdir(parents=True, exist_ok=True)
    kept = work / "methods.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)  # as the one training worker has them
    wanted = {name for name in methods.split(",") if name}
    with connection(None, num_cpus=max(cores, 2)):
        for size, (name, job) in itertools.chain.from_iterable(
            ((size, entry) for entry in jobs(work, size, wanted)) for size in sizes.split(",")
        ):
            if f"{size}/{name}" not in found:
                found[f"{size}/{name}"] = measure(job)
                kept.write_text(json.dumps(found, indent=1))
                print(f"{size}/{name}", found[f"{size}/{name}"], file=sys.stderr)
    print(json.dumps({"cores": cores, "methods": found}, indent=1))
    print(table(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *sys.argv[2:])
