from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.transfer.base import Context, Task
from ssl_tasks.transfer.options import Options, ScratchConfig
from ssl_tasks.transfer.strategies.from_scratch import fit


class Spy:
    """A context that notes what it was asked for."""

    def __init__(self, **scratch: object) -> None:
        random = np.random.default_rng(0)
        self.labels = random.integers(0, 2, 80)
        self.values = (random.normal(size=(80, 4)) + 3 * self.labels[:, None]).astype(np.float32)
        self.seen: list[list[int]] = []
        self.keys: list[Tensor] = []
        self.options = Options.model_validate({"scratch": {"steps": 8, "batch_size": 10, **scratch}})

    def augment(self, batch: Tensor, keys: Tensor) -> Tensor:
        self.seen.append([int(np.flatnonzero((self.values == row).all(axis=1))[0]) for row in batch.numpy()])
        self.keys.append(keys)
        return batch

    def build(self, seed: int) -> nn.Module:
        return build_backbone("mlp:8x1", modality="tabular", input_shape=(4,), seed=seed)

    def task(self) -> Task:
        context = Context(
            payload=lambda positions: torch.from_numpy(self.values[positions]),
            augment=self.augment,
            to_input=lambda batch: batch,
            build=self.build,
            networks={},
            train=np.arange(25),
            options=self.options,
        )
        rows = np.arange(80)
        train, val, test = rows[:25], rows[25:50], rows[50:]
        return Task(train, self.labels[:25], val, self.labels[25:50], test, 2, seed=0, context=context)


def test_learning_rate_is_chosen_on_val() -> None:
    task = Spy(learning_rates=[1e-7, 3e-2]).task()
    assert fit(task).chosen["learning_rate"] == 3e-2
    flipped = dataclasses.replace(task, val_labels=1 - task.val_labels)
    assert fit(flipped).chosen["learning_rate"] == 1e-7


def test_every_candidate_takes_a_quarter_and_the_best_goes_on() -> None:
    spy = Spy(learning_rates=[1e-3, 1e-2, 1e-1])
    fit(spy.task())
    assert len(spy.seen) == 3 * 2 + 6


def test_an_epoch_holds_no_row_twice_and_epochs_differ() -> None:
    spy = Spy(learning_rates=[1e-2])
    fit(spy.task())
    epochs = [spy.seen[first] + spy.seen[first + 1] for first in range(0, 8, 2)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert all(set(epoch) <= set(range(25)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_row_gets_another_view_at_every_step() -> None:
    spy = Spy(learning_rates=[1e-2], batch_size=64)
    fit(spy.task())
    assert all(sorted(rows) == list(range(25)) for rows in spy.seen)  # fewer rows than a batch: all of them
    assert len(torch.cat(spy.keys).unique()) == 8 * 25


def test_learning_is_reported() -> None:
    assert fit(Spy(learning_rates=[3e-2], steps=60).task()).chosen["train_accuracy"] > 0.95
    assert fit(Spy(learning_rates=[1e-9], steps=1).task()).chosen["train_accuracy"] < 0.95


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 1}, {"learning_rates": []}, {"learning_rates": [0]}])
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScratchConfig.model_validate(wrong)
