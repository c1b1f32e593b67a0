from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests_planted import planted

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.materialize import materialize
from ssl_tasks.policy import Policy, Views
from ssl_tasks.schema import TRANSFER
from ssl_tasks.stages.transfer import STAGE, TransferConfig
from ssl_tasks.store import Store
from ssl_tasks.transfer import context as context_module
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
    assert metrics.num_rows == (2 * 2 + 1) * 2 * 3 * 4  # strategies x encoders and scratch, fractions, seeds, metrics
    assert comparisons.num_rows == 2 * 2 * 2 * 4  # strategies, fractions, baselines, metrics
    assert set(metrics["method"].to_pylist()) == {"scarf", "random_init", "from_scratch"}
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
        ({"strategies": ["prompt"]}, "no transfer strategy 'prompt'"),
        ({"strategies": ["from_scratch"]}, "runs as a baseline"),
        ({"label_fractions": [0.0]}, "label_fractions.0"),
        ({"label_fractions": [1.5]}, "label_fractions.0"),
        ({"label_fractions": []}, "label_fractions"),
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
    info |= {"method": "simclr"}
    pretrained: Any = SimpleNamespace(json=lambda name: info)
    policy = Views(policies={"augment": Policy(size=16)}, modality="image", seed=0).policy("augment")
    monkeypatch.setattr(context_module, "policy_of", lambda pretrain: policy)
    context = context_module.make_context(
        TransferConfig(), normalized, pretrained, np.arange(4), [], torch.device("cpu"), threading.Event()
    )
    views = context.augment(context.payload(np.arange(2)), torch.arange(2))
    assert context.build(0)(context.to_input(views)).shape == (2, 192)
