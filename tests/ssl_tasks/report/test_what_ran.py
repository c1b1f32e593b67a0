from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests_planted import commit, planted

from ssl_tasks.report import what_ran
from ssl_tasks.report.dag import Node, depth, direct, picture
from ssl_tasks.report.distributions import classes, sizes
from ssl_tasks.shards import ShardWriter
from ssl_tasks.store import Output, Store
from ssl_tasks.store.runs import RunRecord, StageRecord, save_run

PARENTS = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "b"], "e": ["a", "c", "d", "b"]}


def test_lines_that_a_longer_way_implies_are_left_out() -> None:
    assert {name: direct(name, PARENTS) for name in PARENTS} == {
        "a": [], "b": ["a"], "c": ["b"], "d": ["b"], "e": ["c", "d"]
    }  # fmt: skip
    assert [depth(name, PARENTS) for name in PARENTS] == [0, 1, 2, 2, 3]


def test_the_picture_has_a_box_for_each_stage() -> None:
    nodes = [Node(name, parents, "<i>", "ran", "<b>") for name, parents in PARENTS.items()]
    svg = picture([*nodes[:-1], replace(nodes[-1], parents=[*nodes[-1].parents, "something read besides"])])
    assert "<i>" not in svg
    assert "<b>" not in svg
    tree = ElementTree.fromstring(svg)
    boxes = [(float(rect.get("x")), float(rect.get("y"))) for rect in tree.iter("rect")]
    assert len(set(boxes)) == 5
    assert boxes[2][1] == boxes[3][1]  # c and d side by side
    assert boxes[4][0] == (boxes[2][0] + boxes[3][0]) / 2  # e below the middle of both
    assert len(list(tree.iter("line"))) == 5


def record(state: str, fingerprint: str, name: str, **about: Any) -> RunRecord:
    stages = [
        StageRecord(name="clean", status="cached", seconds=0.1, fingerprint="f", reason=f"unchanged in {name}"),
        StageRecord(name="report", fingerprint=fingerprint, reason="first time"),
    ]
    return RunRecord(run_id=name, name="digits", recipe={}, state=state, stages=stages, **about)


def test_states_are_those_of_the_run_of_this_process(store: Store) -> None:
    assert what_ran.states(store, "mine") == {}
    save_run(store, record("running", "mine", "20260101"))
    save_run(store, record("completed", "mine", "20260102"))
    save_run(store, record("running", "other", "20260103"))
    save_run(store, record("running", "mine", "20260104", host="elsewhere"))
    found = what_ran.states(store, "mine")
    assert found["clean"] == what_ran.State("cached", 0.1, "unchanged in 20260101")
    assert what_ran.states(store, "nobody's") == {}


SPEED = pa.table(
    {
        "step": np.arange(250),
        "feed": np.tile([0.1, 0.3], 125),
        "compute": np.tile([0.4, 0.6], 125),
        "health": np.zeros(250),
        "checkpoint": np.zeros(250),
    }
)


def trained(store: Store, seconds: dict[str, float]) -> Any:
    def write(out: Output) -> None:
        with out.file("speed.parquet", rendering=True) as path:
            pq.write_table(SPEED, path)

    measured = {"seconds": seconds, "batch_size": 35, "rows_per_second": 50.0}
    return commit(store, "pretrain", write, 1, measured=measured)


def test_stretches_are_means_of_times() -> None:
    found = what_ran.stretches(SPEED)  # 250 steps in stretches of 3, of which the last holds 1
    assert len(found["step"]) == 84
    assert found["step"][[0, 1, -1]].tolist() == [1, 4, 249]
    assert found["seconds"][[0, 1, -1]] == pytest.approx([(0.5 + 0.9 + 0.5) / 3, (0.9 + 0.5 + 0.9) / 3, 0.9])
    assert found["feed"][0] == pytest.approx(0.5 / 3)
    assert len(what_ran.stretches(SPEED.slice(0, 0))["step"]) == 0


def test_speed_is_rows_over_seconds(store: Store) -> None:
    throughput, waiting = what_ran.speed(trained(store, {}))
    assert throughput.caption == "Throughput in rows/s"
    points = re.findall(r'points="([^"]+)"', throughput.svg)[0].split()
    assert len(points) == 84
    # 35 rows in 0.633 s and in 0.767 s: 55.3 and 45.7 rows/s on an axis that ends at 60, 202 px high, from 214 up
    heights = [float(point.split(",")[1]) for point in points[:2]]
    assert heights == pytest.approx([214 - 202 * 35 / (1.9 / 3) / 60, 214 - 202 * 35 / (2.3 / 3) / 60], abs=0.06)
    assert "30%" in waiting.svg


def test_what_steps_did_not_take_is_start_and_end(store: Store) -> None:
    figure = what_ran._training_times(trained(store, {"feed": 0.25, "compute": 0.5, "health": 0.0, "checkpoint": 0.15}))
    assert figure is not None
    told = [title.text for title in ElementTree.fromstring(figure.svg).iter("title")]  # of 1.5 s, as planted
    assert told == [
        "start and end: 0.6 s, 40%",
        "waiting for data: 0.2 s, 17%",
        "computing: 0.5 s, 33%",
        "health checks: 0.0 s, 0%",
        "checkpoints: 0.1 s, 10%",
    ]


def test_a_training_of_before_has_no_times(store: Store) -> None:
    made = planted(store)
    found = what_ran.section({name: made[name] for name in made}, {})
    assert (found["training_times"], found["speed"], found["states"]) == (None, [], {})
    told = [title.text for title in ElementTree.fromstring(found["stage_times"].svg).iter("title")]
    assert told[0] == "ingest: 1.5 s, 12%"  # one of eight that took as long
    assert found["stage_times"].caption == "By stage, 12.0 s in all"


def test_durations_read_well() -> None:
    assert [what_ran.took(value) for value in (0.44, 59.94, 75, 7500)] == ["0.4 s", "59.9 s", "1 min 15 s", "2 h 5 min"]


def test_classes_are_stacked_by_split() -> None:
    lines = [{"name": "<b>", "train": "1,000", "val": "100", "test": "250"}]
    figure = classes({"classes": lines})
    assert figure is not None
    tree = ElementTree.fromstring(figure.svg)
    widths = [float(rect.get("width")) for rect in tree.iter("rect")]
    assert [width / sum(widths) for width in widths] == pytest.approx([1000 / 1350, 100 / 1350, 250 / 1350], abs=1e-3)
    assert tree.find("g/title").text == "<b>: 1,000 train, 100 val, 250 test"
    assert classes({"classes": []}) is None


def test_sizes_that_vary_are_drawn_and_others_are_told(store: Store) -> None:
    measures = pa.table(
        {"row": [0, 1, 2], "width": pa.array([8, 8, 8], pa.int32()), "height": pa.array([4, 8, 9], pa.int32())}
    )

    def ingested(out: Output) -> None:
        writer = ShardWriter(out, "raw")
        payload = pa.array([b"x" * 10, None, b"", b"y" * 30], pa.large_binary())
        writer.write(pa.table({"row": pa.array(range(4), pa.int64()), "payload": payload}))
        writer.flush()

    clean = commit(store, "clean", lambda out: out.table("measures.parquet", measures), 3)
    found = sizes(clean, commit(store, "ingest", ingested, 4))
    assert found is not None
    assert found["constant"] == ["8 pixels wide"]
    assert [figure.caption for figure in found["figures"]] == ["Height", "Bytes as they came"]
    told = [title.text for title in ElementTree.fromstring(found["figures"][1].svg).iter("title")]
    assert [text for text in told if not text.endswith(": 0")] == ["10 to 10.83: 1", "29.17 to 30: 1"]
    assert sizes(commit(store, "clean of tables", lambda out: None, 3), clean) is None
