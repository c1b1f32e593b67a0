"""From files to the report: pictures with a number in a list, and a table whose rows have several classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_tasks.store import Store


def pictures(folder: Path) -> dict[str, Any]:
    """96 small pictures and a list that says how bright their left half is."""
    random = np.random.default_rng(0)
    lines = ["file_name,light"]
    for number in range(96):
        pixels = random.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        light = int(random.integers(0, 190))
        pixels[:, :4] += np.uint8(light)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{light if number % 8 else ''}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    transfer = {"task": "regression", "strategies": ["ridge", "fine_tune"]}
    return {"ingest": {"path": str(folder / "list.csv"), "number_column": "light"}, "transfer": transfer}


def table(folder: Path) -> dict[str, Any]:
    """200 rows of six numbers, whose signs are their classes."""
    values = np.random.default_rng(0).normal(size=(200, 6))
    lines = ["a,b,c,d,e,f,tags"]
    for row in values:
        tags = "|".join(name for name, value in zip(("up", "left", "near"), row, strict=False) if value > 0)
        lines.append(",".join([*(f"{value:.6f}" for value in row), tags or "|"]))
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    columns = {"labels_column": "tags", "labels_separator": "|"}
    return {
        "ingest": {"path": str(folder / "data.csv"), "modality": "tabular", **columns},
        "pretrain": {"method": "scarf", "backbone": "mlp:16x2"},
        "transfer": {"task": "multi_label"},
    }


@pytest.mark.parametrize(
    ("make", "metric", "said"),
    [(pictures, "rmse", "Predicted and true numbers"), (table, "macro_f1", "Hamming loss")],
)
def test_the_whole_chain(
    store: Store,
    tmp_path: Path,
    small: dict[str, Any],
    chain: Any,
    ray_session: None,  # stages train on it
    make: Any,
    metric: str,
    said: str,
) -> None:
    given = make(tmp_path)
    recipe = {name: {**small.get(name, {}), **given.get(name, {})} for name in {**small, **given}}
    recipe["ingest"] = given["ingest"]
    if "modality" in given["ingest"]:
        del recipe["clean"], recipe["normalize"]
    made = chain(store, recipe, until="report")
    measured = made["transfer"].measured
    assert measured["failed"] == 0
    assert [line["metric"] for line in measured["summary"]] == [metric] * 4
    best = measured["summary"][1]
    assert best["label_fraction"] == 1.0
    assert (best["pretrained"] < best["majority"]) == (metric == "rmse")
    assert said in made["report"].path("report.html").read_text(encoding="utf-8")
    assert "encoder reached" in made["report"].measured["verdict"]
