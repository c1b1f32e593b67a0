"""The baseline without pretraining: the same architecture, trained on the same labelled rows from fresh weights.

It sees views of the recipe's augmentation policy, takes a fixed number of AdamW steps under a cosine, and
chooses its learning rate on val: every candidate takes the first quarter of the steps, the best one goes on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from ssl_tasks.config import Config
from ssl_tasks.transfer.base import Context, FloatArray, IntArray, Prediction, Strategy, Task

if TYPE_CHECKING:
    from torch import Tensor

PROBE_SHARE = 0.25
EVAL_ROWS = 512
Rate = Annotated[float, Field(gt=0)]


class ScratchConfig(Config):
    """How the from-scratch baseline trains."""

    steps: int = Field(100, ge=1)
    """Optimizer steps of one fit, at every label budget."""
    batch_size: int = Field(64, ge=2)
    """Rows of a step, or all labelled rows where there are fewer."""
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1e-3, 3e-3, 1e-2)
    """Candidates; where val has no labels, the middle one."""
    weight_decay: float = Field(0.05, ge=0)


def fit(task: Task) -> Prediction:
    """Train a network on `task.train` positions and score the test positions.

    Returns:
        The scores, with the learning rate and the share of its labelled rows that the network got right at the
        end: well below 1 says that the steps were too few for a fair baseline.
    """
    assert task.context is not None, "from_scratch needs a context"
    scratch = task.context.scratch
    rates = sorted(scratch.learning_rates)
    if len(rates) == 1 or not len(task.val_labels):
        best = _Training(task, task.context, rates[len(rates) // 2])
    else:
        best = _race([_Training(task, task.context, rate) for rate in rates], task)
    best.run(scratch.steps)
    right = best.scores(task.train).argmax(axis=1) == task.labels
    chosen = {"learning_rate": best.rate, "train_accuracy": float(right.mean())}
    return Prediction(best.scores(task.test), chosen)


def _race(candidates: list[_Training], task: Task) -> _Training:
    first = max(1, math.ceil(PROBE_SHARE * candidates[0].context.scratch.steps))
    for candidate in candidates:
        candidate.run(first)
    return max(candidates, key=lambda candidate: (*task.val_score(candidate.scores(task.val)), -candidate.rate))


class _Training:
    """One network on its way: `run(step)` brings it there."""

    def __init__(self, task: Task, context: Context, rate: float) -> None:
        import torch
        from torch import nn

        from ssl_tasks.transfer.adamw import AdamW

        self.task, self.context, self.rate, self.step = task, context, rate, 0
        backbone = context.build(task.seed)
        width = int(backbone.num_features)  # type: ignore[arg-type]  # an int by contract
        # drawn by no generator: torch's global one may be seeding another fit's backbone at this moment
        head = nn.utils.skip_init(nn.Linear, width, task.num_classes)  # type: ignore[no-untyped-call]  # as torch has it
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.positions = torch.from_numpy(task.train)
        self.labels = torch.from_numpy(task.labels)
        device = context.payload(task.train[:1]).device
        # channels_last takes two thirds of the time for small convolutional networks on a CPU
        self.network = nn.Sequential(backbone, head).to(device).to(memory_format=torch.channels_last)
        self.optimizer = AdamW(self.network.parameters(), context.scratch.weight_decay)

    def run(self, until: int) -> None:
        """Take the steps from where it stands to `until`."""
        from torch.nn import functional as F

        from ssl_tasks.randomness import row_keys

        self.network.train()
        while self.step < until:
            chosen = self._batch(self.step)
            payload = self.context.payload(self.positions[chosen].numpy())
            keys = row_keys(self.task.seed, self.step, self.positions[chosen]).to(payload.device)
            logits = self.network(self._input(self.context.augment(payload, keys)))
            loss = F.cross_entropy(logits, self.labels[chosen].to(logits.device))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            self.optimizer.step(self.rate * 0.5 * (1.0 + math.cos(math.pi * self.step / self.context.scratch.steps)))
            self.step += 1

    def _batch(self, step: int) -> Tensor:
        """Indices of a step's rows: a new order every epoch, without the short batch at its end."""
        from ssl_tasks.randomness import bits, row_keys

        rows = len(self.positions)
        size = min(self.context.scratch.batch_size, rows)
        epoch, place = divmod(step, rows // size)
        order = bits(row_keys(self.task.seed, epoch, self.positions), "scratch order", 1)[:, 0].argsort(stable=True)
        return order[place * size : (place + 1) * size]

    def scores(self, positions: IntArray) -> FloatArray:
        """(N, K) class probabilities of unaugmented rows."""
        import torch

        self.network.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(positions), EVAL_ROWS):
                inputs = self._input(self.context.payload(positions[start : start + EVAL_ROWS]))
                parts.append(self.network(inputs).double().softmax(dim=1).cpu().numpy())
        return np.concatenate(parts)

    def _input(self, payload: Tensor) -> Tensor:
        import torch

        inputs = self.context.to_input(payload)
        return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


STRATEGY = Strategy("from_scratch", "training from scratch", fit, needs="payload", seeded=True)
