from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests_planted import commit, planted

from ssl_tasks import norms
from ssl_tasks.artifact import Artifact
from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import load_encoder, save_weights
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.materialize import materialize
from ssl_tasks.shards import Shards
from ssl_tasks.stages import embed
from ssl_tasks.stages.embed import PRETRAINED_FILE, RANDOM_INIT_FILE, STAGE, EmbedConfig
from ssl_tasks.store import Output, Store


def with_encoder(store: Store, *, mean: float = 0.0, broken: bool = False) -> dict[str, Artifact]:
    """Planted artifacts whose pretrain has weights, trained ones and first ones."""
    made = planted(store)
    info = made["pretrain"].json("encoder.json")
    info["stats"] = {**info["stats"], "mean": [mean] * 6}

    def write(out: Output) -> None:
        out.json("encoder.json", info)
        for name, seed in (("encoder", 1), ("initial", 0)):
            backbone = build_backbone("mlp:16x2", modality="tabular", input_shape=(6,), seed=seed)
            if broken:
                torch.nn.init.constant_(next(backbone.parameters()), float("nan"))
            with out.file(f"{name}.safetensors") as path:
                save_weights(backbone, path)

    return {**made, "pretrain": commit(store, "pretrain", write, 300, [made["normalize"]])}


def run(made: dict[str, Artifact], **config: Any) -> Artifact:
    parents = {name: made[name] for name in STAGE.inputs}
    store = made["ingest"].store
    return materialize(store, STAGE, EmbedConfig(**config), parents, fingerprint="e" * 64, force=True).artifact


def vectors(artifact: Artifact, name: str) -> np.ndarray:
    return np.array(artifact.table(name)["embedding"].to_pylist())


def test_embeddings_are_the_encoders_in_payload_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "ROW_GROUP_ROWS", 70)
    made = with_encoder(store)
    found = run(made, batch_size=32)
    shards = Shards.open(made["normalize"])
    payload = torch.from_numpy(shards.take(np.arange(len(shards))))
    for name, weights in ((PRETRAINED_FILE, "encoder"), (RANDOM_INIT_FILE, "initial")):
        with torch.no_grad():
            expected = load_encoder(made["pretrain"], weights=weights)(payload).numpy()
        assert vectors(found, name) == pytest.approx(expected, abs=1e-6)
        assert found.table(name)["row"].to_pylist() == list(range(300))
    assert np.abs(vectors(found, PRETRAINED_FILE) - vectors(found, RANDOM_INIT_FILE)).max() > 0.01
    assert found.rows == 300
    assert found.measured["num_features"] == 16


def test_batch_size_decides_the_last_bits_only_and_is_hashed_for_them(store: Store) -> None:
    made = with_encoder(store)
    large, small = run(made), run(made, batch_size=7)
    assert vectors(large, PRETRAINED_FILE) == pytest.approx(vectors(small, PRETRAINED_FILE), abs=1e-6)
    assert STAGE.fingerprint(EmbedConfig(batch_size=7), dict.fromkeys(STAGE.inputs, "")) != STAGE.fingerprint(
        EmbedConfig(), dict.fromkeys(STAGE.inputs, "")
    )


def test_data_that_was_normalized_otherwise_is_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="mean differ"):
        run(with_encoder(store, mean=1.0))


def test_embeddings_that_are_not_finite_stop_the_stage(store: Store) -> None:
    with pytest.raises(StageError, match=r"row 0 is not finite \(300 such rows\)"):
        run(with_encoder(store, broken=True))


def test_device_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(RequestError, match=r"embed\.device: 'abacus'"):
        run(with_encoder(store), device="abacus")


def taking(shards: Shards) -> Callable[[Any], torch.Tensor]:
    return lambda positions: torch.from_numpy(shards.take(positions))


def test_the_untrained_networks_norms_know_train_rows_and_no_others(store: Store) -> None:
    made = planted(store)
    shards = Shards.open(made["normalize"])
    table = made["split"].table("splits.parquet")
    positions = norms.sample(np.flatnonzero(table["split"].to_numpy() == "train"))
    names = made["split"].table("splits.parquet")["split"].to_pylist()
    assert positions.tolist() == [place for place, name in enumerate(names) if name == "train"]
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5))
    norms.settle(network, taking(shards), positions, batch_size=len(positions))
    rows = shards.take(positions).astype(np.float64)
    assert network[0].running_mean.numpy() == pytest.approx(rows.mean(axis=0), abs=1e-5)
    assert network[0].running_var.numpy() == pytest.approx(rows.var(axis=0, ddof=1), abs=1e-4)
    assert not any(module.training for module in network.modules())
    before = network[0].running_mean.clone()
    norms.settle(network, taking(shards), positions, batch_size=len(positions))
    assert torch.equal(network[0].running_mean, before)  # what the norms held before does not count


def test_a_network_without_norms_is_left_alone(store: Store) -> None:
    made = with_encoder(store)
    untouched = load_encoder(made["pretrain"], weights="initial").state_dict()
    encoder = load_encoder(made["pretrain"], weights="initial").eval()
    norms.settle(encoder, taking(Shards.open(made["normalize"])), np.arange(40), batch_size=16)
    assert all(torch.equal(value, untouched[name]) for name, value in encoder.state_dict().items())
