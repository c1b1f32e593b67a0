"""The peer's side of pretraining.py: runs in lightly-train's environment. Prints JSON in its last line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def pretrain(task: dict[str, Any]) -> dict[str, Any]:
    """SimCLR with the heads, loss, optimizer and augmentations of ours; times are taken at the start of each step."""
    import lightly_train
    from lightly_train._methods.simclr.simclr import SimCLR

    starts: list[float] = []
    original = SimCLR.training_step_impl

    def timed(self: Any, batch: Any, batch_idx: int) -> Any:
        starts.append(time.monotonic())
        return original(self, batch, batch_idx)

    SimCLR.training_step_impl = timed
    policy, began = task["policy"], time.monotonic()
    lightly_train.pretrain(
        out=str(Path(task["work"]) / "peer"),
        data=str(Path(task["work"]) / "files"),
        model=f"timm/{task['backbone']}",
        method="simclr",
        method_args={"hidden_dim": 2048, "output_dim": 128, "temperature": 0.1},
        epochs=1000,
        batch_size=task["batch_size"],
        accelerator="cpu",
        devices=1,
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}[task["precision"]],
        seed=task["seed"],
        overwrite=True,
        optim="adamw",
        optim_args={"lr": 0.001, "weight_decay": 0.01},
        trainer_args={"max_steps": task["steps"] + 1},
        transform_args={
            "image_size": (task["size"], task["size"]),
            "random_resize": dict(zip(("min_scale", "max_scale"), policy["crop_scale"], strict=True)),
            "random_flip": {"horizontal_prob": policy["flip_probability"], "vertical_prob": 0.0},
            "color_jitter": {
                "prob": policy["jitter_probability"],
                "strength": 1.0,
                **{name: policy[name] for name in ("brightness", "contrast", "saturation", "hue")},
            },
            "random_gray_scale": policy["gray_probability"],
            "gaussian_blur": None,
        },
    )
    taken = starts[task["steps"]] - starts[task["warm_up"]]
    steps = task["steps"] - task["warm_up"]
    return {
        "images_per_second": steps * task["batch_size"] / taken,
        "whole_seconds": time.monotonic() - began,
    }


if __name__ == "__main__":
    print(json.dumps(pretrain(json.loads(sys.argv[1]))))
