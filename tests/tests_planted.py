"""Artifacts of all stages made by hand, with as much signal in the embeddings as a test asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.artifact import Artifact, Manifest
from ssl_tasks.schema import (
    ASSIGNMENT,
    GROUPS,
    PAYLOAD,
    QUARANTINE,
    ROW,
    ROWS,
    SPLIT_ROWS,
    align,
)
from ssl_tasks.shards import ShardWriter, tensor_array
from ssl_tasks.store import Output, Store

WIDTH = 6


def commit(
    store: Store,
    stage: str,
    write: Callable[[Output], None],
    rows: int,
    parents: Sequence[Artifact] = (),
    measured: Mapping[str, Any] | None = None,
    name: str = "",
) -> Artifact:
    """An artifact with what `write` puts into it; give a second one of a stage a `name`."""
    fingerprint = hashlib.sha256(f"{stage} {name or store.uri}".encode()).hexdigest()
    out = Output(store.uri, fingerprint, "attempt", stage)
    write(out)
    out.artifact(rows=rows, measured=measured)
    return store.commit(
        Manifest(
            fingerprint=fingerprint,
            attempt="attempt",
            stage=stage,
            versions={stage: 1},
            config={"seed": 7},
            parents={parent.stage: parent.fingerprint for parent in parents},
            rows=rows,
            files=out.entries,
            measured=out.measured,
            schemas=out.schemas,
            started=1.8e9,
            seconds=1.5,
            libraries={"torch": "2.14.1"},
        )
    )


def split_table(labels: Sequence[str | None], splits: Sequence[str], groups: Sequence[str] | None = None) -> pa.Table:
    """`schema.SPLIT_ROWS` with keys that are pinned by the row's number."""
    count = len(labels)
    keys = [int.from_bytes(hashlib.blake2b(bytes([i % 256, i // 256]), digest_size=7).digest()) for i in range(count)]
    columns = {
        "row": np.arange(count),
        "sample_id": [f"s{number}" for number in range(count)],
        "group_id": list(groups or [f"g{number}" for number in range(count)]),
        "split": list(splits),
        "label": pa.array(labels, pa.string()),
        "label_key": keys,
    }
    return align(pa.table(columns), SPLIT_ROWS)


def planted(
    store: Store,
    *,
    signal: float = 3.0,
    labels: Sequence[str | None] | None = ("cat", "dog", "owl"),
    rows: int = 300,
    equal: bool = False,
    quarantined: Sequence[Mapping[str, Any]] = (),
    domains: Sequence[str] = (),
    targets: Mapping[str, Callable[[np.ndarray], Sequence[Any]]] | None = None,
) -> dict[str, Artifact]:
    """Every stage's artifact up to embed.

    Args:
        signal: distance of the class means in the pretrained embeddings; random_init carries none.
        labels: class names, None for data, or a class, without labels.
        equal: give random_init the embeddings of the pretrained encoder.
        targets: column of the ingest artifact's rows to what it holds, made of their class numbers (N,).
    """
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, rows)
    given = [labels[number] if labels else None for number in classes]
    splits = random.choice(["train", "val", "test"], rows, p=[0.5, 0.15, 0.35]).tolist()
    values = random.normal(size=(rows, WIDTH)).astype(np.float32)
    noise = random.normal(size=(rows, 4)).astype(np.float32)
    pretrained = noise + signal * np.eye(3, 4, dtype=np.float32)[classes]
    random_init = pretrained if equal else noise
    return _commit_all(
        store,
        given,
        splits,
        values,
        {"pretrained": pretrained, "random_init": random_init},
        quarantined,
        domains,
        {name: make(classes) for name, make in (targets or {}).items()},
    )


def _commit_all(
    store: Store,
    given: list[str | None],
    splits: list[str],
    values: np.ndarray,
    embeddings: Mapping[str, np.ndarray],
    quarantined: Sequence[Mapping[str, Any]],
    domains: Sequence[str],
    targets: Mapping[str, Sequence[Any]],
) -> dict[str, Artifact]:
    count = len(given)
    table = split_table(given, splits)
    if domains:
        place = table.column_names.index("domain")
        table = table.set_column(place, table.schema.field("domain"), pa.array(domains, pa.string()))
    made: dict[str, Artifact] = {}

    def add(stage: str, parents: Sequence[str], measured: Mapping[str, Any], *writes: Callable[[Output], Any]) -> None:
        def write(out: Output) -> None:
            for each in writes:
                each(out)

        made[stage] = commit(store, stage, write, count, [made[name] for name in parents], measured)

    rows = pa.table({"row": table["row"], "sample_id": table["sample_id"], "content_id": table["sample_id"]})
    for name, given_values in targets.items():
        rows = rows.append_column(name, pa.array(given_values, ROWS.field(name).type))
    rows = align(rows.append_column("source", table["sample_id"]), ROWS)
    bad = pa.Table.from_pylist([{"severity": "rejected", **row} for row in quarantined], schema=QUARANTINE)
    none = QUARANTINE.empty_table()
    stats = {"modality": "tabular", "shape": [WIDTH], "mean": [0.0] * WIDTH, "std": [1.0] * WIDTH}
    encoder = {"method": "scarf", "backbone": "mlp:16x2", "stem": "auto", "modality": "tabular", "stats": stats}
    encoder |= {"input_shape": [WIDTH], "num_features": 16, "steps": 3, "precision": "fp32", "seed": 0}
    steps = pa.table({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "lr": [0.1, 0.1, 0.0], "grad_norm": [1.0, 1.0, 0.9]})
    health = pa.table({"step": [1, 3], "feature_std": [0.5, 0.9], "rankme": [3.0, 4.0], "knn": [None, 0.7]})
    views = {"policies": {"augment": {}}, "modality": "tabular", "seed": 0}
    source = {"modality": "tabular", "source": "/data/raw"}
    add("ingest", [], source, lambda out: out.table("rows.parquet", rows))
    add(
        "clean",
        ["ingest"],
        {"groups": count, "duplicates": 0},
        lambda out: out.table(
            "groups.parquet",
            table.select(["row", "group_id"])
            .append_column("content_key", pa.array(range(count), pa.uint64()))
            .cast(GROUPS),
        ),
        lambda out: out.table("quarantine.parquet", bad),
    )
    add(
        "assign",
        ["ingest", "clean"],
        {},
        lambda out: out.table("assignment.parquet", table.select(["row", "group_id", "split"]).cast(ASSIGNMENT)),
        lambda out: out.table("quarantine.parquet", none),
    )
    add(
        "normalize",
        ["ingest", "assign"],
        {},
        lambda out: _payload(out, values),
        lambda out: out.json("stats.json", stats),
    )
    measured = {"leaked_test_rows": 0, "naive_leaked_test_rows": 2.5}
    add("split", ["ingest", "assign"], measured, lambda out: out.table("splits.parquet", table))
    add("augment", ["normalize"], {}, lambda out: out.json("views.json", views))
    add(
        "pretrain",
        ["normalize", "split", "augment"],
        {},
        lambda out: out.json("encoder.json", encoder),
        lambda out: out.table("metrics.parquet", steps),
        lambda out: out.table("health.parquet", health),
    )
    files = {f"embeddings/{name}.parquet": _embedding_table(array) for name, array in embeddings.items()}
    add("embed", ["normalize", "split", "pretrain"], {}, *(_writer(name, content) for name, content in files.items()))
    return made


def _writer(name: str, content: pa.Table) -> Callable[[Output], None]:
    return lambda out: out.table(name, content)


def _payload(out: Output, values: np.ndarray) -> None:
    writer = ShardWriter(out, "payload", max_rows=64)
    writer.write(pa.table({ROW: np.arange(len(values)), PAYLOAD: tensor_array(values)}))
    writer.flush()


def _embedding_table(values: np.ndarray) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])
    return pa.table({ROW: np.arange(len(values)), "embedding": column})
