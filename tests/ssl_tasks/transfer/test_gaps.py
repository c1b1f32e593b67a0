"""The gap between domains against loops written from the papers, and at its ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ssl_tasks.transfer.gaps import FACTORS, MOST_ROWS, a_distance, gap, mmd_squared


def rows(count: int, seed: int, shift: float = 0.0, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width))


def test_mmd_is_the_mean_over_pairs() -> None:
    source, target = rows(7, 0), rows(9, 1, shift=0.5)
    both = np.concatenate([source, target])
    distances = sorted(((a - b) ** 2).sum() for i, a in enumerate(both) for b in both[:i])
    median = distances[(len(distances) - 1) // 2]

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([math.exp(-((a - b) ** 2).sum() / (2 * factor * median)) for factor in FACTORS]))

    def within(some: np.ndarray) -> float:
        return float(np.mean([kernel(a, b) for i, a in enumerate(some) for j, b in enumerate(some) if i != j]))

    expected = within(source) + within(target) - 2 * np.mean([kernel(a, b) for a in source for b in target])
    found = mmd_squared(torch.from_numpy(source), torch.from_numpy(target))
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_descent_on_mmd_lowers_it_and_equal_rows_give_no_nan() -> None:
    source, target = torch.from_numpy(rows(20, 0)), torch.from_numpy(rows(20, 1, shift=1.0)).requires_grad_()
    before = mmd_squared(source, target)
    before.backward()  # type: ignore[no-untyped-call]  # as torch has it
    assert target.grad is not None
    assert mmd_squared(source, target - 0.5 * target.grad) < before
    same = torch.zeros(4, 3, requires_grad=True)
    mmd_squared(same, torch.zeros(5, 3)).backward()  # type: ignore[no-untyped-call]  # as torch has it
    assert same.grad is not None
    assert not same.grad.any()


def test_mmd_is_unbiased_for_equal_domains() -> None:
    values = [float(mmd_squared(*(torch.from_numpy(rows(30, 2 * n + k)) for k in (0, 1)))) for n in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_a_distance_is_near_0_for_equal_domains_and_2_for_separate_ones() -> None:
    alike = [a_distance(rows(400, 2 * n), rows(400, 2 * n + 1)) for n in range(5)]
    assert abs(np.mean(alike)) < 0.1
    assert a_distance(rows(400, 0), rows(400, 1, shift=5.0)) > 1.98
    middle = a_distance(rows(2000, 0, width=1), rows(2000, 1, shift=1.0, width=1))
    error = 0.5 * math.erfc(0.5 / math.sqrt(2))  # of the best threshold between two normals
    assert middle == pytest.approx(2 * (1 - 2 * error), abs=0.1)


def test_no_scale_of_a_feature_matters_and_rows_are_balanced() -> None:
    source, target = rows(60, 0), rows(90, 1, shift=0.7)
    scaled = gap(source * [1, 10, 0.1, 3, 1e4] + 5, target * [1, 10, 0.1, 3, 1e4] + 5)
    assert gap(source, target) == pytest.approx(scaled)
    many = rows(3 * MOST_ROWS, 2)
    assert gap(many, target) == gap(many[np.linspace(0, len(many) - 1, 90).astype(int)], target)
