"""A linear probe as weights of a head, for strategies that start from one or are taught by one.

It is `linear_probe`, and for numbers `ridge`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssl_tasks.transfer.base import Context, FloatArray, IntArray, Task
from ssl_tasks.transfer.one_vs_rest import OneVsRest
from ssl_tasks.transfer.outputs import Outputs
from ssl_tasks.transfer.rows import TrainRows
from ssl_tasks.transfer.strategies import linear_probe, ridge
from ssl_tasks.transfer.targets import REGRESSION

NEVER = -30.0
"""Logit of a class that has no labelled row, below all others."""


@dataclass(frozen=True)
class Probe:
    """logits (B, K) = features (B, D) @ weight.T + bias; of numbers, what a network of `Outputs` gives."""

    weight: FloatArray
    bias: FloatArray
    strength: float
    """The C (for numbers the alpha) that did best on val."""

    def scores(self, features: FloatArray) -> FloatArray:
        """(N, K) class probabilities of embeddings (N, D)."""
        from scipy.special import softmax

        found: FloatArray = softmax(features @ self.weight.T + self.bias, axis=1)
        return found


def fit_probe(task: Task, context: Context) -> Probe:
    """`linear_probe` on the embeddings of a task whose rows are positions, standardized as there."""
    features = context.features
    assert features is not None, "a probe needs the encoder's embeddings"
    of_train = TrainRows([features], context.train)
    mean = of_train.mean(axis=0)
    prepare = linear_probe.standardize(of_train)
    train, val, test = (prepare(features[positions]) for positions in (task.train, task.val, task.test))
    coef, intercept, classes, strength = _fitted(replace(task, train=train, val=val, test=test))
    inverse_D = prepare(mean + np.ones_like(mean))  # 1 / scale, 0 where a feature is constant
    weight, bias = coef * inverse_D, intercept - coef @ (mean * inverse_D)
    if len(classes) == len(weight) + 1:  # scikit-learn keeps the difference of two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight_KD = np.zeros((task.num_classes, len(mean)))
    bias_K = np.full(task.num_classes, NEVER)
    weight_KD[classes], bias_K[classes] = weight, bias
    return Probe(weight_KD, bias_K, strength)


def _fitted(task: Task) -> tuple[FloatArray, FloatArray, IntArray, float]:
    """Weights and biases for standardized features, which outputs they are of, and the strength."""
    every = np.arange(task.num_classes)
    if task.task == REGRESSION:
        alpha, fitted = ridge.choose(task)
        meaning = Outputs.of(task)
        weight, bias = fitted.model.coef_.reshape(1, -1), np.reshape(fitted.model.intercept_, 1)
        return weight / meaning.deviation, (bias - meaning.mean) / meaning.deviation, every, alpha
    model, strength, _ = linear_probe.choose(task)
    if isinstance(model, OneVsRest):
        nothing, unsure = np.zeros(task.train.shape[1]), np.log(model.shares / (1 - model.shares))
        weight = np.stack([nothing if one is None else one.coef_[0] for one in model.models])
        pairs = zip(model.models, unsure, strict=True)
        return weight, np.array([log if one is None else one.intercept_[0] for one, log in pairs]), every, strength
    return model.coef_, model.intercept_, model.classes_, strength
