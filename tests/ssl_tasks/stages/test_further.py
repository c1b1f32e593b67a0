"""The transfer stage with further encoders: networks that each see one half of the input, or noise."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_encoders import Made, encoder, informative, line, split, transfer
from tests_planted import WIDTH

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.materialize import materialize
from ssl_tasks.report.advice import advice
from ssl_tasks.stages.adopt import STAGE as ADOPT
from ssl_tasks.stages.adopt import AdoptConfig, source
from ssl_tasks.stages.transfer import STAGE, TransferConfig
from ssl_tasks.store import Store
from ssl_tasks.store.collect import collect
from ssl_tasks.store.runs import RunRecord, save_run
from ssl_tasks.transfer import further
from ssl_tasks.transfer.context import make_context
from ssl_tasks.transfer.data import embeddings, load

COMBINED = ("concatenate", "select_features", "weighted_encoders")


@pytest.fixture
def made(store: Store) -> Made:
    return informative(store)


def test_encoders_that_see_different_things_beat_the_best_one_and_untrained_ones(made: Made) -> None:
    other = encoder(made, slice(3, 6), 2, "vicreg")
    found = transfer(made, [other], strategies=COMBINED, seeds=5)
    best = line(found, "best_encoder")
    for name in COMBINED:
        entry = line(found, name)
        assert entry["counterpart"] == "best_encoder"
        assert entry["counterpart_value"] == best["pretrained"]
        assert entry["pretrained"] > best["pretrained"] + 0.05
        assert entry["counterpart_difference"] == pytest.approx(entry["pretrained"] - best["pretrained"])
        assert 0 < entry["counterpart_low"] <= entry["counterpart_difference"] <= entry["counterpart_high"]
        assert entry["random_init"] < 0.5
        assert entry["low"] > 0.2
    assert "counterpart" not in best
    assert found.measured["encoders"] == ["scarf", f"vicreg {other.fingerprint[:8]}"]
    assert found.manifest.parents["encoder 1"] == other.fingerprint
    told = [
        text for text in advice(found.measured, 0.01) if "a linear probe on the encoder that is best on val" in text
    ]
    assert any(text.startswith("With all labels") and text.endswith("better.") for text in told)


def test_an_encoder_of_noise_gets_next_to_no_weight_and_no_choice(made: Made) -> None:
    found = transfer(made, [encoder(made, slice(5, 6), 3)], strategies=["weighted_encoders"], label_fractions=[1.0])
    chosen = {
        (row["strategy"], row["name"]): row["value"]
        for row in found.table("choices.parquet").to_pylist()
        if row["method"] == "scarf"
    }
    assert chosen["weighted_encoders", "weight 0"] > 0.9
    assert chosen["best_encoder", "encoder"] == 0


def test_rows_are_embedded_as_the_stage_embed_does(made: Made) -> None:
    (one,) = further.read([made["pretrain"].fingerprint], made["split"].uri)
    rows = load(made["split"])
    for weights, name in (("encoder", "pretrained"), ("initial", "random_init")):
        theirs = embeddings(made["embed"], f"embeddings/{name}.parquet", rows.splits)
        ours = further.embed(one, weights, made["normalize"], rows.train, torch.device("cpu"))  # type: ignore[arg-type]
        assert np.array_equal(ours, np.concatenate(list(theirs.parts())))


def test_labels_of_test_rows_change_nothing_that_is_fitted(made: Made) -> None:
    other = encoder(made, slice(3, 6), 2)
    table = made["split"].table("splits.parquet")
    labels, splits = table["label"].to_pylist(), table["split"].to_pylist()
    turned = {"cat": "dog", "dog": "owl", "owl": "cat"}
    wrong = [turned[label] if name == "test" else label for label, name in zip(labels, splits, strict=True)]
    settings: dict[str, Any] = {"strategies": [*COMBINED, "greedy_soup", "uniform_soup"], "label_fractions": [1.0]}
    first = transfer(made, [other], **settings)
    second = transfer({**made, "split": split(made, wrong, splits, "wrong")}, [other], **settings)
    for found in (first, second):
        assert {"best_encoder", "best_tuned"} <= set(found.table("choices.parquet")["strategy"].to_pylist())
    assert first.table("choices.parquet").equals(second.table("choices.parquet"))
    predicted = [found.table("predictions.parquet").select(["predicted", "confidence"]) for found in (first, second)]
    assert predicted[0].equals(predicted[1])
    assert line(first, "concatenate")["pretrained"] > line(second, "concatenate")["pretrained"] + 0.3


def test_equal_bytes_with_any_number_of_workers(made: Made) -> None:
    other = encoder(made, slice(3, 6), 2)
    settings: dict[str, Any] = {"strategies": ["select_features", "greedy_soup"], "label_fractions": [1.0]}
    first = transfer(made, [other], workers=1, **settings).manifest.data_checksum
    assert transfer(made, [other], workers=3, **settings).manifest.data_checksum == first


def test_a_context_with_further_encoders_can_be_made_anew_in_another_process(made: Made) -> None:
    others = further.read([encoder(made, slice(3, 6), 2).fingerprint], made["split"].uri)
    cpu = torch.device("cpu")
    context = make_context(TransferConfig(), made["normalize"], made["pretrain"], np.arange(40), [], cpu, None, others)
    context = dataclasses.replace(context, method="scarf", targets={"regression": np.arange(3.0)})
    again = pickle.loads(pickle.dumps(context))
    assert again.targets["regression"].tolist() == [0.0, 1.0, 2.0]
    for ours, theirs in zip(context.encoders(), again.encoders(), strict=True):
        for key, value in ours().state_dict().items():
            assert torch.equal(value, theirs().state_dict()[key])
    assert len(again.encoders()) == 2


def test_soups_need_no_further_encoder(made: Made) -> None:
    found = transfer(made, [], strategies=["greedy_soup"], label_fractions=[1.0])
    assert line(found, "greedy_soup")["counterpart"] == "best_tuned"
    assert "encoders" not in found.measured
    assert found.measured["strategies"] == ["greedy_soup", "best_tuned"]


@pytest.mark.parametrize(
    ("columns", "changes", "strategies", "message"),
    [
        (slice(0, 3), {}, COMBINED, "scarf .* is the run's own encoder"),
        (slice(3, 6), {"std": [2.0] * WIDTH}, COMBINED, r"scarf .* normalized otherwise \(std differ\)"),
        (slice(3, 6), {"backbone": "mlp:8x2"}, ["greedy_soup"], "scarf .* architecture"),
    ],
)
def test_an_encoder_that_does_not_go_with_the_run_is_refused_by_name(
    made: Made, columns: slice, changes: dict[str, Any], strategies: list[str], message: str
) -> None:
    with pytest.raises(RequestError, match=rf"transfer\.encoders: {message}"):
        transfer(made, [encoder(made, columns, 1, **changes)], strategies=strategies)


def test_an_encoder_that_was_adopted_is_the_one_it_was_adopted_from(made: Made) -> None:
    def adopted(one: Artifact) -> Artifact:
        config = AdoptConfig(encoder=one.fingerprint)
        return materialize(
            one.store, ADOPT, config, {}, fingerprint=ADOPT.fingerprint(config, {}, source(config))
        ).artifact

    other = encoder(made, slice(3, 6), 2, "vicreg")
    with pytest.raises(RequestError, match=r"transfer\.encoders: vicreg \w{8} and vicreg \w{8} are the same encoder"):
        transfer(made, [other, adopted(other)], strategies=["concatenate"])
    with pytest.raises(RequestError, match=r"transfer\.encoders: scarf \w{8} is the run's own encoder"):
        transfer(made, [adopted(made["pretrain"])], strategies=["concatenate"])


def test_other_widths_can_be_concatenated(made: Made) -> None:
    other = encoder(made, slice(3, 6), 2, backbone="mlp:8x2")
    entry = line(transfer(made, [other], strategies=["concatenate"], label_fractions=[1.0]), "concatenate")
    assert entry["counterpart_low"] > 0


@pytest.mark.parametrize("reference", ["0" * 64, "nonsense", "elsewhere"])
def test_what_is_not_there_or_no_encoder_is_refused(made: Made, tmp_path: Path, reference: str) -> None:
    given = f"{tmp_path / 'other'}/objects/{'0' * 64}" if reference == "elsewhere" else reference
    with pytest.raises(RequestError, match=r"transfer\.encoders: "):
        transfer(made, [], encoders=[given], strategies=["concatenate"])
    with pytest.raises(RequestError, match=r"transfer\.encoders: .* is an artifact of embed"):
        transfer(made, [made["embed"]], strategies=["concatenate"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"strategies": ["concatenate"]}, "concatenate combines encoders; name others .* in transfer.encoders"),
        ({"strategies": ["knn", "best_encoder"]}, "best_encoder combines encoders"),
        ({"strategies": ["knn"], "encoders": ["a"]}, "knn use the run's own encoder only; leave out transfer.encoders"),
    ],
)
def test_encoders_and_strategies_that_do_not_go_together_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransferConfig.model_validate(config)


def test_where_a_store_is_makes_no_difference_to_the_fingerprint() -> None:
    here, there = (
        TransferConfig.model_validate({"strategies": ["concatenate"], "encoders": [place + "0" * 64]})
        for place in ("", "s3://bucket/store/objects/")
    )
    parents = dict.fromkeys(STAGE.inputs, "x")
    assert STAGE.fingerprint(here, parents) == STAGE.fingerprint(there, parents)
    other = TransferConfig.model_validate({"strategies": ["concatenate"], "encoders": ["1" * 64]})
    assert STAGE.fingerprint(here, parents) != STAGE.fingerprint(other, parents)


def test_encoders_that_a_failed_run_names_are_kept(made: Made) -> None:
    store, other = made["split"].store, encoder(made, slice(3, 6), 2)
    recipe = {"transfer": {"encoders": [f"{store.uri}/objects/{other.fingerprint}"]}}
    save_run(store, RunRecord(run_id="20260101-000000-x-aaaa", name="x", recipe=recipe, state="failed", stages=[]))
    assert other.fingerprint not in collect(store, dry_run=True).artifacts
    assert made["pretrain"].fingerprint in collect(store, dry_run=True).artifacts
