"""What breaks first on 8, 64 and 512 GPUs: a model of the feed and of the exchange, with its assumptions. Prints JSON.

    python tests/benchmarks/scale_model.py [key=value ...]      keys of `Machine`, as in feed_rate=400

No measurement: there are no GPUs here. Each formula stands beside its function and is tested on cases worked out by
hand. The global batch is kept whatever the number of GPUs, as pretextflow does: what a GPU computes shrinks with their
number, what it exchanges does not.

A step takes as long as its slowest supply: the store, the feed's CPUs, or the GPU, which computes and then waits for
what of the exchange the backward pass did not hide.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, fields, replace

GPUS = (8, 64, 512)
BATCHES = (1024, 4096, 32768)
FLOAT = 4


@dataclass(frozen=True)
class Machine:
    """Assumed: nodes of 8 A100-like GPUs and 96 cores, on 200 Gbit/s Ethernet or InfiniBand a node."""

    gpus_per_node: int = 8
    cores_per_node: int = 96
    node_bandwidth: float = 25e9
    """Bytes/s into and out of a node, shared by its GPUs."""
    gpu_bandwidth: float = 200e9
    """Bytes/s between GPUs of a node."""
    latency: float = 20e-6
    """Seconds of a message between nodes; a tenth of it inside one."""
    feed_rate: float = 740.0
    """Samples/s that one core makes two views of 224 px of, from stored ones of 256 px with SimCLR's blur: measured
    here; 1,330 without blur."""
    sample_bytes: float = 256 * 256 * 3.0
    """Of a stored image."""
    store_bandwidth: float = 20e9
    """Bytes/s that the store gives to all nodes together."""
    cached: bool = False
    """Whether each node holds its own copy of the data."""
    feed_on_gpu: bool = False
    """As `pretrain.augment_on=device` has it: the views cost `gpu_views` on the GPU, and the feed only reads."""
    gpu_views: float = 20_000.0
    """Samples/s that a GPU makes two views of."""


@dataclass(frozen=True)
class Training:
    """Assumed: samples/s of one GPU in bf16 with a batch that fills it."""

    name: str
    parameters: float
    """That are exchanged, float32."""
    rate: float
    """Samples/s of a GPU, all views."""
    features: int = 0
    """Floats of a sample whose embeddings all GPUs gather, both views together; 0 where none are."""
    norms: int = 0
    """Synchronized batch norms, each a small exchange in forward and one in backward."""
    least: float = 0.0
    """Seconds that a step takes however few its rows are: kernels too small to fill the GPU."""


TRAININGS = (
    Training("SimCLR, ResNet-50", 28e6, 1250.0, features=2 * 128, norms=53 + 1, least=30e-3),
    Training("MAE, ViT-B/16", 112e6, 1000.0, least=20e-3),
    Training("MoCo v3, ViT-B/16", 98e6, 450.0, features=2 * 256, norms=4, least=40e-3),
)
"""ResNet-50 has 23.5 million parameters before its classifier and 53 batch norms, ViT-B/16 86 million; heads and the
decoder make the rest. MAE shows its encoder a quarter of the patches."""

HIDDEN = 0.5
"""Share of compute beside which gradients are exchanged: the backward pass is two thirds of a step, and its first
buckets are ready only after a part of it."""


def ring(size: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce of `size` bytes (Patarasuk & Yuan 2009): 2 (n-1)/n size/bandwidth + 2 (n-1) latency.

    Each of 2 (n-1) rounds sends a part of size/n.
    """
    return 2 * (ranks - 1) / ranks * size / bandwidth + 2 * (ranks - 1) * latency


def tree(size: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Seconds of an all-reduce up and down a binary tree: 2 size/bandwidth + 2 ceil(log2 n) latency."""
    return 0.0 if ranks == 1 else 2 * size / bandwidth + 2 * math.ceil(math.log2(ranks)) * latency


def all_reduce(size: float, gpus: int, machine: Machine) -> float:
    """Seconds: inside each node by a ring, and between nodes by the cheaper of ring and tree, of all of `size`."""
    local = min(gpus, machine.gpus_per_node)
    nodes = math.ceil(gpus / machine.gpus_per_node)
    inside = ring(size, local, machine.gpu_bandwidth, machine.latency / 10)
    between = min(kind(size, nodes, machine.node_bandwidth, machine.latency) for kind in (ring, tree))
    return inside + between


def all_gather(size: float, gpus: int, machine: Machine) -> float:
    """Seconds until every GPU has all of `size` bytes: half an all-reduce, as a ring sends (n-1)/n of it once."""
    return all_reduce(size, gpus, machine) / 2


@dataclass(frozen=True)
class Step:
    """Seconds of a step's supplies; the slowest is what the step takes."""

    is_starved: bool
    """Whether a GPU has too few rows to be filled."""
    compute: float
    gradients: float
    """Of their exchange, what compute does not hide."""
    embeddings: float
    norms: float
    feed: float
    store: float

    @property
    def gpu(self) -> float:
        """Seconds the GPU takes, waiting for the others included."""
        return self.compute + self.gradients + self.embeddings + self.norms

    @property
    def seconds(self) -> float:
        return max(self.gpu, self.feed, self.store)

    @property
    def breaks(self) -> str:
        """What takes most of a step: store or feed where the GPU waits for them, else the GPU's largest part."""
        slower = {name: seconds for name in ("feed", "store") if (seconds := getattr(self, name)) > self.gpu}
        parts = slower or {name: getattr(self, name) for name in ("compute", "gradients", "embeddings", "norms")}
        part = max(parts, key=lambda name: parts[name])
        return "rows" if part == "compute" and self.is_starved else part


def step(training: Training, gpus: int, batch: int, machine: Machine) -> Step:
    """One step of `batch` rows over all GPUs."""
    rows = batch / gpus
    nodes = math.ceil(gpus / machine.gpus_per_node)
    compute = max(training.least, rows / training.rate) + (rows / machine.gpu_views if machine.feed_on_gpu else 0.0)
    gradients = all_reduce(FLOAT * training.parameters, gpus, machine)
    gathered = FLOAT * training.features * batch
    embeddings = all_gather(gathered, gpus, machine) + all_reduce(gathered, gpus, machine) if training.features else 0.0
    norms = training.norms * 2 * all_reduce(2 * FLOAT * 512, gpus, machine)
    cores = nodes * machine.cores_per_node
    return Step(
        is_starved=rows / training.rate < training.least,
        compute=compute,
        gradients=max(0.0, gradients - HIDDEN * compute),
        embeddings=embeddings,
        norms=norms,
        feed=0.0 if machine.feed_on_gpu else batch / (cores * machine.feed_rate),
        store=0.0 if machine.cached else batch * machine.sample_bytes / machine.store_bandwidth,
    )


ADVICE = {
    "compute": "nothing: the GPUs are what takes the time",
    "rows": "a larger pretrain.batch_size (with lars), or fewer workers: each GPU has too few rows to be busy",
    "gradients": "a larger pretrain.batch_size (with lars), or fewer workers: each computes too little per exchange",
    "embeddings": "fewer workers, or a method that gathers none",
    "norms": "a backbone without batch norm, or pretrain.sync_batch_norm=false",
    "feed": "pretrain.augment_on=device, or more CPU nodes and pretrain.feed_workers",
    "store": "a cache on each node that holds the shards (the second epoch reads them there), or a faster store",
}


def rows(machine: Machine) -> list[dict[str, object]]:
    """Every training, number of GPUs and batch that leaves each GPU a row."""
    found: list[dict[str, object]] = []
    for training in TRAININGS:
        for gpus in GPUS:
            for batch in BATCHES:
                if batch < 2 * gpus:
                    continue
                made = step(training, gpus, batch, machine)
                alone = gpus * training.rate
                found.append(
                    {
                        "training": training.name, "gpus": gpus, "batch": batch, "rows_per_gpu": batch // gpus,
                        "samples_per_second": round(batch / made.seconds), "efficiency": batch / made.seconds / alone,
                        "breaks_first": made.breaks, "setting": ADVICE[made.breaks],
                        "milliseconds": {name: 1e3 * value for name, value in asdict(made).items()},
                    }
                )  # fmt: skip
    return found


def table(found: list[dict[str, object]]) -> str:
    """In Markdown."""
    heads = ("training", "GPUs", "batch", "samples/s", "of ideal", "breaks first")
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for row in found:
        cells = (row["training"], row["gpus"], row["batch"], row["samples_per_second"], f"{row['efficiency']:.0%}")
        lines.append(f"| {' | '.join(map(str, cells))} | {row['breaks_first']} |")
    return "\n".join(lines)


def main(changes: list[str]) -> None:
    """Print the tables and, last, all of it as JSON."""
    kinds = {field.name: type(field.default) for field in fields(Machine)}
    given = {key: kinds[key](float(value)) for key, value in (change.split("=") for change in changes)}
    machine = replace(Machine(), **given)
    found = {
        "first epoch, out of the store": rows(machine),
        "later epochs, out of each node's copy": rows(replace(machine, cached=True)),
    }
    for title, part in found.items():
        print(f"\n{title}\n\n{table(part)}")
    print(json.dumps({"machine": asdict(machine), "trainings": [asdict(each) for each in TRAININGS], "rows": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
