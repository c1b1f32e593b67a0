"""Encoders on disk: one of ours without training it, and those that other programs leave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from tests_planted import commit
from torch import nn

from ssl_tasks.artifact import Artifact
from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import EncoderInfo, save_weights
from ssl_tasks.store import Output

QUICK = {
    "strategies": ["linear_probe", "last_layers"],
    "label_fractions": [1.0],
    "seeds": 1,
    "bootstrap": 100,
    "raw_input": False,
    "scratch": {"steps": 2, "learning_rates": [0.001]},
    "tune": {"steps": 2, "learning_rates": [0.001]},
}
SPLIT = {"fractions": {"train": 0.6, "val": 0.1, "test": 0.3}}


def picture(seed: int, side: int = 64) -> Image.Image:
    """Smooth shapes, different for every seed."""
    coarse = np.random.default_rng(seed).integers(30, 220, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def recipe(encoder: str, path: Path, **sections: Any) -> dict[str, Any]:
    """Sections that evaluate an encoder in a moment."""
    return {"adopt": {"encoder": encoder}, "ingest": {"path": str(path)}, "split": SPLIT, "transfer": QUICK, **sections}


def pretrained(data: Mapping[str, Artifact], backbone: str, method: str = "simclr", steps: int = 7) -> Artifact:
    """A pretrain artifact on the data stages up to `augment`, with weights drawn at random.

    Args:
        data: as `run_chain` gives it.
    """
    stats = data["normalize"].json("stats.json")
    shape = tuple(stats["shape"])
    like: dict[str, Any] = {"modality": stats["modality"], "input_shape": (shape[-1], *shape[:-1])}
    networks = {name: build_backbone(backbone, seed=seed, **like) for name, seed in (("encoder", 1), ("initial", 0))}
    info = EncoderInfo(
        method=method,
        backbone=backbone,
        stem="auto",
        stats=stats,
        num_features=int(networks["encoder"].num_features),  # type: ignore[arg-type]  # a number
        steps=steps,
        precision="fp32",
        seed=0,
        **like,
    )

    def write(out: Output) -> None:
        out.json("encoder.json", info.model_dump(mode="json"))
        for name in ("metrics.parquet", "health.parquet"):
            out.table(name, pa.table({"step": [1, 2], "loss": [2.0, 1.0]}))
        for name, network in networks.items():
            with out.file(f"{name}.safetensors") as path:
                save_weights(network, path)

    parents = [data[name] for name in ("normalize", "split", "augment")]
    return commit(data["split"].store, "pretrain", write, data["split"].measured["splits"]["train"], parents)


def timm_file(path: Path, name: str = "test_resnet", **options: Any) -> nn.Module:
    """A timm network at random weights with its classifier, in eval mode, and its state dict in a file."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name, pretrained=False, **options).eval()
    network.train()(torch.randn(4, options.get("in_chans", 3), 160, 160))  # norms of their own
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return network.eval()
