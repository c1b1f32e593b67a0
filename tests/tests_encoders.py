"""Artifacts of a table whose columns say different things of the class, and encoders that each see some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tests_planted import WIDTH, commit, planted, split_table
from torch import nn

from ssl_tasks.artifact import Artifact
from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import save_weights
from ssl_tasks.materialize import materialize
from ssl_tasks.schema import PAYLOAD, ROW, ROWS_FILE
from ssl_tasks.shards import ShardWriter, tensor_array
from ssl_tasks.stages.embed import STAGE as EMBED
from ssl_tasks.stages.transfer import STAGE, TransferConfig
from ssl_tasks.store import Output, Store

ROWS = 400
SMALL: dict[str, Any] = {
    "label_fractions": [0.2, 1.0],
    "seeds": 2,
    "bootstrap": 200,
    "raw_input": False,
    "scratch": {"steps": 4, "learning_rates": [0.01]},
    "tune": {"steps": 20, "learning_rates": [0.003, 0.01]},
}
Made = dict[str, Artifact]


def network(columns: slice, seed: int, backbone: str = "mlp:16x2") -> nn.Module:
    """One that sees these columns of the input only."""
    made = build_backbone(backbone, modality="tabular", input_shape=(WIDTH,), seed=seed)
    first = next(made.parameters())
    with torch.no_grad():
        kept = first[:, columns].clone()
        first.zero_()
        first[:, columns] = kept
    return made


def encoder(
    made: Made, columns: slice, seed: int, method: str = "scarf", backbone: str = "mlp:16x2", **stats: Any
) -> Artifact:
    """A pretrain artifact whose trained network sees `columns`, and whose untrained one sees the last, a noise."""
    info = made["pretrain"].json("encoder.json") | {"method": method, "backbone": backbone, "seed": seed}
    info["stats"] = info["stats"] | stats

    def weights(name: str, of: nn.Module) -> Callable[[Output], None]:
        def write(out: Output) -> None:
            with out.file(f"{name}.safetensors") as path:
                save_weights(of, path)

        return write

    def write(out: Output) -> None:
        out.json("encoder.json", info)
        weights("encoder", network(columns, seed, backbone))(out)
        weights("initial", network(slice(WIDTH - 1, WIDTH), seed, backbone))(out)

    parents = [made[name] for name in ("normalize", "split", "augment")]
    key = f"{made['split'].uri} {method} {columns} {seed} {backbone} {stats}"
    return commit(made["normalize"].store, "pretrain", write, ROWS, parents, name=key)


def informative(store: Store) -> Made:
    """Column 0 tells the first class from the others, column 3 the second; the own encoder sees 0 to 2."""
    found = planted(store, rows=ROWS)
    random = np.random.default_rng(5)
    labels = random.integers(0, 3, ROWS)
    values = random.normal(size=(ROWS, WIDTH)).astype(np.float32)
    values[:, 0] += 3.0 * (labels == 0)
    values[:, 3] += 3.0 * (labels == 1)
    stats = found["normalize"].json("stats.json")

    def write(out: Output) -> None:
        writer = ShardWriter(out, "payload", max_rows=64)
        writer.write(pa.table({ROW: np.arange(ROWS), PAYLOAD: tensor_array(values)}))
        writer.flush()
        out.json("stats.json", stats)

    found["normalize"] = commit(store, "normalize", write, ROWS, [found["ingest"], found["assign"]], name="signal")
    splits = random.choice(["train", "val", "test"], ROWS, p=[0.4, 0.2, 0.4]).tolist()
    found["split"] = split(found, [("cat", "dog", "owl")[number] for number in labels], splits)
    found["pretrain"] = encoder(found, slice(0, 3), 1)
    return with_embeddings(found)


def split(made: Made, labels: list[str], splits: list[str], name: str = "signal") -> Artifact:
    table, parents = split_table(labels, splits), [made["ingest"], made["assign"]]
    return commit(
        made["ingest"].store, "split", lambda out: out.table("splits.parquet", table), ROWS, parents, name=name
    )


def ingested(made: Made, columns: Mapping[str, Sequence[Any]], name: str) -> Artifact:
    """The ingest artifact with these columns in the place of its own."""
    table = made["ingest"].table(ROWS_FILE)
    for key, values in columns.items():
        place = table.column_names.index(key)
        table = table.set_column(place, table.schema.field(key), pa.array(values, table.schema.field(key).type))
    return commit(made["ingest"].store, "ingest", lambda out: out.table(ROWS_FILE, table), ROWS, name=name)


def with_embeddings(made: Made) -> Made:
    parents = {name: made[name] for name in EMBED.inputs}
    fingerprint = EMBED.fingerprint(EMBED.config(), {name: parent.fingerprint for name, parent in parents.items()})
    embed = materialize(made["split"].store, EMBED, EMBED.config(), parents, fingerprint=fingerprint).artifact
    return {**made, "embed": embed}


def transfer(made: Made, others: list[Artifact], **config: Any) -> Artifact:
    parsed = TransferConfig.model_validate({**SMALL, "encoders": [one.fingerprint for one in others], **config})
    parents = {name: made[name] for name in STAGE.inputs}
    fingerprint = STAGE.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    return materialize(made["split"].store, STAGE, parsed, parents, fingerprint=fingerprint, force=True).artifact


def line(found: Artifact, strategy: str, fraction: float = 1.0) -> dict[str, Any]:
    (only,) = (
        entry
        for entry in found.measured["summary"]
        if (entry["strategy"], entry["label_fraction"]) == (strategy, fraction)
    )
    return dict(only)
