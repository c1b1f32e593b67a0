"""A linear probe as weights of a head, for strategies that start from one or are taught by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssl_tasks.transfer import linear_probe
from ssl_tasks.transfer.base import Context, FloatArray, Task

NEVER = -30.0
"""Logit of a class that has no labelled row, below all others."""


@dataclass(frozen=True)
class Probe:
    """logits (B, K) = features (B, D) @ weight.T + bias."""

    weight: FloatArray
    bias: FloatArray
    strength: float
    """The C that did best on val."""

    def scores(self, features: FloatArray) -> FloatArray:
        """(N, K) class probabilities of embeddings (N, D)."""
        from scipy.special import softmax

        found: FloatArray = softmax(features @ self.weight.T + self.bias, axis=1)
        return found


def fit_probe(task: Task, context: Context) -> Probe:
    """`linear_probe` on the embeddings of a task whose rows are positions, standardized as there."""
    features = context.features
    assert features is not None, "a probe needs the encoder's embeddings"
    of_train = features[context.train]
    mean = of_train.mean(axis=0)
    prepare = linear_probe.standardize(of_train)
    train, val, test = (prepare(features[positions]) for positions in (task.train, task.val, task.test))
    model, strength, _ = linear_probe.choose(replace(task, train=train, val=val, test=test))
    inverse_D = prepare(mean + np.ones_like(mean))  # 1 / scale, 0 where a feature is constant
    weight, bias = model.coef_ * inverse_D, model.intercept_ - model.coef_ @ (mean * inverse_D)
    if len(model.classes_) == 2:  # scikit-learn keeps the difference of two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight_KD = np.zeros((task.num_classes, features.shape[1]))
    bias_K = np.full(task.num_classes, NEVER)
    weight_KD[model.classes_], bias_K[model.classes_] = weight, bias
    return Probe(weight_KD, bias_K, strength)
