"""Reading tables as users have them: what is missing, names that meet ours, what cannot be read."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_tasks import modalities
from ssl_tasks.errors import RequestError
from ssl_tasks.modalities import tabular
from ssl_tasks.sources.detect import open_source
from ssl_tasks.sources.tables import Tables
from ssl_tasks.stages.clean import CleanConfig
from ssl_tasks.stages.ingest import IngestConfig
from ssl_tasks.stages.normalize import NormalizeConfig

NORMALIZE = NormalizeConfig(modality="tabular")


def read(path: Path, **options: Any) -> tuple[pa.Table, pa.Table]:
    config = IngestConfig(path=str(path), modality="tabular", **options)
    source = open_source(config, modalities.SUFFIXES["tabular"], features=True)
    assert isinstance(source, Tables)
    pairs = list(tabular.MODALITY.read(source, config))
    return pa.concat_tables([rows for rows, _ in pairs]), pa.concat_tables([raw for _, raw in pairs])


def payload(raw: pa.Table) -> np.ndarray:
    return tabular.MODALITY.transform(raw, tabular.MODALITY.learn(iter([raw]), None, NORMALIZE), NORMALIZE)


def reasons(raw: pa.Table) -> list[str | None]:
    return tabular.MODALITY.check(raw, CleanConfig(modality="tabular")).reasons


def test_what_is_missing_in_parquet_is_what_is_missing_in_csv(tmp_path: Path) -> None:
    columns = {"x": [1.0, float("nan"), 3.0], "y": ["1", "?", "3"], "kind": ["a", "NA", "None"]}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    rows, raw = read(tmp_path / "data.parquet", label_column="kind")
    assert reasons(raw) == [None] * 3
    np.testing.assert_array_equal(payload(raw), [[1, 1], [np.nan, np.nan], [3, 3]])
    assert rows["label"].to_pylist() == ["a", None, None]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["row", "payload", "__broken__", "broken", "column", "label", "sample_id"])
def test_a_column_may_have_a_name_that_is_used_inside(
    store: Any, tmp_path: Path, chain: Any, name: str, ending: str
) -> None:
    values = [str(i) for i in range(20)]
    if ending == "csv":
        (tmp_path / "data.csv").write_text(f"{name},x\n" + "".join(f"{v},{v}.5\n" for v in values))
    else:
        pq.write_table(pa.table({name: values, "x": [f"{v}.5" for v in values]}), tmp_path / "data.parquet")
    ingest = {"path": str(tmp_path / f"data.{ending}"), "modality": "tabular"}
    made = chain(store, {"ingest": ingest}, until="normalize")["normalize"]
    assert made.rows == 20
    assert made.json("stats.json")["columns"] == [name, "x"]


def test_quoted_line_breaks_are_read_in_a_file_of_many_blocks(tmp_path: Path) -> None:
    count, note = 20_000, "a line\n" * 20  # so that a block of 1 MB ends within a value
    (tmp_path / "data.csv").write_text("x,note\n" + "".join(f'{i},"{note}"\n' for i in range(count)))
    assert (tmp_path / "data.csv").stat().st_size > 1 << 20
    _, raw = read(tmp_path)
    assert raw.num_rows == count
    assert reasons(raw) == [None] * count


def test_a_line_break_in_a_column_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text('x,"two\nlines"\n1,2\n')
    with pytest.raises(RequestError, match=r"data\.csv has a line break in the column name 'two\\nlines'"):
        read(tmp_path)


@pytest.mark.parametrize("column", [[[1, 2], [3]], [{"a": 1}, {"a": 2}], [b"\xff", b"\xfe"]])
def test_a_parquet_column_that_is_no_text_is_refused_by_name(tmp_path: Path, column: list[Any]) -> None:
    pq.write_table(pa.table({"x": [1, 2], "odd": column}), tmp_path / "data.parquet")
    with pytest.raises(RequestError, match=r"column 'odd' of .*data\.parquet holds (list|struct|binary)"):
        read(tmp_path)


def test_two_columns_of_one_name_are_refused_in_parquet_too(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["x", "x"]), tmp_path / "data.parquet")
    with pytest.raises(RequestError, match=r"data\.parquet has two columns 'x'"):
        read(tmp_path)


@pytest.mark.parametrize("missing", ["x", "kind"])
def test_a_later_file_without_a_needed_column_is_refused(tmp_path: Path, missing: str) -> None:
    (tmp_path / "a.csv").write_text("x,y,kind\n1,2,a\n")
    (tmp_path / "b.csv").write_text("x,y,kind\n1,2,a\n".replace(missing, "other"))
    with pytest.raises(RequestError, match=rf"b\.csv lacks the column '{missing}'"):
        read(tmp_path, label_column="kind")


def test_a_header_that_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text('x,"y\n' + "1,2\n" * 50_000)
    # which of the two depends on how much of the file Arrow has read ahead
    refused = r"data\.csv (is not a table that can be read|has a line break in the column name)"
    with pytest.raises(RequestError, match=refused) as caught:
        read(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_numbers_and_several_labels_are_targets_and_no_features(tmp_path: Path, ending: str) -> None:
    if ending == "csv":
        (tmp_path / "data.csv").write_text("x,y,tags\n1,0.5,a;b\n2,?,\n3,-1e3,b\n4,2,;\n")
    else:
        tags = pa.array([["a", "b"], None, ["b"], []], pa.list_(pa.string()))
        columns = {"x": [1, 2, 3, 4], "y": pa.array([0.5, None, -1e3, 2.0]), "tags": tags}
        pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    rows, raw = read(tmp_path / f"data.{ending}", number_column="y", labels_column="tags")
    assert rows["number"].to_pylist() == [0.5, None, -1000.0, 2.0]
    assert rows["labels"].to_pylist() == [["a", "b"], None, ["b"], []]
    assert payload(raw).tolist() == [[1], [2], [3], [4]]


def test_a_target_that_is_no_number_is_refused_by_its_row(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,y\n1,0.5\n2,much\n")
    with pytest.raises(RequestError, match=r"data\.csv#1: number: 'much' is not a number"):
        read(tmp_path / "data.csv", number_column="y")


def test_columns_of_classes_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,big,red\n1,1,0\n2,0,0\n3,1,1\n4,,\n")
    rows, raw = read(tmp_path / "data.csv", class_columns=["big", "red"])
    assert rows["labels"].to_pylist() == [["big"], [], ["big", "red"], None]
    assert payload(raw).tolist() == [[1], [2], [3], [4]]
