import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score, roc_auc_score
from tests_fits import fits

from ssl_tasks.report.calibration import bins, expected_error
from ssl_tasks.transfer import kinds
from ssl_tasks.transfer.metrics import ranked, weighted
from ssl_tasks.transfer.targets import CLASSIFICATION

score = kinds.of(CLASSIFICATION).score


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
    predicted = scores.argmax(axis=1)
    found = weighted(labels, predicted, likelihood, scores.max(axis=1), times[:, None].astype(float), 4)
    expected = score(np.repeat(labels, times), np.repeat(scores, times, axis=0))
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_that_of_the_reports_diagram(seed: int) -> None:
    labels, scores = made_up(3, 80, seed)
    predicted, confidence = scores.argmax(axis=1), scores.max(axis=1)
    diagram = bins(fits(labels, predicted, confidence=confidence))
    assert score(labels, scores)["calibration_error"] == pytest.approx(expected_error(diagram), abs=1e-12)


def test_calibration_error_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.85, 0.15], [0.4, 0.6]])
    found = score(np.array([0, 0, 1, 1]), scores)["calibration_error"]
    # (0.8, 0.9] holds 0.9 and 0.85, one of two right; (0.7, 0.8] holds 0.8, right; (0.5, 0.6] holds 0.6, right
    assert found == pytest.approx((2 * abs(0.875 - 0.5) + 0.2 + 0.4) / 4)


def naive_auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    return float(np.mean([(a > b) + 0.5 * (a == b) for a in positive for b in negative]))


def naive_average_precision(is_class: np.ndarray, values: np.ndarray) -> float:
    """Sum over thresholds of precision times the recall that is gained there."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(values), reverse=True):
        taken = values >= threshold
        reached = is_class[taken].sum() / is_class.sum()
        total += (reached - recall) * is_class[taken].mean()
        recall = reached
    return total


def test_ranked_metrics_against_loops() -> None:
    labels, scores = made_up(4, 60, 0)
    scores = scores.round(1)  # ties
    present = np.unique(labels)
    auroc = [naive_auroc(scores[labels == k, k], scores[labels != k, k]) for k in present]
    precision = [naive_average_precision(labels == k, scores[:, k]) for k in present]
    found = ranked(labels, scores)
    assert found["auroc"] == pytest.approx(np.mean(auroc), abs=1e-12)
    assert found["average_precision"] == pytest.approx(np.mean(precision), abs=1e-12)


def test_auroc_of_two_classes_is_the_usual_one() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 50)
    scores = random.dirichlet(np.ones(2), 50)
    assert ranked(labels, scores)["auroc"] == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=1e-12)
    assert ranked(labels * 0, scores) == {}
