"""Artifacts of all stages up to embed on scenes with masks and boxes; the encoder has learnt masks of other scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tests_chain import run_chain
from tests_dense import dense_folder, scene
from tests_planted import commit
from torch import nn

from ssl_tasks.artifact import Artifact
from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import save_weights
from ssl_tasks.schema import STATS_FILE
from ssl_tasks.store import Output, Store
from ssl_tasks.transfer.dense import pixel_loss
from ssl_tasks.transfer.feature_maps import feature_map

BACKBONE = "test_resnet"
OTHERS = 5000
"""From here on scenes are not among those of the folder."""


def dense_made(store: Store, folder: Path, count: int = 60, side: int = 32) -> dict[str, Artifact]:
    """Artifacts by stage, `pretrain` and `embed` made by hand."""
    path = str(dense_folder(folder, count, side))
    recipe = {
        "ingest": {"path": path, "masks": True, "boxes": True, "boxes_file": "instances.json"},
        "clean": {"near_duplicates": None},
        "split": {"fractions": [0.5, 0.2, 0.3]},
        "normalize": {"size": side},
    }
    made = run_chain(store, recipe)
    stats = made["normalize"].json(STATS_FILE)
    like: dict[str, Any] = {"modality": "image", "input_shape": (3, side, side), "seed": 0}
    initial, learnt = (build_backbone(BACKBONE, **like) for _ in range(2))
    _learn(learnt, stats, side)
    info = {"method": "simclr", "backbone": BACKBONE, "stem": "auto", "modality": "image", "stats": stats}
    info |= {"input_shape": [3, side, side], "num_features": 96, "steps": 60, "precision": "fp32", "seed": 0}

    def write(out: Output) -> None:
        out.json("encoder.json", info)
        out.table("metrics.parquet", pa.table({"step": [1, 2], "loss": [2.0, 1.0]}))
        out.table("health.parquet", pa.table({"step": [1, 2], "rankme": [3.0, 4.0]}))
        for name, network in (("encoder", learnt), ("initial", initial)):
            with out.file(f"{name}.safetensors") as path:
                save_weights(network, path)

    parents = [made[name] for name in ("normalize", "split", "augment")]
    made["pretrain"] = commit(store, "pretrain", write, count, parents)
    made["embed"] = commit(store, "embed", lambda out: _embeddings(out, made["split"]), count, [made["pretrain"]])
    return made


def _embeddings(out: Output, split: Artifact) -> None:
    """Noise: what says where things are asks for none."""
    rows = split.table("splits.parquet")["row"]
    values = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4)
    for name in ("pretrained", "random_init"):
        out.table(f"embeddings/{name}.parquet", pa.table({"row": rows, "embedding": column}))


def _learn(backbone: nn.Module, stats: dict[str, Any], side: int, steps: int = 120) -> None:
    from ssl_tasks.modalities import modality

    torch.manual_seed(0)
    head = nn.LazyConv2d(3, 1)
    head(feature_map(backbone, torch.zeros(2, 3, side, side)))
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], 3e-3)
    for step in range(steps):
        scenes = [scene(OTHERS + 16 * step + number, side) for number in range(16)]
        images, masks = (torch.from_numpy(np.stack([one[place] for one in scenes])) for place in (0, 1))
        maps = feature_map(backbone, modality("image").to_input(images, stats))
        loss = pixel_loss(head(maps), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
