"""The k nearest labelled rows by cosine similarity vote, one vote each, k chosen on val. Of numbers it is their mean.

The probe of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination"
(arXiv 1805.01978), without its weighting by similarity.
"""

from __future__ import annotations

import numpy as np

from ssl_tasks.transfer.base import ALL_FITTED, FloatArray, IntArray, Map, Prediction, Strategy, Task
from ssl_tasks.transfer.rows import Moments
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL

NEIGHBOURS = (1, 3, 5, 10, 20, 50)
DEFAULT = 5
CELLS = 1 << 22
"""Similarities held at once: 32 MiB, and as much again twice while the nearest are looked for."""


def fit(task: Task) -> Prediction:
    """Vote among the nearest rows; where val has no labels, `DEFAULT` of them."""
    candidates = [k for k in NEIGHBOURS if k <= len(task.labels)]
    if len(task.val_labels):
        val = _said(task, task.val, candidates)
        best = max(candidates, key=lambda k: (*task.val_score(val[k]), -k))
    else:
        best = min(DEFAULT, len(task.labels))
    scores = _said(task, task.test, [best])[best]
    return Prediction(scores, {"k": float(best)})


def _said(task: Task, rows: FloatArray, candidates: list[int]) -> dict[int, FloatArray]:
    if task.task == CLASSIFICATION:
        return _votes(task.train, task.labels, rows, candidates, task.num_classes)
    sums = _sums(task.train, task.labels.reshape(len(task.labels), -1).astype(np.float64), rows, candidates)
    if task.task == MULTI_LABEL:  # for and against each class, with one vote that is half of both
        return {k: (total + 0.5) / (k + 1.0) for k, total in sums.items()}
    return {k: total / k for k, total in sums.items()}


def unit_length(train: Moments) -> Map:
    """Rows over their length, so that a dot product is the cosine; a zero row stays zero."""
    return lambda rows: rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _votes(
    train: FloatArray, labels: IntArray, rows: FloatArray, candidates: list[int], num_classes: int
) -> dict[int, FloatArray]:
    """For each k (T, K) shares of the votes, with one vote spread over all classes so that none is impossible."""
    votes = {k: np.full((len(rows), num_classes), 1.0 / num_classes) for k in candidates}
    step = max(1, CELLS // len(train))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        near = _nearest(rows[block] @ train.T, max(candidates))
        index = np.arange(len(near))
        for rank in range(near.shape[1]):
            for k in candidates:
                if rank < k:
                    votes[k][block][index, labels[near[:, rank]]] += 1.0
    return {k: share / (k + 1.0) for k, share in votes.items()}


def _sums(train: FloatArray, targets_NM: FloatArray, rows: FloatArray, candidates: list[int]) -> dict[int, FloatArray]:
    """For each k (T, M) sums of the targets of the k nearest rows."""
    sums = {k: np.zeros((len(rows), targets_NM.shape[1])) for k in candidates}
    step = max(1, CELLS // len(train))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        near = _nearest(rows[block] @ train.T, max(candidates))
        so_far = np.zeros((len(near), targets_NM.shape[1]))
        for rank in range(near.shape[1]):
            so_far += targets_NM[near[:, rank]]
            if rank + 1 in sums:
                sums[rank + 1][block] = so_far
    return sums


def _nearest(similarity: FloatArray, count: int) -> IntArray:
    """(T, count) indices of the largest, in falling order; equal ones by index."""
    if count < similarity.shape[1]:
        top = np.sort(np.argpartition(-similarity, count - 1, axis=1)[:, :count], axis=1)
    else:
        top = np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    order = np.argsort(-np.take_along_axis(similarity, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


STRATEGY = Strategy("knn", "a k-nearest-neighbour vote", fit, prepare=unit_length, tasks=ALL_FITTED)
