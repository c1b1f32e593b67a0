"""A multilayer perceptron with one hidden layer, its weight decay chosen on val: scikit-learn's `MLPClassifier`, for
numbers `MLPRegressor`, which gets them in deviations from their mean.

Adam in float32, at most `STEPS` steps: that is 15 epochs of 50,000 rows, and 200 of few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.base import ALL_FITTED, FloatArray, Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_numbers, from_probabilities
from ssl_tasks.transfer.one_vs_rest import train_each
from ssl_tasks.transfer.outputs import Outputs
from ssl_tasks.transfer.strategies.linear_probe import standardize
from ssl_tasks.transfer.strategies.random_forest import SEEDS
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL, REGRESSION

HIDDEN = 128
BATCH = 256
STEPS = 3000
MOST_EPOCHS = 200
DECAYS = (10.0, 0.1, 0.001)
"""scikit-learn's alpha, which it divides by the rows of a batch."""
DEFAULT = 0.1


def fit(task: Task) -> Prediction:
    """The network of the alpha that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    perceptron, meaning = MLPRegressor if task.task == REGRESSION else MLPClassifier, Outputs.of(task)
    targets = meaning.targets(task.labels) if task.task == REGRESSION else task.labels
    targets = targets.ravel() if task.task == REGRESSION else targets  # it takes no table of one column
    rows, batch = task.train.astype(np.float32), min(BATCH, len(task.labels))
    epochs = num_epochs(len(rows))

    def train(decay: float) -> Fitted:
        models: list[Any] = []

        def trained(targets: NDArray[Any]) -> Any:
            model = perceptron(
                hidden_layer_sizes=(HIDDEN,),
                alpha=decay,
                batch_size=batch,
                max_iter=epochs,
                random_state=task.seed % SEEDS,
            ).fit(rows, targets)
            models.append(model)
            return model

        one_class = task.task == MULTI_LABEL and task.num_classes == 1  # which all rows may have, or none
        wide = train_each(task.labels, trained).scores if one_class else _fitted(trained(targets), task, meaning).scores
        converged = all(model.n_iter_ < epochs for model in models)
        return Fitted(lambda rows: wide(_single(rows)), {"converged": float(converged)})

    decay, fitted = choose(task, DECAYS, DEFAULT, train)
    return Prediction(fitted.scores(task.test), {"alpha": decay, **fitted.facts})


def _fitted(model: Any, task: Task, meaning: Outputs) -> Fitted:
    if task.task == REGRESSION:
        return from_numbers(model, meaning.deviation, meaning.mean)
    if task.task == CLASSIFICATION:
        return from_probabilities(model, task.num_classes)
    return Fitted(lambda rows: model.predict_proba(rows).astype(np.float64))


def num_epochs(rows: int) -> int:
    """Epochs that `STEPS` steps make, between 1 and `MOST_EPOCHS`."""
    return max(1, min(MOST_EPOCHS, STEPS // -(-rows // BATCH)))


def _single(rows: FloatArray) -> FloatArray:
    single: FloatArray = rows.astype(np.float32)
    return single


STRATEGY = Strategy("mlp", "a multilayer perceptron", fit, prepare=standardize, tasks=ALL_FITTED, seeded=True)
