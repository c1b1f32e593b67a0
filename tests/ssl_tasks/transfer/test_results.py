"""What the tables say of fits: which seeds they rest on, and how many comparisons are corrected for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ssl_tasks.transfer import results
from ssl_tasks.transfer.bootstrap import holm
from ssl_tasks.transfer.comparisons import compare
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.fits import Failure, Fit
from ssl_tasks.transfer.metrics import weighted
from ssl_tasks.transfer.summaries import summarize
from ssl_tasks.transfer.tables import FROM_SCRATCH, MAJORITY, RANDOM_INIT, RAW_INPUT

ROWS, CLASSES = 60, ["cat", "dog"]
TRUE = np.arange(ROWS) % 2


def fit(strategy: str, method: str, seed: int, wrong: int, fraction: float = 1.0) -> Fit:
    """A fit that calls `wrong` rows what they are not, from one that the seed names on."""
    off = np.roll(np.arange(ROWS) < wrong, 7 * seed)
    predicted, sure = np.where(off, 1 - TRUE, TRUE), np.full(ROWS, 0.9)
    likelihood = np.where(off, 0.1, 0.9)
    values = weighted(TRUE, predicted, likelihood, sure, np.ones((ROWS, 1)), 2)
    numbers = {name: float(value[0]) for name, value in values.items()}
    return Fit(strategy, method, fraction, 0, seed, 100, predicted, sure, likelihood, numbers, {})


def rows(task: str = "classification", labels: Any = TRUE) -> Labelled:
    every = np.arange(ROWS)
    return Labelled(pa.table({"row": every}), CLASSES, labels, every[:0], every[:0], every, every, task)


def told(fits: list[Fit]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Summary, and comparisons by accuracy."""
    table = compare(fits, "simclr", rows(), 200, 0)
    lines = summarize(fits, table, "simclr", "accuracy")
    return lines, [row for row in table.to_pylist() if row["metric"] == "accuracy"]


def test_values_and_their_differences_rest_on_the_same_seeds() -> None:
    """Seed 4 has no encoder, seed 0 no network from scratch, seed 1 no raw input; all errors differ."""
    fits = [fit("knn", "simclr", seed, seed) for seed in (0, 1, 2, 3)]
    fits += [fit("knn", RANDOM_INIT, seed, 10 + 2 * seed) for seed in range(5)]
    fits += [fit(FROM_SCRATCH, FROM_SCRATCH, seed, 20 + 3 * seed) for seed in (1, 2, 3, 4)]
    fits += [fit("knn", RAW_INPUT, seed, 25 + seed) for seed in (0, 2, 3, 4)]
    fits += [fit(MAJORITY, MAJORITY, seed, 30) for seed in range(5)]
    (line,), found = told(fits)
    assert line["num_seeds"] == 3
    assert line["pretrained"] == pytest.approx(1 - np.mean([1, 2, 3]) / ROWS)
    assert line[RANDOM_INIT] == pytest.approx(1 - np.mean([12, 14, 16]) / ROWS)
    assert line[FROM_SCRATCH] == pytest.approx(1 - np.mean([23, 26, 29]) / ROWS)
    for prefix, name in (("", RANDOM_INIT), ("scratch_", FROM_SCRATCH), ("majority_", MAJORITY)):
        assert line[f"{prefix}difference"] == pytest.approx(line["pretrained"] - line[name])
    assert line[RAW_INPUT] == pytest.approx(1 - np.mean([27, 28]) / ROWS)
    assert line["raw_difference"] == pytest.approx(np.mean([25, 25]) / ROWS)
    assert [key for key in line if key.endswith("num_seeds")] == ["num_seeds", "raw_num_seeds"]
    assert line["raw_num_seeds"] == 2
    sizes = {row["baseline"]: row["num_seeds"] for row in found}
    assert sizes == {RANDOM_INIT: 3, FROM_SCRATCH: 3, RAW_INPUT: 2, MAJORITY: 3}


def test_without_a_seed_in_common_nothing_is_said() -> None:
    fits = [fit("knn", "simclr", 0, 1), fit("knn", RANDOM_INIT, 1, 1), fit(FROM_SCRATCH, FROM_SCRATCH, 0, 1)]
    assert told(fits) == ([], [])


def test_what_trains_the_whole_network_is_compared_with_training_from_scratch_once() -> None:
    """Six comparisons of two strategies; the untrained network of one is its training from scratch again."""
    scratch = [fit(FROM_SCRATCH, FROM_SCRATCH, seed, 5 + seed) for seed in range(3)]
    fits = [fit("fine_tune", "simclr", seed, 1) for seed in range(3)]
    fits += [dataclasses.replace(one, strategy="fine_tune", method=RANDOM_INIT) for one in scratch]
    fits += [fit("knn", "simclr", seed, 2) for seed in range(3)]
    fits += [fit("knn", RANDOM_INIT, seed, 4) for seed in range(3)]
    fits += [*scratch, *(fit(MAJORITY, MAJORITY, seed, 30) for seed in range(3))]
    lines, found = told(fits)
    p = {(row["strategy"], row["baseline"]): row["p_value"] for row in found}
    corrected = {(row["strategy"], row["baseline"]): row["p_holm"] for row in found}
    assert len(p) == 6
    once = [key for key in p if key != ("fine_tune", RANDOM_INIT)]
    assert [corrected[key] for key in once] == holm([p[key] for key in once])
    assert max(holm([p[key] for key in once])) < max(holm(list(p.values())))
    assert corrected["fine_tune", RANDOM_INIT] == corrected["fine_tune", FROM_SCRATCH]
    assert lines[0]["p"] == lines[0]["scratch_p"]


def test_masks_of_test_rows_are_not_read_to_compare_fits() -> None:
    """Counts of pixels stand for them."""

    class Masks:
        def __getitem__(self, positions: np.ndarray) -> np.ndarray:
            assert not len(positions), "masks are read"
            return np.zeros((0, 4, 4), np.uint8)

    counts = np.tile([6.0, 6.0, 8.0, 8.0, 8.0, 8.0], (ROWS, 1))
    values = dict.fromkeys(("mean_iou", "pixel_accuracy", "mean_class_accuracy"), 0.5)
    fits = [
        Fit("segmentation", method, 1.0, 0, 0, 9, counts, np.zeros(0), np.zeros(0), values, {})
        for method in ("simclr", RANDOM_INIT)
    ]
    table = compare(fits, "simclr", rows("segmentation", Masks()), 100, 0)
    assert set(table["difference"].to_pylist()) == {0.0}


def test_failures_are_counted_among_all_fits() -> None:
    failure = Failure("knn", "simclr", 1.0, 0, 3, error="target b: ValueError: singular")
    (text,) = results.warnings(47, [failure])
    assert text.startswith("1 of 48 fits failed and are left out of means and comparisons; the first, knn on simclr")
    assert results.warnings(47, []) == []
