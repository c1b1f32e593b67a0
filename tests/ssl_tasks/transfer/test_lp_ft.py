from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tests_digits as digits
import torch

from ssl_tasks.transfer.base import Task
from ssl_tasks.transfer.networks.heads import with_head
from ssl_tasks.transfer.networks.training import Schedule, Training
from ssl_tasks.transfer.probed import fit_probe
from ssl_tasks.transfer.strategies import linear_probe, lp_ft


def probed(task: Task) -> np.ndarray:
    """Scores of the strategy `linear_probe` on the same rows."""
    assert task.context is not None
    features = task.context.features
    assert features is not None
    rows = linear_probe.STRATEGY.prepare(features[task.context.train])(features)
    given = {"train": rows[task.train], "val": rows[task.val], "test": rows[task.test]}
    return linear_probe.fit(dataclasses.replace(task, **given)).scores


def before_the_first_step(task: Task) -> np.ndarray:
    assert task.context is not None
    network = with_head(task.context.encoder(), task.num_classes)
    start = lp_ft.start(network, fit_probe(task, task.context))
    return Training(task, Schedule(1, 64, [1e-3], 0.0), start, 1e-3).scores(task.test)


@pytest.mark.parametrize("labelled", [60, 400])
def test_it_starts_from_the_linear_probe(labelled: int) -> None:
    task = digits.task(digits.MLP, labelled=labelled)
    np.testing.assert_allclose(before_the_first_step(task), probed(task), atol=1e-5)


def test_it_starts_from_the_probe_of_two_classes_too() -> None:
    task = digits.task(digits.MLP)
    two = np.flatnonzero(np.isin(task.labels, [3, 8]))
    task = dataclasses.replace(task, train=task.train[two], labels=task.labels[two])
    np.testing.assert_allclose(before_the_first_step(task), probed(task), atol=1e-5)


def test_a_constant_feature_is_no_feature() -> None:
    task = digits.task(digits.MLP)
    assert task.context is not None
    features = task.context.features.copy()
    features[:, 3] = 2.5
    probe = fit_probe(task, dataclasses.replace(task.context, features=features))
    assert (probe.weight[:, 3] == 0).all()
    assert np.isfinite(probe.weight).all()


def test_first_steps_bend_the_features_less_than_those_of_fine_tuning() -> None:
    """The paper's point (section 3): a head that is right already sends small gradients to the features."""
    from ssl_tasks.transfer.networks.heads import fill
    from ssl_tasks.transfer.outputs import Outputs

    task = digits.task(digits.MLP, labelled=100)
    assert task.context is not None
    inputs = task.context.to_input(task.context.payload(task.train))
    probe = fit_probe(task, task.context)
    sizes = []
    for scale in (1.0, 0.0):  # the probe, and a fresh head as large as it
        network = with_head(digits.encoder(digits.MLP), 10)
        random = np.random.default_rng(0).normal(size=probe.weight.shape) * probe.weight.std()
        fill(network[1], scale * probe.weight + (1 - scale) * random, scale * probe.bias)
        Outputs().loss(network, inputs, torch.from_numpy(task.labels)).backward()
        sizes.append(sum(p.grad.square().sum().item() for p in network[0].parameters() if p.grad is not None))
    assert sizes[0] < 0.5 * sizes[1]
