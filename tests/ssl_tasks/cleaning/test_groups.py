"""Pairs to sets, against a naive union; outliers against their definition."""

import numpy as np
import pyarrow as pa
import pytest

from ssl_tasks.cleaning.groups import connect, equal_pairs
from ssl_tasks.cleaning.outliers import LEAST_DEVIATION, Outliers


def test_equal_keys_are_paired_with_the_first_row_that_has_them() -> None:
    keys = np.array([7, 3, 7, 9, 3, 7, 1], np.uint64)
    rows, heads = equal_pairs(keys, np.arange(7))
    assert dict(zip(rows.tolist(), heads.tolist(), strict=True)) == {4: 1, 2: 0, 5: 0}
    rows, heads = equal_pairs(keys, np.array([1, 2, 4, 5]))
    assert dict(zip(rows.tolist(), heads.tolist(), strict=True)) == {4: 1, 5: 2}


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_those_of_a_naive_union(seed: int) -> None:
    random = np.random.default_rng(seed)
    left, right = random.integers(0, 200, (2, 120))
    parent = list(range(200))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        parent[root(a)] = root(b)
    found = connect([(left[:50], right[:50]), (left[50:], right[50:])])
    assert found.rows.tolist() == sorted({*left.tolist(), *right.tolist()})
    for i, a in enumerate(found.rows.tolist()):
        for j, b in enumerate(found.rows.tolist()):
            assert (found.labels[i] == found.labels[j]) == (root(a) == root(b))


def test_no_pairs_are_no_sets() -> None:
    nothing = np.zeros(0, np.int64)
    found = connect([(nothing, nothing)])
    assert len(found.rows) == len(found.sizes) == 0


def test_an_unusual_value_scores_its_distance_in_robust_deviations() -> None:
    random = np.random.default_rng(0)
    first = random.normal(0.5, 0.05, 5000).clip(0, 1)
    second = random.normal(0.3, 0.05, 5000).clip(0, 1)
    first[7], second[99] = 0.0, 1.0
    table = pa.table({"row": np.arange(5000), "a": pa.array(first, pa.float32()), "b": pa.array(second, pa.float32())})
    outliers = Outliers(["a", "b"])
    for start in range(0, 5000, 1300):
        outliers.see(table.slice(start, 1300))
    scored = outliers.score(table)
    assert scored["measure"][7].as_py() == "a"
    assert scored["measure"][99].as_py() == "b"
    scores = scored["score"].to_numpy()
    assert {7, 99} == set(np.argsort(scores)[-2:].tolist())
    squeezed = {name: np.sqrt(table[name].to_numpy().astype(float)) for name in "ab"}
    squeezed = {name: values / (1 + values) for name, values in squeezed.items()}
    naive = []
    for values in squeezed.values():
        median = np.median(values)
        naive.append(np.abs(values - median) / max(1.4826 * np.median(np.abs(values - median)), LEAST_DEVIATION))
    np.testing.assert_allclose(scores, np.max(naive, axis=0), rtol=0.1, atol=0.05)


def test_where_all_are_alike_nothing_is_unusual() -> None:
    table = pa.table({"row": np.arange(100), "a": pa.array(np.full(100, 0.5) + np.arange(100) * 1e-4, pa.float32())})
    outliers = Outliers(["a"])
    outliers.see(table)
    assert outliers.score(table)["score"].to_numpy().max() < 0.5
