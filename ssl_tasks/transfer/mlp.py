"""A multilayer perceptron with one hidden layer, its weight decay chosen on val: scikit-learn's `MLPClassifier`.

Adam in float32, at most `STEPS` steps: that is 15 epochs of 50,000 rows, and 200 of few.
"""

from __future__ import annotations

import numpy as np

from ssl_tasks.transfer.base import FloatArray, Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_probabilities
from ssl_tasks.transfer.linear_probe import standardize
from ssl_tasks.transfer.random_forest import SEEDS

HIDDEN = 128
BATCH = 256
STEPS = 3000
MOST_EPOCHS = 200
DECAYS = (10.0, 0.1, 0.001)
"""scikit-learn's alpha, which it divides by the rows of a batch."""
DEFAULT = 0.1


def fit(task: Task) -> Prediction:
    """The network of the alpha that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.neural_network import MLPClassifier

    rows, batch = task.train.astype(np.float32), min(BATCH, len(task.labels))
    epochs = num_epochs(len(rows))

    def train(decay: float) -> Fitted:
        model = MLPClassifier(
            (HIDDEN,), alpha=decay, batch_size=batch, max_iter=epochs, random_state=task.seed % SEEDS
        ).fit(rows, task.labels)
        wide = from_probabilities(model, task.num_classes).scores
        return Fitted(lambda rows: wide(_single(rows)), {"converged": float(model.n_iter_ < epochs)})

    decay, fitted = choose(task, DECAYS, DEFAULT, train)
    return Prediction(fitted.scores(task.test), {"alpha": decay, **fitted.facts})


def num_epochs(rows: int) -> int:
    """Epochs that `STEPS` steps make, between 1 and `MOST_EPOCHS`."""
    return max(1, min(MOST_EPOCHS, STEPS // -(-rows // BATCH)))


def _single(rows: FloatArray) -> FloatArray:
    single: FloatArray = rows.astype(np.float32)
    return single


STRATEGY = Strategy("mlp", "a multilayer perceptron", fit, prepare=standardize, seeded=True)
