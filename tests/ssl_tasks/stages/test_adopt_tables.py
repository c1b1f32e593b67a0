"""Existing encoders of tables on other tables: columns and units are the encoder's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_adopted import QUICK, pretrained, recipe

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.shards import Shards
from ssl_tasks.store import Store


def table(path: Path, columns: str, rows: int = 40) -> Path:
    random = np.random.default_rng(0)
    lines = [columns]
    for number in range(rows):
        values = {
            "age": f"{random.normal(40, 9):.2f}",
            "height": f"{random.normal(170, 9):.2f}",
            "kind": "ab"[number % 2],
        }
        values |= {"colour": ("red", "blue")[number % 3 % 2], "words": "many", "weight": f"{random.normal():.2f}"}
        lines.append(",".join(values.get(name.strip('"'), "none") for name in columns.split(",")))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def of_tables(tmp_path: Path, chain: Any) -> dict[str, Artifact]:
    ingest = {"path": str(table(tmp_path / "seen.csv", "age,colour,height")), "modality": "tabular"}
    data = chain(Store.open(str(tmp_path / "store")), {"ingest": ingest})
    return {**data, "pretrain": pretrained(data, "mlp:8x2", "scarf")}


def test_tables_are_normalized_as_the_encoders_were(of_tables: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    path = table(tmp_path / "new.csv", "kind,height,colour,age", 60)  # in another order
    ingest = {"path": str(path), "modality": "tabular", "label_column": "kind"}
    given = {**recipe(of_tables["pretrain"].fingerprint, path), "ingest": ingest}
    made = chain(of_tables["split"].store, {**given, "transfer": {**QUICK, "strategies": ["knn"]}}, until="report")
    stats = made["normalize"].json("stats.json")
    assert stats == of_tables["normalize"].json("stats.json")
    ages = [float(line.split(",")[3]) for line in path.read_text().splitlines()[1:]]
    payload = Shards.open(made["normalize"]).take(np.arange(60))
    assert payload[:, stats["columns"].index("age")] == pytest.approx(ages, abs=1e-4)
    assert "warnings" not in made["normalize"].measured


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("age,colour,kind", "lacks column 'height'"),
        ("age,colour,height,kind,weight", "has beside its column 'weight'; leave it out by ingest.drop_columns"),
        ("age,colour,height,kind,words,weight", "has beside its columns 'weight', 'words'"),
    ],
)
def test_tables_of_other_columns_are_refused(
    of_tables: dict[str, Artifact], tmp_path: Path, chain: Any, columns: str, message: str
) -> None:
    path = table(tmp_path / "new.csv", columns)
    ingest = {"path": str(path), "modality": "tabular", "label_column": "kind"}
    with pytest.raises(RequestError, match=message):
        chain(
            of_tables["split"].store,
            {**recipe(of_tables["pretrain"].fingerprint, path), "ingest": ingest},
            until="normalize",
        )


def test_words_where_the_encoder_had_numbers_are_refused(
    of_tables: dict[str, Artifact], tmp_path: Path, chain: Any
) -> None:
    path = table(tmp_path / "new.csv", "age,colour,height,kind")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(f"old,{line.partition(',')[2]}" for line in lines[1:])]) + "\n")
    ingest = {"path": str(path), "modality": "tabular", "label_column": "kind"}
    with pytest.raises(RequestError, match="has no numbers in column 'age'"):
        chain(
            of_tables["split"].store,
            {**recipe(of_tables["pretrain"].fingerprint, path), "ingest": ingest},
            until="normalize",
        )


def test_heights_in_metres_are_told(of_tables: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    path = table(tmp_path / "new.csv", "age,colour,height,kind")
    lines = [line.split(",") for line in path.read_text().splitlines()]
    metres = [[age, colour, f"{float(height) / 100:.4f}", kind] for age, colour, height, kind in lines[1:]]
    path.write_text("\n".join(",".join(line) for line in [lines[0], *metres]) + "\n")
    ingest = {"path": str(path), "modality": "tabular", "label_column": "kind"}
    given = {**recipe(of_tables["pretrain"].fingerprint, path), "ingest": ingest}
    (warning,) = chain(of_tables["split"].store, given, until="normalize")["normalize"].measured["warnings"]
    stats = of_tables["normalize"].json("stats.json")
    place = stats["columns"].index("height")
    found = re.search(r"\(height lies ([\d.]+) deviations below of it\)", warning)
    assert found is not None, warning
    assert float(found[1]) == pytest.approx((stats["mean"][place] - 1.7) / stats["std"][place], rel=0.02)
