"""Our two sides of pretraining.py: the pretrain stage, and the same method without feed and Ray. Prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ssl_tasks.config import Config
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.simclr import SimCLR, SimCLRConfig
from ssl_tasks.stages.augment import AugmentConfig
from ssl_tasks.stages.clean import CleanConfig
from ssl_tasks.stages.ingest import IngestConfig
from ssl_tasks.stages.normalize import NormalizeConfig
from ssl_tasks.training.config import MethodChoice, OptimizerConfig, PretrainConfig

METHOD = SimCLRConfig(name="simclr", hidden_dim=2048)


def chain(task: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, float]]:
    """The store, and artifact and seconds of each stage; the data stages are made once and found again."""
    from ssl_tasks.materialize import materialize
    from ssl_tasks.stages import assign, augment, clean, ingest, normalize, pretrain, split
    from ssl_tasks.store import Store

    work = Path(task["work"])
    store = Store.open(str(work / "store"))
    source = IngestConfig(path=str(work / "files"))
    settings: dict[str, Config] = {
        "ingest": source,
        "clean": CleanConfig(near_duplicates=None),
        "normalize": NormalizeConfig(size=task["stored"]),
        "augment": AugmentConfig(size=None if task["size"] == task["stored"] else task["size"], **task["policy"]),
        "pretrain": PretrainConfig(
            method=MethodChoice(**METHOD.model_dump()),
            backbone=task["backbone"],
            stem="standard",
            batch_size=task["batch_size"],
            epochs=1000,
            max_steps=task["steps"],
            optimizer=OptimizerConfig(),
            health_checks=1,
            seed=task["seed"],
            **task.get("pretrain", {}),
        ),
    }
    made: dict[str, Any] = {}
    fingerprints: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for part in (ingest, clean, assign, normalize, split, augment, pretrain):
        found, began = part.STAGE, time.monotonic()
        config = settings.get(found.name) or found.config()
        own_source = ingest.source(source) if found is ingest.STAGE else None
        fingerprints[found.name] = found.fingerprint(config, fingerprints, own_source)
        result = materialize(store, found, config, made, fingerprint=fingerprints[found.name])
        made[found.name], seconds[found.name] = result.artifact, time.monotonic() - began
    return store, made, seconds


def stage(task: dict[str, Any]) -> dict[str, Any]:
    """The pretrain stage from files."""
    _, made, seconds = chain(task)
    measured = made["pretrain"].measured
    whole = seconds.pop("pretrain")
    return {
        "images_per_second": measured["rows_per_second"],
        "whole_seconds": whole,
        "data_stages_seconds": sum(seconds.values()),
        "choice": measured["choice"],
    }


def memory(task: dict[str, Any]) -> dict[str, Any]:
    """The method stepped on one batch of inputs that lies ready, in the memory layout that is faster."""
    autocast = task["precision"] == "bf16"
    speeds = {layout: stepped(task, layout, autocast=autocast) for layout in ("contiguous", "channels_last")}
    return {"images_per_second": max(speeds.values()), "layouts": speeds}


def stepped(
    task: dict[str, Any], layout: str, *, compiled: bool = False, autocast: bool = False, weights: str = "float32"
) -> float:
    """Images per second of forward, backward and optimizer without feed and Ray.

    Args:
        weights: their dtype; those of 16 bits have fp32 masters, which the optimizer moves.
    """
    import torch

    from ssl_tasks.backbones import build_backbone
    from ssl_tasks.training.optim import build_optimizer

    shape, dtype = (3, task["size"], task["size"]), getattr(torch, weights)
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    backbone = build_backbone(
        task["backbone"], modality="image", input_shape=shape, stem="standard", pool="network", seed=0, view_sides={}
    )
    method = SimCLR(METHOD, backbone, shape)
    masters = [weight.detach().clone() for weight in method.parameters()] if weights != "float32" else []
    method = method.to(dtype=dtype, memory_format=memory_format)
    moved = [{"params": masters}] if masters else method.param_groups("main")
    optimizer = build_optimizer(moved, OptimizerConfig())
    call: Any = torch.compile(method) if compiled else method
    views = [torch.randn(task["batch_size"], *shape).to(dtype, memory_format=memory_format) for _ in range(2)]
    rows = torch.arange(task["batch_size"])
    began = 0.0
    for step in range(task["steps"]):
        if step == task["warm_up"]:
            began = time.monotonic()
        method.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = call(Batch(views, rows, rows), "main")["loss"]
        loss.backward()
        for master, weight in zip(masters, method.parameters(), strict=bool(masters)):
            master.grad = None if weight.grad is None else weight.grad.float()
        optimizer.step()
        with torch.no_grad():
            for master, weight in zip(masters, method.parameters(), strict=bool(masters)):
                weight.copy_(master)
    return float((task["steps"] - task["warm_up"]) * task["batch_size"] / (time.monotonic() - began))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(stage(asked) if asked["side"] == "ours" else memory(asked)))
