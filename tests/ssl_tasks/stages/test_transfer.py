from __future__ import annotations

import dataclasses
import inspect
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests_planted import planted

from ssl_tasks import transfer as strategies
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.materialize import materialize
from ssl_tasks.policy import Policy, Views
from ssl_tasks.schema import TRANSFER
from ssl_tasks.shards import Shards
from ssl_tasks.stages import transfer as stage
from ssl_tasks.stages.transfer import STAGE, TransferConfig
from ssl_tasks.store import Store
from ssl_tasks.transfer import context as context_module
from ssl_tasks.transfer import data, evaluate, raw
from ssl_tasks.transfer.base import Task
from ssl_tasks.transfer.rows import TrainRows
from ssl_tasks.transfer.tables import COMPARISONS, PREDICTIONS

SMALL: dict[str, Any] = {
    "label_fractions": [0.1, 1.0],
    "seeds": 3,
    "bootstrap": 200,
    "scratch": {"steps": 6, "learning_rates": [0.01]},
}


def transfer(made: dict[str, Artifact], **config: Any) -> Artifact:
    parsed = TransferConfig.model_validate({**SMALL, **config})
    parents = {name: made[name] for name in STAGE.inputs}
    fingerprint = STAGE.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    store = made["ingest"].store
    return materialize(store, STAGE, parsed, parents, fingerprint=fingerprint, force=True).artifact


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    return planted(store)


def test_planted_signal_is_found(made: dict[str, Artifact]) -> None:
    found = transfer(made)
    lines = found.measured["summary"]
    assert [(line["strategy"], line["label_fraction"]) for line in lines] == [
        (name, fraction) for name in ("linear_probe", "knn") for fraction in (0.1, 1.0)
    ]
    for line in lines:
        assert line["pretrained"] > 0.85
        assert line["random_init"] < 0.5
        assert 0.2 < line["low"] <= line["difference"] <= line["high"]
        assert line["difference"] == pytest.approx(line["pretrained"] - line["random_init"])
        assert line["scratch_difference"] == pytest.approx(line["pretrained"] - line["from_scratch"])


def test_equal_embeddings_differ_by_nothing(store: Store) -> None:
    for line in transfer(planted(store, equal=True)).measured["summary"]:
        assert (line["difference"], line["low"], line["high"]) == (0.0, 0.0, 0.0)


def test_tables_hold_every_fit_and_agree(made: dict[str, Artifact]) -> None:
    found = transfer(made)
    metrics, predictions = found.table("metrics.parquet"), found.table("predictions.parquet")
    comparisons = found.table("comparisons.parquet")
    assert metrics.schema.equals(TRANSFER)
    assert predictions.schema.equals(PREDICTIONS)
    assert comparisons.schema.equals(COMPARISONS)
    # strategies x encoders, scratch and majority; fractions, seeds, metrics
    assert metrics.num_rows == (2 * 3 + 2) * 2 * 3 * 7
    assert comparisons.num_rows == 2 * 2 * 4 * 5  # strategies, fractions, baselines, metrics with an interval
    assert set(metrics["method"].to_pylist()) == {"scarf", "random_init", "raw_input", "from_scratch", "majority"}
    assert found.table("failures.parquet").num_rows == 0
    values = {
        tuple(row[key] for key in ("strategy", "method", "label_fraction", "seed")): row["value"]
        for row in metrics.to_pylist()
        if row["metric"] == "accuracy"
    }
    right: dict[tuple[Any, ...], list[bool]] = {}
    for row in predictions.to_pylist():
        key = tuple(row[name] for name in ("strategy", "method", "label_fraction", "seed"))
        right.setdefault(key, []).append(row["label"] == row["predicted"])
        assert (row["confidence"] == row["likelihood"]) or row["label"] != row["predicted"]
    assert {key: np.mean(answers) for key, answers in right.items()} == pytest.approx(values)
    splits = made["split"].table("splits.parquet").to_pylist()
    assert set(predictions["row"].to_pylist()) == {row["row"] for row in splits if row["split"] == "test"}


def test_equal_inputs_give_equal_bytes_with_any_number_of_workers(made: dict[str, Artifact]) -> None:
    first = transfer(made, workers=1).manifest.data_checksum
    assert transfer(made, workers=3).manifest.data_checksum == first
    assert transfer(made, seed=1).manifest.data_checksum != first


def test_draws_of_a_fraction_differ_between_seeds_and_not_at_all_labels(made: dict[str, Artifact]) -> None:
    rows = transfer(made, strategies=["knn"]).table("metrics.parquet").to_pylist()
    few, every = (
        {r["value"] for r in rows if (r["method"], r["label_fraction"], r["metric"]) == ("scarf", fraction, "log_loss")}
        for fraction in (0.1, 1.0)
    )
    assert len(few) == 3
    assert len(every) == 1


def test_no_strategies_give_empty_tables(store: Store) -> None:
    found = transfer(planted(store, labels=None), strategies=[])
    assert found.measured["summary"] == []
    assert "strategies" in found.measured["skipped"]
    assert found.table("metrics.parquet").schema.equals(TRANSFER)
    assert found.rows == found.table("predictions.parquet").num_rows == 0


@pytest.mark.parametrize(("labels", "message"), [(None, "no labels"), (("a", "a", "a"), "one class only")])
def test_too_few_labels_are_refused(store: Store, labels: Any, message: str) -> None:
    with pytest.raises(RequestError, match=rf"{message}.*transfer.strategies=\[\]"):
        transfer(planted(store, labels=labels))


def test_seeds_may_be_a_number() -> None:
    assert TransferConfig.model_validate({"seeds": 3}).seeds == (0, 1, 2)
    assert TransferConfig.model_validate({"seeds": [4, 2, 4]}).seeds == (4, 2)


def test_order_of_fractions_does_not_matter() -> None:
    assert TransferConfig.model_validate({"label_fractions": [1, 0.1, 0.1]}).label_fractions == (0.1, 1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strategies": ["magic"]}, "no transfer strategy 'magic'"),
        ({"strategies": ["from_scratch"]}, "runs as a baseline"),
        ({"label_fractions": [0.0]}, "label_fractions.0"),
        ({"label_fractions": [1.5]}, "label_fractions.0"),
        ({"label_fractions": []}, "label_fractions"),
        ({"labels_per_class": [0]}, "labels_per_class.0"),
        ({"labels_per_class": [1.5]}, "labels_per_class.0"),
        ({"slow_rows": 1}, "slow_rows"),
        ({"strategies": ["majority"]}, "no transfer strategy 'majority'"),
        *(({"seeds": number}, "a number of seeds is between 1 and 1,000") for number in (0, -3, 2_000_000_000)),
        ({"seeds": [-1]}, "seeds.0"),
        ({"metric": "log_loss"}, "metric"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransferConfig.model_validate(wrong)


def test_versions_are_those_of_the_strategies_that_run() -> None:
    versions = STAGE.versions(TransferConfig(strategies=("knn",)))
    assert set(versions) == {"transfer", "transfer.knn", "transfer.from_scratch"}
    assert set(STAGE.versions(TransferConfig(strategies=()))) == {"transfer"}


def test_a_network_of_fixed_size_learns_from_scratch_on_views_of_another(
    store: Store, shapes: Path, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {"ingest": {"path": str(shapes)}, "clean": {"near_duplicates": None}, "normalize": {"size": 32}}
    normalized = chain(store, sections | {"augment": {"size": 16}})["normalize"]
    info = {"backbone": "vit_tiny_patch16_224", "stem": "auto", "modality": "image", "input_shape": [3, 32, 32]}
    info |= {"method": "simclr", "stats": {}, "num_features": 192, "steps": 0, "precision": "fp32", "seed": 0}
    pretrained: Any = SimpleNamespace(json=lambda name: info)
    policy = Views(policies={"augment": Policy(size=16)}, modality="image", seed=0).policy("augment")
    monkeypatch.setattr(context_module, "policy_of", lambda *given: policy)
    context = context_module.make_context(
        TransferConfig(), normalized, pretrained, np.arange(4), [], torch.device("cpu"), threading.Event()
    )
    views = context.augment(context.payload(np.arange(2)), torch.arange(2))
    assert context.build(0)(context.to_input(views)).shape == (2, 192)


def test_new_keys_at_their_defaults_change_no_fingerprint() -> None:
    assert semantic(TransferConfig()) == {}
    assert semantic(TransferConfig(labels_per_class=(5, 1))) == {"labels_per_class": [1, 5]}


def test_budgets_may_be_labels_per_class(made: dict[str, Artifact]) -> None:
    found = transfer(made, strategies=["knn"], label_fractions=[1.0], labels_per_class=[10, 2])
    lines = found.measured["summary"]
    assert [(line["labels_per_class"], line["num_labels"]) for line in lines][1:] == [(2, 6), (10, 30)]
    assert lines[0]["labels_per_class"] == 0
    assert lines[1]["label_fraction"] == pytest.approx(6 / lines[0]["num_labels"])
    assert "from_scratch" in lines[1]


def test_baselines_without_an_encoder(made: dict[str, Artifact]) -> None:
    """Raw input is noise here, and the classes are about even."""
    found = transfer(made)
    for line in found.measured["summary"]:
        assert 0.2 < line["raw_input"] < 0.5
        assert 0.2 < line["majority"] < 0.5
        assert line["raw_difference"] == pytest.approx(line["pretrained"] - line["raw_input"])
        assert line["p"] < 0.05
        assert line["raw_p"] < 0.05
    without = transfer(made, raw_input=False, strategies=["knn"], seeds=1)
    assert "raw_input" not in without.measured["summary"][0]
    assert "majority_difference" in without.measured["summary"][0]


def test_raw_input_is_the_input(store: Store) -> None:
    made = planted(store)
    payload = np.asarray(Shards.open(made["normalize"]).take(np.arange(made["ingest"].rows)))
    features = raw.RawInput(made["normalize"], "tabular", made["normalize"].json("stats.json"))
    assert np.concatenate(list(features.parts())) == pytest.approx(payload)
    assert np.array_equal(features[np.array([7, 2, 7])], np.concatenate(list(features.parts()))[[7, 2, 7]])


def test_raw_input_is_shrunk_where_it_is_large() -> None:
    small, large = torch.rand(2, 3, 18, 18), torch.rand(2, 3, 36, 36)
    assert torch.equal(raw.shrink(small), small.flatten(1))
    blocks = large.reshape(2, 3, 18, 2, 18, 2).mean(dim=(3, 5))
    torch.testing.assert_close(raw.shrink(large), blocks.flatten(1))
    assert raw.shrink(torch.rand(1, 3, 64, 128)).shape == (1, 3 * 13 * 26)
    assert raw.shrink(torch.rand(1, 2, 5000)).shape == (1, 1024)
    assert raw.shrink(torch.rand(1, 5000)).shape == (1, 5000)


def fails_at(seed: int, methods: int, error: Exception) -> Any:
    """A strategy whose fits with `seed` fail for so many methods, counted as they come."""
    failed: list[int] = []
    inner = strategies.strategy("linear_probe")

    def fit(task: Any) -> Any:
        if task.seed == seed and len(failed) < methods:
            failed.append(1)
            raise error
        return inner.fit(task)

    return dataclasses.replace(inner, fit=fit, seeded=True)


def replace_probe(monkeypatch: pytest.MonkeyPatch, made_up: Any) -> None:
    real = strategies.strategy
    monkeypatch.setattr(evaluate, "strategy", lambda name: made_up if name == "linear_probe" else real(name))


def test_a_fit_that_fails_is_a_row_and_the_others_finish(
    made: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_probe(monkeypatch, fails_at(1, 1, ValueError("no  such\nmatrix")))
    found = transfer(made, workers=1)
    (failure,) = found.table("failures.parquet").to_pylist()
    expected = {"strategy": "linear_probe", "method": "scarf", "label_fraction": 0.1, "labels_per_class": 0, "seed": 1}
    assert failure == {**expected, "error": "ValueError: no such matrix"}
    assert found.measured["failed"] == 1
    assert "1 of 48 fits failed" in found.measured["warnings"][0]
    assert "linear_probe on scarf with seed 1: ValueError: no such matrix" in found.measured["warnings"][0]
    lines = found.measured["summary"]
    assert len(lines) == 4
    values = [r["value"] for r in found.table("metrics.parquet").to_pylist() if r["metric"] == "accuracy"]
    assert len(values) == 47
    seeds = {
        row["num_seeds"]
        for row in found.table("comparisons.parquet").to_pylist()
        if (row["strategy"], row["label_fraction"]) == ("linear_probe", 0.1)
    }
    assert seeds == {2}
    assert [line["num_seeds"] for line in lines] == [2, 3, 3, 3]
    for line in lines:
        for prefix, baseline in (("", "random_init"), ("scratch_", "from_scratch"), ("majority_", "majority")):
            assert line[f"{prefix}difference"] == pytest.approx(line["pretrained"] - line[baseline], abs=1e-12)


def test_where_all_fits_of_the_first_strategy_fail_there_is_no_result(
    made: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_probe(monkeypatch, fails_at(0, 99, ValueError("singular")))
    with pytest.raises(StageError, match=r"no fit of linear_probe.*ValueError: singular"):
        transfer(made, seeds=1)


@pytest.mark.parametrize("error", [MemoryError("full"), RequestError("your key"), InterruptedError("stopped")])
def test_what_is_not_the_fits_fault_ends_the_stage(
    made: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    replace_probe(monkeypatch, fails_at(1, 1, error))
    with pytest.raises(type(error), match=str(error)):
        transfer(made)


def test_a_slow_strategy_trains_on_so_many_rows_and_says_so(made: dict[str, Artifact]) -> None:
    found = transfer(made, strategies=["rbf_svm"], slow_rows=40)
    rows = [
        (row["label_fraction"], row["value"])
        for row in found.table("choices.parquet").to_pylist()
        if row["name"] == "train_rows"
    ]
    (few,) = {value for fraction, value in rows if fraction == 0.1}
    (most,) = {value for fraction, value in rows if fraction == 1.0}
    assert 38 <= most <= 40
    assert few <= 40
    assert found.measured["capped"] == {"rbf_svm": most}
    assert found.measured["summary"][1]["num_labels"] > 100  # the budget is what it was


def test_what_strategies_reach_on_val_is_kept(made: dict[str, Artifact]) -> None:
    found = transfer(made, strategies=["knn"], seeds=1)
    line = found.measured["summary"][1]
    rows = data.load(made["split"])
    features = data.embeddings(made["embed"], "embeddings/pretrained.parquet", rows.splits)
    knn = strategies.strategy("knn")
    unit = knn.prepare(TrainRows([features], rows.train))(features[np.arange(rows.splits.num_rows)])
    labelled = rows.train[rows.labels[rows.train] >= 0]
    task = Task(
        unit[labelled], rows.labels[labelled], unit[rows.val], rows.labels[rows.val], unit[rows.val], 3, seed=0
    )  # fmt: skip
    assert line["val"] == (knn.fit(task).scores.argmax(axis=1) == rows.labels[rows.val]).mean()


def test_fits_run_on_ray_where_the_run_is_connected_to_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not stage._on_ray(TransferConfig())
    assert stage._on_ray(TransferConfig(run_on="ray"))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert stage._on_ray(TransferConfig())
    assert not stage._on_ray(TransferConfig(run_on="threads"))
    assert stage._device(TransferConfig()).type == "cpu"
    assert stage._device(TransferConfig(gpus_per_fit=0.5)).type == "cuda"
    with pytest.raises(RequestError, match=r"transfer\.device: 'cuda' on Ray .*transfer\.gpus_per_fit"):
        stage._device(TransferConfig(device="cuda"))


def test_where_fits_run_is_no_part_of_what_they_give() -> None:
    assert semantic(TransferConfig(run_on="ray", cpus_per_fit=2, gpus_per_fit=0.5, workers=3)) == {}
    with pytest.raises(ValueError, match=r"gpus_per_fit\s.*above 1 Ray reserves whole ones"):
        TransferConfig(gpus_per_fit=1.5)


def test_strategies_that_read_samples_run_without_others(made: dict[str, Artifact]) -> None:
    """On raw input there is nothing to reuse then."""
    found = transfer(made, strategies=["surrogate"], seeds=1)
    assert set(found.table("metrics.parquet")["method"].to_pylist()) == {
        *("scarf", "random_init", "from_scratch", "majority"),
    }


def test_rows_without_a_label_are_not_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be far more of them than of those that fits read."""
    made = planted(store, labels=("cat", "dog", None))
    held, attempt = [], evaluate._attempt

    def watched(found: Any, rows: Any, *args: Any) -> Any:
        if found.needs == "embeddings":
            held.append(rows)
        return attempt(found, rows, *args)

    monkeypatch.setattr(evaluate, "_attempt", watched)
    found = transfer(made, strategies=["ridge", "linear_probe", "knn"], seeds=1)
    assert found.measured["failed"] == 0
    labelled = np.flatnonzero(data.load(made["split"]).labels >= 0)
    assert held
    for rows in held:
        assert np.array_equal(np.sort(rows.positions), labelled)
        assert len(rows.values) == len(labelled) < 250


def test_a_context_is_made_anew_with_all_that_it_was_made_of(made: dict[str, Artifact]) -> None:
    """As Ray does it, in another process; what was replaced in it since goes along."""
    make = context_module.make_context
    context = make(
        TransferConfig(), made["normalize"], made["pretrain"], np.arange(9), ["a"], torch.device("cpu"),
        threading.Event(), (), made["augment"],
    )  # fmt: skip
    changed = dataclasses.replace(context, method="scarf", features=np.ones((300, 2)), train=np.arange(5))
    again = pickle.loads(pickle.dumps(changed))
    assert again.remake is not None
    assert len(again.remake.args) == len(inspect.signature(make).parameters)  # none is forgotten
    assert again.remake.args[-1] == made["augment"]
    assert (again.method, again.train.tolist(), again.features.shape) == ("scarf", list(range(5)), (300, 2))
    rows = np.array([3, 1])
    assert torch.equal(again.payload(rows), context.payload(rows))
    ours, theirs = (list(each.build(1).parameters()) for each in (again, context))
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
