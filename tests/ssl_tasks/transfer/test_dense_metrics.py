"""Metrics of masks and boxes against loops over pixels, scikit-learn and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torchvision.ops import box_iou

from ssl_tasks.transfer import kinds, located, segmented
from ssl_tasks.transfer.bootstrap import group_weights, replicates

K = 5
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, K - 1, (70, 6, 7)).astype(np.uint8)  # class 4 never is; it is predicted
TRUTH[RANDOM.random(TRUTH.shape) < 0.2] = 255
TRUTH[3] = 255
SAID = np.where(RANDOM.random(TRUTH.shape) < 0.6, np.minimum(TRUTH, K - 1), RANDOM.integers(0, K, TRUTH.shape))
SAID = SAID.astype(np.uint8)
COUNTED = segmented.counts(TRUTH, SAID, K)


def known(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, said = TRUTH[rows].ravel(), SAID[rows].ravel()
    return truth[truth != 255], said[truth != 255]


def test_counts_are_those_of_a_loop() -> None:
    expected = np.zeros((len(TRUTH), 3, K))
    for image, (truth, said) in enumerate(zip(TRUTH, SAID, strict=True)):
        for t, s in zip(truth.ravel().tolist(), said.ravel().tolist(), strict=True):
            if t != 255:
                expected[image, 0, t] += t == s
                expected[image, 1, t] += 1
                expected[image, 2, s] += 1
    assert np.array_equal(COUNTED, expected.reshape(len(TRUTH), -1))
    assert segmented.counts(TRUTH[:0], SAID[:0], K).shape == (0, 3 * K)


def test_scores_are_scikit_learns() -> None:
    found = kinds.of("segmentation").score(np.zeros(len(TRUTH)), COUNTED)
    truth, said = known(np.arange(len(TRUTH)))
    assert found["mean_iou"] == pytest.approx(jaccard_score(truth, said, average="macro"))
    assert found["pixel_accuracy"] == pytest.approx((truth == said).mean())
    recalls = [(said[truth == k] == k).mean() for k in range(K - 1)]
    assert found["mean_class_accuracy"] == pytest.approx(np.mean(recalls))
    each = jaccard_score(truth, said, average=None, labels=range(K))
    assert segmented.per_class(None, COUNTED) == pytest.approx({f"iou_{k}": value for k, value in enumerate(each)})


def test_a_replicate_is_the_score_of_its_images_repeated() -> None:
    groups = np.arange(len(TRUTH)) // 2
    nothing = np.zeros(0)
    (drawn,) = replicates(nothing, [(COUNTED, nothing, nothing)], groups, K, 6, seed=1, weigh=segmented.weighted)
    weights = np.concatenate(list(group_weights(groups, 6, 1)), axis=1)
    for column in range(6):
        rows = np.repeat(np.arange(len(TRUTH)), weights[:, column].astype(int))
        truth, said = known(rows)
        assert drawn["mean_iou"][column] == pytest.approx(jaccard_score(truth, said, average="macro"))
        assert drawn["pixel_accuracy"][column] == pytest.approx((truth == said).mean())


def test_images_without_a_known_pixel_score_nothing_and_break_nothing() -> None:
    found = segmented.weighted(None, COUNTED[3:4], *[np.zeros(0)] * 2, np.ones((1, 1)), K)
    assert {name: float(value[0]) for name, value in found.items()} == dict.fromkeys(segmented.METRICS, 0.0)


def boxes(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate([random.random((40, 2)), 0.05 + random.random((40, 2)) / 2], axis=1)


def test_box_overlap_is_torchvisions() -> None:
    first, second = boxes(0), boxes(1)
    second[:10] = first[:10] * [1, 1, 0.9, 1.2]
    first[20], second[21, 2] = [0.1, 0.1, 0, 0.5], 0

    def corners(given: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1))

    expected = box_iou(corners(first), corners(second)).diagonal().numpy()
    assert located.intersection_over_union(first, second) == pytest.approx(expected)
    assert expected[:10].min() > 0.5
    found = kinds.of("localization").score(second, first)
    assert found == pytest.approx({"mean_box_iou": expected.mean(), "iou_over_half": (expected > 0.5).mean()})
    weights = np.random.default_rng(2).integers(0, 3, (40, 2)).astype(float)
    weighed = located.weighted(second, first, *[np.zeros(0)] * 2, weights, 4)
    rows = np.repeat(np.arange(40), weights[:, 1].astype(int))
    assert weighed["mean_box_iou"][1] == pytest.approx(expected[rows].mean())
    assert weighed["iou_over_half"][1] == pytest.approx((expected[rows] > 0.5).mean())
