"""A DAG of small stages under the real names, for tests of what runs them. `path` is a text file, a row a line."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config, execution
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.schema import QUARANTINE, QUARANTINE_FILE
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output


class IngestConfig(Config):
    path: str = execution("builtin:none")
    modality: str = "image"
    labelled: bool = True


class AssignConfig(Config):
    fraction: float = Field(0.8, gt=0, lt=1)
    seed: int = 0


class SplitConfig(AssignConfig):
    budget: int = 3


class MethodConfig(Config):
    name: str = "simclr"
    temperature: float = 0.5


class PretrainConfig(Config):
    method: MethodConfig = MethodConfig()
    batch_size: int = 4
    epochs: int = 1
    workers: int = execution(1)
    seed: int = 0
    modality: str = "image"
    seconds: float = execution(0.0)
    fail: str = execution("")


class TransferConfig(Config):
    strategies: tuple[str, ...] = ("knn",)


class ReportConfig(Config):
    pass


def source(config: IngestConfig) -> str:
    return hashlib.sha256(Path(config.path).read_bytes()).hexdigest()


def ingest(config: IngestConfig, out: Output) -> Artifact:
    names = Path(config.path).read_text().split()
    out.table("rows.parquet", pa.table({"row": list(range(len(names))), "source": names}))
    return out.artifact(rows=len(names), measured={"labelled": len(names) if config.labelled else 0})


def assign(config: AssignConfig, out: Output, ingested: Artifact) -> Artifact:
    out.json("assignment.json", [config.fraction, config.seed])
    rejected = {"row": 3, "sample_id": "s3", "source": "f3.png", "stage": "assign", "severity": "rejected"}
    rejected |= {"reason": "duplicate_of_test", "detail": "as f4.png", "thumbnail": b"jpeg"}
    flagged = {**rejected, "row": 5, "source": "f5.png", "severity": "flagged", "reason": "outlier", "thumbnail": None}
    rows = [rejected, flagged, {**flagged, "row": 6, "thumbnail": b"jpeg"}]
    out.table(QUARANTINE_FILE, pa.Table.from_pylist(rows, schema=QUARANTINE))
    if config.fraction == 0.13:
        out.leave(QUARANTINE_FILE)
        raise StageError("assign: 3 of 10 samples cannot be used")
    return out.artifact(rows=ingested.rows, measured={"warnings": ["much looks alike"], "rejected": 1, "flagged": 2})


def split(config: SplitConfig, out: Output, assigned: Artifact) -> Artifact:
    train = int(assigned.rows * config.fraction)
    names = ["train"] * train + ["test"] * (assigned.rows - train)
    labels = ["single", *(["cat", "dog"] * assigned.rows)] if config.budget == 13 else ["cat", "dog"] * assigned.rows
    out.table("splits.parquet", pa.table({"split": names, "label": labels[: assigned.rows]}))
    return out.artifact(rows=assigned.rows, measured={"splits": {"train": train}})


def pretrain(config: PretrainConfig, out: Output, divided: Artifact) -> Artifact:
    deadline = time.monotonic() + config.seconds
    while time.monotonic() < deadline:
        progress = {"step": 1, "total_steps": 100, "loss": 0.5, "rows_per_second": 10.0}
        divided.store.write_json(f"partial/{out.fingerprint}/progress.json", progress)
        time.sleep(0.05)
    flag = Path(os.environ.get("TINY_FLAG", "/nonexistent"))
    if config.fail == "refuse":
        raise StageError("the representation collapsed; lower pretrain.lr")
    if config.fail == "crash" or (config.fail == "once" and not flag.exists()):
        flag.touch()
        raise OSError("the network went away")
    for name in ("metrics.parquet", "health.parquet"):
        out.table(name, pa.table({"step": [1, 2], "loss": [2.0, 1.0]}))
    out.json("encoder.json", [config.epochs, config.seed, config.method.temperature])
    return out.artifact(rows=divided.rows, measured={"steps": config.epochs})


def check(config: PretrainConfig) -> None:
    if config.epochs == 13:
        raise RequestError("pretrain.epochs: 13 is unlucky")


def transfer(config: TransferConfig, out: Output, divided: Artifact, encoder: Artifact) -> Artifact:
    row: dict[str, Any] = {"strategy": "knn", "label_fraction": 0.1, "pretrained": 0.9, "random_init": 0.8}
    out.json("metrics.json", row)
    summary = [{**row, "from_scratch": 0.7, "difference": 0.1, "low": 0.05, "high": 0.15}]
    return out.artifact(rows=1, measured={"summary": summary if config.strategies else []})


def report(config: ReportConfig, out: Output, encoder: Artifact, metrics: Artifact) -> Artifact:
    with out.file("report.html", rendering=True) as path:
        path.write_text("<p>hello</p>")
    out.json("verdict.json", {"helped": True})
    return out.artifact(rows=0, measured={"verdict": "Pretraining helped."})


DAG = (
    Stage("ingest", IngestConfig, (), ingest, source=source),
    Stage("assign", AssignConfig, ("ingest",), assign, section="split"),
    Stage("split", SplitConfig, ("assign",), split),
    Stage("pretrain", PretrainConfig, ("split",), pretrain, parts=lambda config: {config.method.name: 1}, check=check),
    Stage("transfer", TransferConfig, ("split", "pretrain"), transfer),
    Stage("report", ReportConfig, ("pretrain", "transfer"), report),
)
