"""An encoder of scikit-learn's digits, and tasks on the digits that it has not seen, all in memory.

Rows 0 to 899 are what it was trained on, with their labels for want of time; the others are the task's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.transfer.base import Context, Task
from ssl_tasks.transfer.networks.heads import with_head
from ssl_tasks.transfer.networks.training import Schedule, Start, train
from ssl_tasks.transfer.options import Options

CLASSES = 10
SEEN, REST = np.arange(900), np.arange(900, 1797)
TEST = REST[500:]


@functools.cache
def digits() -> tuple[Tensor, np.ndarray]:
    """(1797, 1, 8, 8) pixels in [0, 1], and labels."""
    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 16.0, found.target.astype(np.int64)


MLP = "mlp:48x3"
"""On the pixels as columns of a table: where the kind of network does not matter, it is the fastest."""


def is_table(name: str) -> bool:
    return name.startswith("mlp")


def build(name: str, seed: int) -> nn.Module:
    if is_table(name):
        return build_backbone(name, modality="tabular", input_shape=(64,), seed=seed)
    return build_backbone(name, modality="image", input_shape=(1, 8, 8), seed=seed)


def _context(name: str, networks: Any, **options: Any) -> Context:
    pixels, _ = digits()
    return Context(
        payload=lambda positions: pixels[torch.from_numpy(positions)],
        augment=lambda batch, keys: batch,
        to_input=lambda batch: batch.flatten(1) - 0.5 if is_table(name) else batch - 0.5,
        build=lambda seed: build(name, seed),
        networks=networks,
        train=REST[:400],
        options=Options.model_validate(options),
        student=lambda seed: build("mlp:16x1", seed),
        classes=[f"digit {number}" for number in range(CLASSES)],
    )


@functools.cache
def weights(name: str) -> dict[str, Tensor]:
    """Of an encoder trained on `SEEN`."""
    _, labels = digits()
    task = Task(SEEN, labels[SEEN], SEEN[:0], labels[:0], TEST, CLASSES, seed=0, context=_context(name, {}))
    schedule = Schedule(150 if is_table(name) else 20, 64, [3e-3], 0.05)
    trained = train(task, schedule, lambda: Start(with_head(build(name, 0), CLASSES)))
    return dict(trained.network[0].eval().state_dict())  # type: ignore[operator]


def encoder(name: str) -> nn.Module:
    backbone = build(name, 0)
    backbone.load_state_dict(weights(name))
    return backbone.eval()


def task(name: str, labelled: int = 60, val: int = 100, seed: int = 0, **options: Any) -> Task:
    """A task on the trained encoder: `labelled` train rows, and `TEST` for test rows."""
    _, labels = digits()
    context = _context(name, {"trained": lambda: encoder(name)}, **options)
    backbone = encoder(name)
    with torch.no_grad():
        features = backbone(context.to_input(digits()[0])).double().numpy()
    context = Context(**{**vars(context), "method": "trained", "features": features})
    rows, of_val = REST[:labelled], REST[400 : 400 + val]
    return Task(rows, labels[rows], of_val, labels[of_val], TEST, CLASSES, seed=seed, context=context)


def accuracy(scores: np.ndarray) -> float:
    return float((scores.argmax(axis=1) == digits()[1][TEST]).mean())
