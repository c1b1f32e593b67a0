import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from ssl_tasks.transfer.metrics import score, weighted


def made_up(classes: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.dirichlet(np.ones(classes), rows)
    labels = random.integers(0, classes - 1, rows)  # the last class is predicted and never true
    return labels, scores


@pytest.mark.parametrize("seed", range(5))
def test_values_are_those_of_scikit_learn(seed: int) -> None:
    labels, scores = made_up(5, 60, seed)
    predicted = scores.argmax(axis=1)
    found = score(labels, scores)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-12)
    recall = recall_score(labels, predicted, labels=np.unique(labels), average="macro")
    assert found["balanced_accuracy"] == pytest.approx(recall, abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(labels, scores, labels=np.arange(5)), abs=1e-12)


def test_a_weight_counts_a_row_that_often() -> None:
    labels, scores = made_up(4, 40, 0)
    times = np.random.default_rng(1).integers(0, 4, 40)
    likelihood = scores[np.arange(40), labels]
    found = weighted(labels, scores.argmax(axis=1), likelihood, times[:, None].astype(float), 4)
    expected = score(np.repeat(labels, times), np.repeat(scores, times, axis=0))
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected, abs=1e-12)
