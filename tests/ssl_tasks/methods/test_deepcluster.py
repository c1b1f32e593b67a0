"""DeepCluster: pseudo-labels of planted clusters, none empty, rows found by position; two processes against one."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests_ranks import SHAPE, TinyConv, assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny
from torch import Tensor

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, TrainStats
from ssl_tasks.methods.deepcluster import (
    SPEC,
    DeepCluster,
    DeepClusterConfig,
    balanced_cross_entropy,
    cluster,
    without_empty,
)
from ssl_tasks.training.collectives import rank, world_size


def naive_loss(logits: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """Section 3.3 of arXiv 1807.05520: a row counts by the inverse size of its cluster, here as a share of the mean."""
    losses = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        shares = torch.exp(row) / sum(torch.exp(row))
        losses.append(-torch.log(shares[label]) * (sum(sizes) / len(sizes)) / sizes[label])
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_against_the_paper():
    labels, sizes = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([7, 1, 4])
    assert_same_loss_and_gradients(
        lambda x: balanced_cross_entropy(x, labels, sizes), lambda x: naive_loss(x, labels, sizes), [rows(5, 3, seed=0)]
    )


def test_over_all_rows_each_cluster_weighs_the_same():
    labels = torch.tensor([0] * 9 + [1])
    logits = torch.zeros(10, 2)
    assert balanced_cross_entropy(logits, labels, labels.bincount()).item() == pytest.approx(math.log(2))
    logits[:9, 0] = 50.0  # those of the large cluster are told: what is left is the small one's half
    assert balanced_cross_entropy(logits, labels, labels.bincount()).item() == pytest.approx(math.log(2) / 2)


def planted(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = np.arange(count) % 4
    return random.normal(size=(count, 6)) * 0.05 + 3 * np.eye(6)[truth], truth


def test_clusters_that_were_planted_are_found_and_equal_for_an_equal_seed():
    features, truth = planted(200)
    found = cluster(features, 4, 3, seed=1)
    assert found.dtype == np.int64
    assert len({(int(a), int(b)) for a, b in zip(truth, found, strict=True)}) == 4
    assert np.array_equal(found, cluster(features, 4, 3, seed=1))


@pytest.mark.parametrize("features", [np.zeros((12, 5)), np.repeat(np.eye(5)[:2], 6, axis=0)])
def test_no_cluster_is_empty_even_where_all_features_are_equal(features):
    assert set(cluster(features, 4, 256, seed=0).tolist()) == {0, 1, 2, 3}


def test_an_empty_cluster_takes_half_of_the_largest_on_one_side_of_a_plane():
    points = np.arange(10.0)[:, None]
    labels = np.array([0] * 8 + [1, 1])
    found = without_empty(labels, points, 3, seed=0)
    assert np.bincount(found).tolist() == [4, 2, 4]
    assert set(found[:4].tolist()) != set(found[4:8].tolist())
    assert len(set(found[:4].tolist())) == 1
    assert labels.tolist() == [0] * 8 + [1, 1]


@pytest.mark.parametrize(("field", "value"), [("num_clusters", 1), ("pca_dim", 0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        DeepClusterConfig(name="deepcluster", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_more_clusters_than_rows_are_refused_by_key():
    with pytest.raises(RequestError, match=r"pretrain\.method\.num_clusters: 50 clusters of 40 train rows"):
        tiny(SPEC, num_rows=40, num_clusters=50)


GAPS = torch.tensor([3, 4, 8, 15, 16, 23, 42, 99])


def with_gaps(num_clusters: int = 3, **options: int) -> DeepCluster:
    torch.manual_seed(0)
    method = SPEC.method(DeepClusterConfig(name="deepcluster", num_clusters=num_clusters, **options), TinyConv(), SHAPE)
    method.prepare(TrainStats(len(GAPS), torch.zeros(1, *SHAPE), GAPS))
    return method.double()


def gap_batch() -> Batch:
    """This rank's rows; positions in the order of a step, which is not that of the payload."""
    mine = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])[mine]
    return Batch([rows(8, *SHAPE, seed=1)[order]], GAPS[order], GAPS[order])


def test_rows_find_their_pseudo_labels_by_position():
    method, batch = with_gaps(), gap_batch()
    method.labels = torch.tensor([0, 1, 2, 0, 0, 1, 0, 2])
    labels = torch.tensor([1, 0, 2, 2, 1, 0, 0, 0])  # of positions 23, 3, 99, 8, 4, 42, 15, 16
    logits = method.classifier(method.backbone(batch.views[0]))
    expected = naive_loss(logits, labels, torch.tensor([4, 2, 2]))
    torch.testing.assert_close(method(batch, "main")["loss"], expected)


def test_an_epoch_begins_with_new_pseudo_labels_and_a_new_classifier():
    method = with_gaps()
    features = torch.zeros(8, 6)
    features[:3, 0], features[3:6, 1], features[6:, 2] = 1.0, 1.0, 1.0
    starts = []
    for _ in range(2):
        with torch.no_grad():
            method.classifier.bias += 1.0
        method.before_epoch(lambda: features)
        starts.append(method.classifier.weight.detach().clone())
        assert not method.classifier.bias.any()
    assert [len(method.labels[part].unique()) for part in (slice(0, 3), slice(3, 6), slice(6, 8))] == [1, 1, 1]
    assert len(method.labels.unique()) == 3
    assert not torch.equal(*starts)
    assert float(starts[0].std()) == pytest.approx(0.01, rel=0.6)


def test_a_clustering_may_hold_for_several_epochs():
    method = with_gaps(epochs_per_clustering=3)
    labels, weights, asked = [], [], []

    def embed() -> Tensor:
        asked.append(len(labels))
        return rows(8, 6, seed=len(labels)).float()

    for _ in range(7):
        method.before_epoch(embed)
        labels.append(method.labels.tolist())
        weights.append(method.classifier.weight.detach().clone())
    assert asked == [0, 3, 6]
    assert labels[0] == labels[1] == labels[2] != labels[3] == labels[5]
    assert [torch.equal(weights[0], weight) for weight in weights[:4]] == [True, True, True, False]


def test_a_method_that_is_loaded_in_mid_epoch_goes_on_with_the_same_labels():
    method, other = with_gaps(), with_gaps()
    method.before_epoch(lambda: rows(8, 6, seed=4).float())
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.labels, method.labels)
    assert torch.equal(other(gap_batch(), "main")["loss"], method(gap_batch(), "main")["loss"])
    for one in (method, other):
        one.before_epoch(lambda: rows(8, 6, seed=5).float())
    assert torch.equal(other.labels, method.labels)
    assert torch.equal(other.classifier.weight, method.classifier.weight)


def after_clustering() -> dict[str, Tensor]:
    """Labels and classifier; only rank 0 can embed."""
    method = with_gaps()

    def embed() -> Tensor:
        assert rank() == 0
        return rows(8, 6, seed=4).float()

    method.before_epoch(embed)
    return {"labels": method.labels, "weight": method.classifier.weight.detach(), "epoch": method.epoch}


def test_rank_0_clusters_for_all(run_ranks):
    alone = after_clustering()
    for ranks in run_ranks(after_clustering):
        assert all(torch.equal(value, ranks[key]) for key, value in alone.items())


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, num_clusters=5)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
