"""The stages transfer and report on tasks besides classification: planted signal, leaks, what is written and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from tests_chain import run_chain
from tests_planted import planted

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import semantic
from ssl_tasks.materialize import materialize
from ssl_tasks.stages import report, transfer
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.transfer import TransferConfig
from ssl_tasks.store import Store
from ssl_tasks.transfer import predictions, retrieved

SMALL: dict[str, Any] = {
    "label_fractions": [0.2, 1.0],
    "seeds": 5,
    "bootstrap": 200,
    "scratch": {"steps": 6, "learning_rates": [0.01]},
}


def numbers(classes: np.ndarray) -> list[float | None]:
    """1,000 grams more for each class, and noise; every seventh row has none."""
    found = 5000 + 1000 * classes + np.random.default_rng(1).normal(0, 50, len(classes))
    return [None if n % 7 == 0 else float(value) for n, value in enumerate(found)]


def several(classes: np.ndarray) -> list[list[str] | None]:
    """Two names for class 0, one for class 1, none for class 2; every seventh row is not labelled."""
    names = [["big", "red"], ["red"], []]
    return [None if n % 7 == 0 else names[number] for n, number in enumerate(classes)]


TARGETS: dict[str, dict[str, Any]] = {
    "regression": {"labels": None, "targets": {"number": numbers}},
    "multi_label": {"labels": None, "targets": {"labels": several}},
    "retrieval": {},
}


def run(made: dict[str, Artifact], stage: Stage, **config: Any) -> Artifact:
    parsed = stage.config.model_validate(config)
    parents = {name: made[name] for name in stage.inputs}
    fingerprint = stage.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    store = made["ingest"].store
    made[stage.name] = materialize(store, stage, parsed, parents, fingerprint=fingerprint, force=True).artifact
    return made[stage.name]


def transferred(store: Store, task: str, **config: Any) -> tuple[Artifact, dict[str, Artifact]]:
    made = planted(store, **TARGETS[task])
    return run(made, transfer.STAGE, **{**SMALL, "task": task, **config}), made


@pytest.mark.parametrize(("task", "metric"), [("regression", "rmse"), ("multi_label", "macro_f1")])
def test_planted_signal_is_found_against_all_baselines(store: Store, task: str, metric: str) -> None:
    found, _ = transferred(store, task)
    lines = found.measured["summary"]
    assert found.measured["failed"] == 0
    assert [(line["strategy"], line["label_fraction"]) for line in lines] == [
        (name, fraction) for name in TransferConfig(task=task).strategies for fraction in (0.2, 1.0)
    ]
    sign = -1 if metric == "rmse" else 1
    for line in lines:
        assert line["metric"] == metric
        assert ("scale" in line) == (metric == "rmse")
        for prefix, baseline in (("", "random_init"), ("raw_", "raw_input"), ("majority_", "majority")):
            assert line[f"{prefix}difference"] == pytest.approx(line["pretrained"] - line[baseline])
            low, high = sorted(sign * line[f"{prefix}{end}"] for end in ("low", "high"))
            assert 0 < low <= sign * line[f"{prefix}difference"] <= high
            assert line[f"{prefix}p"] < 0.05
        assert "scratch_difference" in line
        assert "val" in line


def test_numbers_are_in_their_unit_and_the_mean_is_the_least(store: Store) -> None:
    found, made = transferred(store, "regression")
    table = found.table("predictions.parquet")
    assert table.schema.equals(predictions.schema_of("regression"))
    line = next(line for line in found.measured["summary"] if line["label_fraction"] == 1.0)
    assert line["pretrained"] < 500 < line["majority"] < 1200
    assert line["scale"] == line["majority"]
    values = {
        tuple(row[key] for key in ("strategy", "method", "label_fraction", "seed", "metric")): row["value"]
        for row in found.table("metrics.parquet").to_pylist()
    }
    assert {key[-1] for key in values} == {"rmse", "mae", "r2"}
    fits: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in table.to_pylist():
        key = tuple(row[name] for name in ("strategy", "method", "label_fraction", "seed"))
        fits.setdefault(key, []).append((row["number"], row["predicted"]))
    for key, pairs in fits.items():
        truth, predicted = zip(*pairs, strict=True)
        assert values[(*key, "mae")] == pytest.approx(reference.mean_absolute_error(truth, predicted))
        assert values[(*key, "r2")] == pytest.approx(reference.r2_score(truth, predicted))
    splits = made["split"].table("splits.parquet").to_pylist()
    given = made["ingest"].table("rows.parquet")["number"].to_pylist()
    kept = [row["row"] for row in splits if row["split"] == "train" and given[row["row"]] is not None]
    (mean,) = {predicted for key, pairs in fits.items() if key[1:3] == ("majority", 1.0) for _, predicted in pairs}
    assert mean == pytest.approx(np.mean([given[row] for row in kept]))


def test_several_classes_are_written_by_name(store: Store) -> None:
    found, _ = transferred(store, "multi_label")
    table = found.table("predictions.parquet")
    assert table.schema.equals(predictions.schema_of("multi_label"))
    assert found.measured["class_names"] == ["big", "red"]
    assert {tuple(names) for names in table["labels"].to_pylist()} == {("big", "red"), ("red",), ()}
    for row in table.slice(0, 50).to_pylist():
        assert row["predicted"] == [n for n, p in zip(("big", "red"), row["probabilities"], strict=True) if p > 0.5]
    names = {row["metric"] for row in found.table("metrics.parquet").to_pylist()}
    assert names == {
        *("macro_f1", "micro_f1", "subset_accuracy", "hamming_loss", "log_loss", "mean_average_precision", "auroc"),
    }


def test_retrieval_ranks_the_budget_and_has_the_baselines_with_features(store: Store) -> None:
    found, made = transferred(store, "retrieval", labels_per_class=[2])
    lines = {(line["label_fraction"], line["labels_per_class"]): line for line in found.measured["summary"]}
    line = lines[1.0, 0]
    assert line["metric"] == "mean_average_precision"
    assert "from_scratch" not in line
    assert "majority" not in line
    assert line["pretrained"] > 0.85 > 0.5 > line["random_init"]
    assert line["low"] > 0 < line["raw_low"]
    splits = made["split"].table("splits.parquet").to_pylist()
    column = made["embed"].table("embeddings/pretrained.parquet")["embedding"].to_pylist()
    unit = np.array(column) / np.linalg.norm(column, axis=1, keepdims=True)
    train, test = ([row["row"] for row in splits if row["split"] == name] for name in ("train", "test"))
    label = np.array([row["label"] for row in splits])
    expected = [
        reference.average_precision_score(label[train] == label[query], unit[train] @ unit[query]) for query in test
    ]
    assert line["pretrained"] == pytest.approx(np.mean(expected))
    gallery = {r["value"] for r in found.table("choices.parquet").to_pylist() if r["name"] == "gallery"}
    assert 6.0 in gallery
    table = found.table("predictions.parquet")
    assert table.schema.equals(predictions.schema_of("retrieval"))
    assert set(retrieved.METRICS) < {*table.column_names}


@pytest.mark.parametrize("task", ["regression", "multi_label", "retrieval"])
def test_equal_inputs_give_equal_bytes_with_any_number_of_workers(store: Store, task: str) -> None:
    strategies = {"regression": ["ridge", "fine_tune"], "multi_label": ["linear_probe", "knn"]}.get(task, ["retrieval"])
    first, made = transferred(store, task, workers=1, strategies=strategies)
    again = run(made, transfer.STAGE, **{**SMALL, "task": task, "workers": 3, "strategies": strategies})
    assert again.manifest.data_checksum == first.manifest.data_checksum


def changed_on_test(make: Callable[[np.ndarray], Any], other: Callable[[Any], Any]) -> Callable[[np.ndarray], Any]:
    """The same targets on train and val, others on test; the splits are those of `planted`."""

    def targets(classes: np.ndarray) -> Any:
        random = np.random.default_rng(0)
        random.integers(0, 3, len(classes))
        splits = random.choice(["train", "val", "test"], len(classes), p=[0.5, 0.15, 0.35])
        return [
            other(value) if split == "test" and value is not None else value
            for value, split in zip(make(classes), splits, strict=True)
        ]

    return targets


@pytest.mark.parametrize(
    ("task", "column", "targets", "said"),
    [
        ("regression", "number", changed_on_test(numbers, lambda value: -3 * value), "predicted"),
        (
            "multi_label",
            "labels",
            changed_on_test(several, lambda names: [] if names else ["big"]),
            "probabilities",
        ),
    ],
)
def test_other_targets_of_test_rows_change_no_fit(
    tmp_path: Path, task: str, column: str, targets: Callable[[np.ndarray], Any], said: str
) -> None:
    strategies = ["ridge", "knn", "fine_tune", "random_forest"]
    TARGETS["changed"] = {"labels": None, "targets": {column: targets}}
    results = []
    for number, planting in enumerate((task, "changed")):
        made = planted(Store.open(str(tmp_path / str(number))), **TARGETS[planting])
        results.append(
            run(made, transfer.STAGE, **{**SMALL, "task": task, "strategies": strategies, "raw_input": False})
        )
    del TARGETS["changed"]
    first, second = (result.table("predictions.parquet") for result in results)
    assert first[said].equals(second[said])
    truth = {"regression": "number", "multi_label": "labels"}[task]
    assert not first[truth].equals(second[truth])
    assert results[0].table("choices.parquet").equals(results[1].table("choices.parquet"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "ranking"}, "task"),
        (
            {"task": "regression", "strategies": ["linear_probe"]},
            r"linear_probe cannot do transfer\.task=regression; use ridge \(there are also .*fine_tune",
        ),
        ({"task": "multi_label", "strategies": ["rbf_svm"]}, "rbf_svm cannot do"),
        ({"task": "regression", "strategies": ["distill_logits"]}, "distill_logits cannot do"),
        ({"strategies": ["retrieval"]}, r"retrieval cannot do transfer\.task=classification"),
        ({"task": "retrieval", "strategies": ["knn"]}, r"use retrieval \[type"),
        ({"task": "regression", "metric": "accuracy"}, "expected rmse, mae, r2"),
        ({"metric": "rmse"}, "expected accuracy, balanced_accuracy, macro_f1"),
        ({"task": "multi_label", "labels_per_class": [1]}, "labels_per_class.*use label_fractions"),
        ({"task": "regression", "labels_per_class": [1]}, "labels_per_class.*use label_fractions"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)" + message):
        TransferConfig.model_validate(wrong)


def test_a_task_brings_its_strategies_and_metric_and_says_so_in_the_fingerprint() -> None:
    assert semantic(TransferConfig()) == {}
    assert semantic(TransferConfig(task="classification")) == {}
    numbers_ = TransferConfig(task="regression")
    assert (numbers_.strategies, numbers_.metric) == (("ridge", "knn"), "rmse")
    assert semantic(numbers_) == {"task": "regression", "strategies": ["ridge", "knn"], "metric": "rmse"}
    assert TransferConfig(task="multi_label").strategies == ("linear_probe", "knn")
    assert TransferConfig(task="retrieval", metric="recall_at_5").metric == "recall_at_5"
    assert TransferConfig.model_validate(numbers_.model_dump()) == numbers_


@pytest.mark.parametrize(
    ("task", "said", "not_said"),
    [
        (
            "regression",
            ["RMSE", "Predicted and true numbers", "the mean of the labelled numbers", "R2"],
            ["points", "%, "],
        ),
        (
            "multi_label",
            ["macro F1", "Hamming loss", "Precision", "how frequent each class is", "big"],
            ["Where it errs"],
        ),
        ("retrieval", ["mean average precision", "Recall@10", "raw input without an encoder"], ["From scratch took"]),
    ],
)
def test_the_report_says_what_was_measured(store: Store, task: str, said: list[str], not_said: list[str]) -> None:
    _, made = transferred(store, task)
    found = run(made, report.STAGE)
    html = found.path("report.html").read_text(encoding="utf-8")
    verdict = found.json("verdict.json")
    assert verdict["outcome"] in ("helped", "partly")
    for text in said:
        assert text in html or text in verdict["sentence"]
    for text in not_said:
        assert text not in verdict["sentence"] if text in ("points", "%, ") else text not in html


def pictures_with_numbers(folder: Path) -> Path:
    """96 small pictures and a list of them: how bright the left half is, and what is to be seen."""
    from PIL import Image

    random = np.random.default_rng(0)
    lines = ["file_name,light,seen"]
    for number in range(96):
        pixels = random.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        light = int(random.integers(0, 190))
        pixels[:, :4] += np.uint8(light)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        seen = ";".join(
            name for name, there in (("bright", light > 90), ("dim", light < 60), ("odd", number % 2)) if there
        )
        lines.append(f"{number}.png,{light},{seen or ';'}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


@pytest.mark.parametrize(("task", "column"), [("regression", "number"), ("multi_label", "labels")])
def test_from_a_list_of_pictures_to_the_data_of_a_transfer(
    store: Store, tmp_path: Path, task: str, column: str
) -> None:
    """Ingest to split through the stages; the encoder's part is made by hand, as training needs Ray."""
    from ssl_tasks.transfer import data

    path = pictures_with_numbers(tmp_path)
    ingest = {"path": str(path), f"{column}_column": {"number": "light", "labels": "seen"}[column]}
    made = run_chain(
        store, {"ingest": ingest, "clean": {"near_duplicates": None}, "normalize": {"size": 8}}, until="split"
    )
    measured = made["ingest"].measured
    assert measured[{"number": "numbered", "labels": "multi_labelled"}[column]] == 96
    found = data.load(made["split"], task=task)
    assert len(found.train) + len(found.val) + len(found.test) == 96
    if task == "multi_label":
        assert found.classes == ["bright", "dim", "odd"]
    else:
        given = made["ingest"].table("rows.parquet")["number"].to_numpy()
        np.testing.assert_array_equal(found.labels, given[found.splits["row"].to_numpy()])


def test_numbers_of_arrays_need_no_column(store: Store, tmp_path: Path) -> None:
    """What stands for labels in a NumPy file, and is all numbers, is predicted as such."""
    from ssl_tasks.transfer import data

    random = np.random.default_rng(0)
    images, y = random.integers(0, 256, (40, 8, 8, 3), np.uint8), random.normal(size=40).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=images, y=y)
    recipe = {"ingest": {"path": str(tmp_path / "data.npz")}, "clean": {"near_duplicates": None}}
    made = run_chain(store, {**recipe, "normalize": {"size": 8}}, until="split")
    found = data.load(made["split"], task="regression")
    np.testing.assert_array_equal(found.labels, y[found.splits["row"].to_numpy()].astype(np.float64))
