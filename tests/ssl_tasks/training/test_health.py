"""Health measures at their known values, the kNN probe against loops, and a watchdog that trips."""

import math

import numpy as np
import pytest
import torch

from ssl_tasks.errors import StageError
from ssl_tasks.training.health import Watchdog, alignment, feature_std, guesses, knn_accuracy, rankme, uniformity


def test_feature_std_is_one_on_the_sphere_and_zero_when_collapsed():
    generator = torch.Generator().manual_seed(0)
    assert feature_std(torch.randn(5000, 16, generator=generator)) == pytest.approx(1.0, abs=0.01)
    assert feature_std(torch.ones(50, 16) * torch.arange(1, 51)[:, None]) == pytest.approx(0.0, abs=1e-9)
    assert feature_std(torch.tensor([[1.0, 0.0], [-5.0, 0.0]])) == pytest.approx(math.sqrt(2) / 2)


def test_rankme_counts_directions():
    assert rankme(torch.eye(12)) == pytest.approx(12, rel=1e-4)
    assert rankme(torch.outer(torch.arange(1.0, 9), torch.arange(1.0, 6))) == pytest.approx(1, rel=1e-4)
    share = np.array([3, 4]) / 7
    expected = math.exp(-(share * np.log(share)).sum())
    assert rankme(torch.diag(torch.tensor([3.0, 4.0]))) == pytest.approx(expected, rel=1e-4)
    assert rankme(torch.zeros(4, 3)) == 0.0


def naive_knn(features, labels, k, temperature):
    hits = 0
    for i, anchor in enumerate(features):
        similar = [
            (float(anchor @ other / np.linalg.norm(anchor) / np.linalg.norm(other)), int(labels[j]))
            for j, other in enumerate(features)
            if j != i
        ]
        votes = {}
        for similarity, label in sorted(similar, reverse=True)[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp(similarity / temperature)
        hits += max(votes, key=votes.get) == labels[i]
    return hits / len(labels)


@pytest.mark.parametrize("k", [1, 5, 100])
def test_knn_against_loops(k):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    features = rng.normal(size=(60, 4)) + 0.8 * np.eye(4)[labels]
    found = knn_accuracy(torch.from_numpy(features), torch.from_numpy(labels), k=k)
    assert found == naive_knn(features, labels, k, 0.07)
    assert 0.33 < found < 1.0


def test_knn_over_more_than_one_block_of_rows():
    labels = torch.arange(2500) % 5
    features = torch.eye(5)[labels] + 0.1 * torch.randn(2500, 5, generator=torch.Generator().manual_seed(0))
    assert knn_accuracy(features, labels) == 1.0


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_watchdog_stops_at_a_loss_that_is_no_number(loss):
    watchdog = Watchdog()
    watchdog.check_loss(0, -3.0)
    with pytest.raises(StageError, match=r"step 7.*pretrain\.optimizer\.lr"):
        watchdog.check_loss(7, loss)


@pytest.mark.parametrize(("std", "rank"), [(0.001, 5.0), (0.9, 1.0)])
def test_watchdog_stops_after_several_collapsed_checks_in_a_row(std, rank):
    watchdog = Watchdog(patience=3)
    for good_std, good_rank in [(std, rank), (std, rank), (0.5, 9.0), (std, rank), (std, rank)]:
        watchdog.check_features(1, good_std, good_rank)
    resumed = Watchdog(patience=3, num_bad=watchdog.num_bad)
    for dog in (watchdog, resumed):
        with pytest.raises(StageError, match=r"collapsed at step 50 .*3 checks in a row"):
            dog.check_features(50, std, rank)


def test_watchdog_stops_after_several_checks_with_collapsed_projections_and_names_them():
    watchdog = Watchdog(patience=3)
    dead, alive = 0.5 * watchdog.min_projection_std, 2 * watchdog.min_projection_std
    for std in (dead, dead, alive, dead, dead):
        watchdog.check_projections(1, std)
    watchdog.check_features(1, 0.5, 9.0)  # healthy features do not excuse them
    resumed = Watchdog(patience=3, num_bad_projections=watchdog.num_bad_projections)
    for dog in (watchdog, resumed):
        with pytest.raises(
            StageError, match=r"projections have collapsed at step 50 \(projection_std .*3 checks in a row"
        ):
            dog.check_projections(50, dead)


def test_a_training_that_ends_where_guessing_is_says_so():
    chance = {"loss": 4.0, "teacher_entropy": 2.0}
    falls = [5.0] * 80 + [3.9] * 20
    assert guesses({"loss": falls, "teacher_entropy": [2.0] * 40 + [1.5] * 60}, chance) == []
    (told,) = guesses({"loss": falls, "teacher_entropy": [1.0] * 95 + [1.99] * 5, "other": [4.0]}, chance)
    assert told.startswith("teacher_entropy ended at 1.990, where guessing is (2.000): the method learned nothing.")
    (told,) = guesses({"loss": [3.0, 4.5]}, {"loss": 4.0})  # fewer steps than twenty: the last one
    assert told.startswith("loss ended at 4.500")


def test_watchdog_stops_at_features_that_are_no_numbers():
    with pytest.raises(StageError, match="NaN"):
        Watchdog().check_features(3, math.nan, 4.0)


def test_alignment_and_uniformity_against_loops():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = ([row / row.norm() for row in features] for features in (first, second))
    distances = [float(((x - y) ** 2).sum()) for x, y in zip(a, b, strict=True)]
    assert alignment(first, second) == pytest.approx(sum(distances) / 6)
    pairs = [math.exp(-2 * float(((a[i] - a[j]) ** 2).sum())) for i in range(6) for j in range(i)]
    assert uniformity(first) == pytest.approx(math.log(sum(pairs) / len(pairs)))
    assert alignment(first, 3 * first) == pytest.approx(0)
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0)
