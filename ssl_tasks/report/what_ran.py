"""What ran and where the time went: the DAG with states and reasons, seconds by stage and within pretraining."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.bars import Bar, bars
from ssl_tasks.report.charts import Figure
from ssl_tasks.report.dag import Node, picture
from ssl_tasks.report.figures import Series, line_chart, linear_axis
from ssl_tasks.store import Store
from ssl_tasks.store.runs import load_run, run_ids
from ssl_tasks.training.bottleneck import TITLES, in_words
from ssl_tasks.training.timing import PARTS, SPEED_FILE

NEWEST = 20
"""Run records that are looked at for the one that is being written: the newest, unless others started meanwhile."""
STRETCHES = 100
"""Points of a chart of speed, each a mean over equally many steps."""


@dataclass(frozen=True)
class State:
    """What became of a stage in the run that made the page."""

    status: str
    seconds: float | None
    reason: str


def states(store: Store, fingerprint: str) -> dict[str, State]:
    """States of the stages of the run that makes the report `fingerprint` in this process; empty outside a run."""
    for run_id in run_ids(store)[:NEWEST]:
        record = load_run(store, run_id)
        if record is None or record.state != "running":
            continue
        if (record.pid, record.host) != (os.getpid(), socket.gethostname()):
            continue
        if any(stage.name == "report" and stage.fingerprint == fingerprint for stage in record.stages):
            return {stage.name: State(stage.status, stage.seconds, stage.reason) for stage in record.stages}
    return {}


def section(inputs: Mapping[str, Artifact], known: Mapping[str, State]) -> dict[str, Any]:
    """The picture, bars and charts, for the template.

    Args:
        known: as `states` gives them; without them the picture shows when artifacts were made, not what a run did.
    """
    nodes = [_node(name, artifact, known.get(name)) for name, artifact in inputs.items()]
    return {
        "dag": picture(nodes),
        "states": {name: {"status": state.status, "reason": state.reason} for name, state in known.items()},
        "stage_times": _stage_times(inputs),
        "training_times": _training_times(inputs["pretrain"]) if "pretrain" in inputs else None,
        "bottleneck": in_words(inputs["pretrain"].measured.get("bottleneck")) if "pretrain" in inputs else [],
        "speed": speed(inputs["pretrain"]) if "pretrain" in inputs else [],
    }


def took(seconds: float) -> str:
    """`0.4 s`, `1 min 15 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _node(name: str, artifact: Artifact, state: State | None) -> Node:
    manifest = artifact.manifest
    text = took(manifest.seconds)
    if state:
        text = f"ran, {text}" if state.status == "ran" else state.status
    return Node(name, list(manifest.parents), text, state.status if state else "", state.reason if state else "")


def _stage_times(inputs: Mapping[str, Artifact]) -> Figure:
    whole = sum(artifact.manifest.seconds for artifact in inputs.values())
    rows = [_bar(name, artifact.manifest.seconds, whole) for name, artifact in inputs.items()]
    caption = f"By stage, {took(whole)} in all"
    return Figure(caption, bars(caption, rows))


def _bar(name: str, seconds: float, whole: float) -> Bar:
    share = 100 * seconds / whole if whole else 0.0
    return Bar(name, [(seconds, "pretrained")], took(seconds), f"{name}: {took(seconds)}, {share:.0f}%")


def _training_times(pretrain: Artifact) -> Figure | None:
    """Seconds of the last attempt's process; what its steps did not take is its start and its end."""
    seconds = pretrain.measured.get("seconds")
    if not seconds:
        return None
    whole = pretrain.manifest.seconds
    parts = {"start and end": whole - sum(seconds.values()), **{TITLES[name]: value for name, value in seconds.items()}}
    caption = f"Within pretraining, {took(whole)}"
    return Figure(caption, bars(caption, [_bar(name, value, whole) for name, value in parts.items()]))


def speed(pretrain: Artifact) -> list[Figure]:
    """Throughput over steps, and the share of the time that is spent waiting for data; of the last attempt."""
    if SPEED_FILE not in pretrain.names():
        return []
    points = stretches(pretrain.table(SPEED_FILE))
    batch = pretrain.measured["batch_size"]
    if len(points["step"]) < 2:
        return []
    x = linear_axis("Step", [0.0, float(points["step"][-1])])
    figures = []
    for caption, values, percent in (
        ("Throughput in rows/s", batch / np.maximum(points["seconds"], 1e-9), False),
        ("Share of a step spent waiting for data", points["feed"] / np.maximum(points["seconds"], 1e-9), True),
    ):
        y = linear_axis(caption, [0.0, *values.tolist()], percent=percent)
        line = Series(caption, "pretrained", list(zip(points["step"].tolist(), values.tolist(), strict=True)))
        figures.append(Figure(caption, line_chart(caption, [line], x, y)))
    return figures


def stretches(table: pa.Table) -> dict[str, np.ndarray]:
    """Means over at most `STRETCHES` equal stretches of steps: `step`, `seconds` of a whole step, `feed` of these.

    Times are averaged and not rates: the throughput of a stretch is its rows over its seconds.
    """
    columns = {name: table[name].to_numpy() for name in table.column_names}
    known = [columns[name] for name in PARTS if name in columns]  # trainings of before had fewer
    whole = np.sum(known, axis=0) if table.num_rows else np.zeros(0)
    size = max(1, -(-table.num_rows // STRETCHES))
    starts = np.arange(0, table.num_rows, size)
    number = np.diff(np.append(starts, table.num_rows))
    wanted = {"step": columns["step"], "seconds": whole, "feed": columns["feed"]}
    return {
        name: np.add.reduceat(values.astype(np.float64), starts) / number if len(starts) else values
        for name, values in wanted.items()
    }
