import numpy as np
import pytest

from ssl_tasks.transfer import bootstrap
from ssl_tasks.transfer.bootstrap import (
    group_weights,
    holm,
    interval,
    p_value,
    replicates,
    replicates_needed,
    seed_weights,
)


def outcome(labels: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.where(right, labels, 1 - labels), np.where(right, 0.9, 0.1), np.full(len(labels), 0.9)


def accuracy_interval(groups: np.ndarray, ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Interval of the accuracy difference for (S, T) right answers of two methods."""
    labels = np.arange(len(groups)) % 2
    fits = [outcome(labels, right) for right in [*ours, *theirs]]
    drawn = [each["accuracy"] for each in replicates(labels, fits, groups, 2, 400, seed)]
    difference = np.stack(drawn[: len(ours)], axis=1) - np.stack(drawn[len(ours) :], axis=1)
    return interval(difference, seed_weights(len(ours), 400, seed))


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Two methods that are right with 0.8 and 0.7: 95% intervals of 120 data sets; at 0.95, 108 would be 3 sd off."""
    random = np.random.default_rng(0)
    covered = 0
    for number in range(120):
        ours, theirs = random.random((3, 150)) < 0.8, random.random((3, 150)) < 0.7
        low, high = accuracy_interval(np.arange(150), ours, theirs, seed=number)
        covered += low <= 0.1 <= high
    assert covered >= 108


def test_interval_is_no_wider_than_the_evidence_asks() -> None:
    """One seed: the width is that of the textbook formula for a difference of paired means."""
    random = np.random.default_rng(1)
    ours, theirs = random.random((1, 2000)) < 0.8, random.random((1, 2000)) < 0.7
    low, high = accuracy_interval(np.arange(2000), ours, theirs)
    deviation = (ours[0].astype(float) - theirs[0]).std() / np.sqrt(2000)
    assert 0.85 < (high - low) / (2 * 1.96 * deviation) < 1.15


def test_copies_in_a_group_are_no_further_evidence() -> None:
    random = np.random.default_rng(2)
    ours, theirs = random.random((2, 60)) < 0.8, random.random((2, 60)) < 0.6
    alone = accuracy_interval(np.arange(60), ours, theirs)
    copied = accuracy_interval(np.repeat(np.arange(60), 10), np.repeat(ours, 10, axis=1), np.repeat(theirs, 10, axis=1))
    assert np.allclose(alone, copied, atol=1e-12)
    apart = accuracy_interval(np.arange(600), np.repeat(ours, 10, axis=1), np.repeat(theirs, 10, axis=1))
    assert apart[1] - apart[0] < 0.8 * (copied[1] - copied[0])


def test_seeds_that_disagree_widen_the_interval() -> None:
    right = np.ones((4, 200), bool)
    split = right.copy()
    split[:2] = False
    low, high = accuracy_interval(np.arange(200), split, right)
    assert low == -1.0
    assert high == 0.0


def test_equal_answers_differ_by_nothing() -> None:
    right = np.random.default_rng(3).random((3, 50)) < 0.5
    assert accuracy_interval(np.arange(50), right, right) == (0.0, 0.0)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    whole = np.concatenate(list(group_weights(groups, 50, seed=1)), axis=1)
    assert whole.shape == (6, 50)
    assert (whole[0] == whole[1]).all()
    assert (whole[[0, 2, 3]].sum(axis=0) == 3).all()
    monkeypatch.setattr(bootstrap, "CELLS", 6 * 7)
    assert np.array_equal(np.concatenate(list(group_weights(groups, 50, seed=1)), axis=1), whole)


ONE = np.ones((999, 1))


def test_p_value_counts_replicates_beyond_nothing() -> None:
    values = np.concatenate([np.full(989, 0.2), np.full(10, -0.1)])[:, None]
    assert p_value(values, ONE) == pytest.approx(2 * 11 / 1000)
    assert p_value(-values, ONE) == pytest.approx(2 * 11 / 1000)
    assert p_value(np.full((999, 1), 0.2), ONE) == 2 / 1000  # the least it can be
    assert p_value(np.zeros((999, 1)), ONE) == 1.0


def test_p_value_agrees_with_the_interval() -> None:
    random = np.random.default_rng(0)
    for shift in np.linspace(0, 4, 40):
        values = random.normal(shift, 1, (999, 1))
        low, _ = interval(values, ONE)
        p = p_value(values, ONE)
        assert (p < 0.05) == (low > 0) or 0.045 < p < 0.055


def test_p_values_of_no_difference_are_even() -> None:
    """Of 200 data sets without a difference, 5% lie below 0.05: more than 22 would be over 3.5 sd."""
    random = np.random.default_rng(4)
    labels = np.zeros(100, int)
    small = 0
    for number in range(200):
        fits = [outcome(labels, random.random(100) < 0.7) for _ in range(2)]
        ours, theirs = (each["accuracy"] for each in replicates(labels, fits, np.arange(100), 2, 200, number))
        small += p_value((ours - theirs)[:, None], np.ones((200, 1))) < 0.05
    assert 1 <= small <= 22


def naive_holm(p_values: list[float]) -> list[float]:
    """The smallest level at which the step-down procedure rejects each, by trying levels."""
    levels = sorted({min(1.0, k * p) for p in p_values for k in range(1, len(p_values) + 1)} | {1.0})
    found = [1.0] * len(p_values)
    for level in reversed(levels):
        left = sorted(range(len(p_values)), key=lambda place: p_values[place])
        while left and p_values[left[0]] * len(left) <= level * (1 + 1e-12):
            found[left.pop(0)] = level
    return found


def test_holm_against_the_procedure() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    random = np.random.default_rng(5)
    for count in (1, 2, 7):
        p_values = (random.random(count) ** 3).round(3).tolist()
        assert holm(p_values) == pytest.approx(naive_holm(p_values))
    assert holm([]) == []


@pytest.mark.parametrize("comparisons", [1, 16, 200])
def test_replicates_suffice_for_the_correction(comparisons: int) -> None:
    least = 2 / (1 + replicates_needed(comparisons))
    assert holm([least] + [1.0] * (comparisons - 1))[0] < 0.05
