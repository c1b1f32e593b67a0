"""The index finds what comparing all pairs finds, and equal keys cost no square."""

import math
from typing import Any

import numpy as np
import pytest

from ssl_tasks.cleaning import near
from ssl_tasks.cleaning.groups import connect
from ssl_tasks.cleaning.near import find_near
from ssl_tasks.modalities.image import looks
from ssl_tasks.shards import Shards


def shards(values: np.ndarray, size: int = 700) -> Shards:
    parts = [values[first : first + size] for first in range(0, len(values), size)]
    return Shards([np.arange(len(part)) for part in parts], parts)


def prints(count: int, twins: int, closeness: float, seed: int = 0) -> np.ndarray:
    """Random prints; the last `twins` have a product of about `closeness` with the first ones."""
    random = np.random.default_rng(seed)

    def drawn(number: int) -> np.ndarray:
        values = random.normal(size=(number, looks.PRINT_SIZE))
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    base, others = drawn(count), drawn(twins)
    turned = closeness * base[:twins] + math.sqrt(1 - closeness**2) * others
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    return np.concatenate([base, turned]).astype(np.float16)


def search(values: np.ndarray, threshold: float, positions: Any = None) -> near.Near:
    where = np.arange(len(values)) if positions is None else np.asarray(positions)
    return find_near(shards(looks.signatures(values)), shards(values), where, threshold)


def brute(values: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    products = values.astype(np.float32) @ values.astype(np.float32).T
    first, second = np.nonzero(np.triu(products >= threshold, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize("closeness", [0.93, 0.97, 0.995])
def test_it_finds_the_pairs_that_comparing_all_finds(closeness: float) -> None:
    values = prints(6000, 300, closeness)
    found = search(values, 0.9)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    expected = brute(values, 0.9)
    assert len(expected) >= 290
    assert pairs <= expected
    assert len(pairs) >= 0.99 * len(expected)
    assert found.looked_at < 0.07 * 6300**2 / 2
    assert (found.similarity >= 0.9).all()
    assert (found.first < found.second).all()


def test_unlike_rows_are_no_pair_however_near_their_signatures() -> None:
    values = prints(2000, 200, 0.85)
    assert len(search(values, 0.9).first) == 0
    assert len(search(values, 0.8).first) > 190


def test_only_the_asked_positions_are_compared() -> None:
    values = prints(1000, 50, 0.99)
    found = search(values, 0.9, np.r_[10:20, 1000:1050])
    assert set(found.first.tolist()) == set(range(10, 20))


def test_many_equal_rows_cost_no_square() -> None:
    values = np.repeat(prints(3, 0, 1.0), 1000, axis=0)
    found = search(values, 0.9)
    assert found.looked_at <= near.TABLES * near.WINDOW * len(values)
    from ssl_tasks.cleaning.groups import connect

    assert connect([(found.first, found.second)]).sizes.tolist() == [1000, 1000, 1000]


def test_the_order_of_tables_and_shards_changes_nothing() -> None:
    values = prints(900, 90, 0.97)
    whole, cut = (
        search(values, 0.9),
        find_near(shards(looks.signatures(values), 50), shards(values, 50), np.arange(990), 0.9),
    )
    assert np.array_equal(whole.first, cut.first)
    assert np.array_equal(whole.second, cut.second)


@pytest.mark.parametrize(("count", "pairs"), [(0, 0), (1, 0), (2, 1)])
def test_few_rows(count: int, pairs: int) -> None:
    values = np.repeat(prints(1, 0, 1.0), 2, axis=0)
    assert len(search(values, 0.9, np.arange(count)).first) == pairs


def test_frames_of_one_scene_are_joined_by_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    base = prints(3, 0, 1.0)[[0] * 200 + [1] * 200 + [2] * 200].astype(np.float32)
    values = base + 0.005 * np.random.default_rng(1).normal(size=base.shape).astype(np.float32)
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    found = search(values, 0.9)
    assert len(found.first) <= near.PAIRS_A_ROW * len(values)
    joined = connect([(found.first, found.second)])
    assert joined.sizes.tolist() == [200, 200, 200]
    monkeypatch.setattr(near, "PAIRS_A_ROW", 10**6)
    whole = search(values, 0.9)
    assert len(whole.first) > 4 * near.WINDOW * 200
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) <= set(
        zip(whole.first.tolist(), whole.second.tolist(), strict=True)
    )
