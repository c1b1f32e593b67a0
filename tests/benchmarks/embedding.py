"""How fast the embed stage is beside its network on tensors that lie ready. Prints JSON.

    python tests/benchmarks/embedding.py [ROUNDS]        # 5

The 50,000 images of CIFAR-10 at 32 px, resnet10t, batch 256, both sets of weights: reading, normalizing, the network,
writing. The other side calls the same encoders on one batch as often, also for the untrained network's statistics.
Sides take turns; the share is the median over rounds. Data and cache are those of pretraining.py.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import uuid
from typing import Any

import numpy as np
import torch
from pretraining import CACHE, CONTESTS, POLICY, files
from pretraining_ours import chain

from ssl_tasks.encoder import load_encoder, ready, reload
from ssl_tasks.norms import NORM_ROWS, settle
from ssl_tasks.shards import Shards
from ssl_tasks.stages import embed
from ssl_tasks.store import Output


def stage(store: Any, made: dict[str, Any]) -> float:
    """Images per second of the stage as it is."""
    out = Output(store.uri, uuid.uuid4().hex * 2, "a", "embed")
    began = time.perf_counter()
    artifact = embed.STAGE.run(embed.EmbedConfig(), out, made["normalize"], made["split"], made["pretrain"])
    return float(2 * artifact.rows / (time.perf_counter() - began))


@torch.inference_mode()
def alone(made: dict[str, Any]) -> float:
    """Images per second of the two networks, on the first batch again and again; as many passes as the stage makes."""
    shards, batch_size = Shards.open(made["normalize"]), embed.EmbedConfig().batch_size
    payload = torch.from_numpy(shards.take(np.arange(batch_size)))
    num_batches, seconds = len(shards) // batch_size, 0.0
    encoder = ready(load_encoder(made["pretrain"]), torch.device("cpu"))
    for weights in ("encoder", "initial"):
        reload(encoder, made["pretrain"], weights)
        began = time.perf_counter()
        if weights == "initial":
            settle(encoder, lambda _: payload, np.arange(NORM_ROWS), batch_size)
        for _ in range(num_batches):
            encoder(payload).float().cpu()
        seconds += time.perf_counter() - began
    return 2 * num_batches * batch_size / seconds


def main(rounds: int = 5) -> None:
    """Measure in turn and print."""
    work = CACHE / "pretraining-small"
    work.mkdir(parents=True, exist_ok=True)
    files("small", work)
    store, made, _ = chain({**CONTESTS["small"], "work": str(work), "steps": 2, "policy": POLICY, "seed": 1})
    torch.set_num_threads(os.cpu_count() or 1)
    found = [(stage(store, made), alone(made)) for _ in range(rounds)]
    shares = [there / without for there, without in found]
    figures = {"stage": [round(there) for there, _ in found], "alone": [round(without) for _, without in found]}
    share = {"share": round(statistics.median(shares), 3), "shares": [round(one, 3) for one in shares]}
    print(json.dumps({"cores": os.cpu_count(), "images_per_second": figures, **share}, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
