"""The peer's side of time_to_quality.py: runs in lightly-train's environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

BACKBONE = "resnet10t"
SIZE = 32


def pretrain(task: dict[str, Any]) -> None:
    """SimCLR on the train images, with the augmentations of ours."""
    import lightly_train

    lightly_train.pretrain(
        out=str(Path(task["out"]) / "peer"),
        data=str(Path(task["data"]) / "train"),
        model=f"timm/{BACKBONE}",
        method="simclr",
        epochs=task["epochs"],
        batch_size=256,
        accelerator="cpu",
        devices=1,
        precision=task["precision"],
        overwrite=True,
        method_args=task["method_args"],
        **task["optimizer"],
        transform_args={
            "image_size": (SIZE, SIZE),
            "random_resize": {"min_scale": 0.2, "max_scale": 1.0},
            "random_flip": {"horizontal_prob": 0.5, "vertical_prob": 0.0},
            "color_jitter": {
                "prob": 0.8,
                "strength": 1.0,
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.4,
                "hue": 0.1,
            },
            "random_gray_scale": 0.2,
            "gaussian_blur": None,
        },
    )
    lightly_train.export(
        out=str(Path(task["out"]) / "backbone.pt"),
        checkpoint=str(Path(task["out"]) / "peer" / "checkpoints" / "last.ckpt"),
        part="model",
        format="torch_state_dict",
    )


def embed(task: dict[str, Any]) -> None:
    """Pooled features and labels of the train and test images, as features.npz."""
    import timm
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Normalize, ToTensor

    network = timm.create_model(BACKBONE, num_classes=0)
    state = torch.load(Path(task["out"]) / "backbone.pt", weights_only=True)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not missing, missing
    assert all(name.startswith("fc.") for name in unexpected), unexpected
    network.eval()
    prepare = Compose([ToTensor(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    found: dict[str, Any] = {}
    for split in ("train", "test"):
        images = ImageFolder(str(Path(task["data"]) / split), prepare)
        features, labels = [], []
        with torch.inference_mode():
            for pixels, label in torch.utils.data.DataLoader(images, 256):
                features.append(network(pixels).numpy())
                labels.append(label.numpy())
        found |= {split: np.concatenate(features), f"{split}_labels": np.concatenate(labels)}
    np.savez(Path(task["out"]) / "features.npz", **found)


if __name__ == "__main__":
    {"pretrain": pretrain, "embed": embed}[sys.argv[2]](json.loads(sys.argv[1]))
