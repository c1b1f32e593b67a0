"""What a path is taken for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.detect import open_source

Open = Callable[..., Any]


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/b/c.png", "folders"),
        ("a/b/c.DCM", "folders"),
        ("a/b.tar", "tars"),
        ("b.tar.gz", "tars"),
        ("a/b.tgz", "tars"),
        ("a.csv", "records"),
        ("a.tsv", "records"),
        ("a/b.jsonl", "records"),
        ("a.parquet", "records"),
        ("a.feather", "records"),
        ("a.arrow", "records"),
        ("a.npy", "arrays"),
        ("a/b.npz", "arrays"),
    ],
)
def test_the_kind_follows_from_what_is_there(tmp_path: Path, open_at: Open, name: str, kind: str) -> None:
    write(tmp_path, name, "notes.txt")
    assert open_at(tmp_path).kind == kind
    assert open_at(tmp_path / name).kind == kind


def test_images_count_more_than_containers(tmp_path: Path, open_at: Open, read: Any) -> None:
    write(tmp_path, "a.csv", "b.tar", "x/y.png")
    found = read(tmp_path)
    assert found.column("source") == ["x/y.png"]
    assert found.facts["ignored"] == {".csv": 1, ".tar": 1}


def test_several_kinds_of_containers_are_refused_with_one_of_each(tmp_path: Path, open_at: Open) -> None:
    write(tmp_path, "a/1.csv", "b/1.npz", "b/2.npz", "c.parquet")
    with pytest.raises(RequestError) as refused:
        open_at(tmp_path)
    for text in ("lists (a/1.csv)", "NumPy files (b/1.npz)", "(c.parquet)", "point ingest.path at one of them"):
        assert text in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"there is no file or folder .*missing"),
        ("notes.txt", r"notes\.txt is none of \.jpg"),
        ("empty", r"empty has no usable file \(looked for \.jpg.*\.tar"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, open_at: Open, name: str, message: str) -> None:
    write(tmp_path, "notes.txt", "empty/.hidden.png", "empty/notes.txt")
    with pytest.raises(RequestError, match=rf"ingest\.path: .*{message}"):
        open_at(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("x.npy", {"folders": ["label"]}),
        ("x.npy", {"label_column": "y"}),
        ("x.csv", {"folders": []}),
        ("x.csv", {"drop_columns": ["y"]}),
        ("x.tar", {"mask_column": "y"}),
        ("x.tar", {"drop_columns": ["y"]}),
        ("x.parquet", {"folders": ["split"]}),
        ("x.png", {"mask_column": "y"}),
    ],
)
def test_keys_that_mean_nothing_are_refused_with_the_reason(
    tmp_path: Path, open_at: Open, name: str, keys: dict[str, Any]
) -> None:
    write(tmp_path, name)
    (key,) = keys
    with pytest.raises(RequestError, match=rf"ingest\.{key}: means nothing for .*, which .* has; leave it out"):
        open_at(tmp_path, **keys)


def test_every_key_means_something_somewhere() -> None:
    from ssl_tasks.sources.arrays import Arrays
    from ssl_tasks.sources.dense_folders import DenseFolders
    from ssl_tasks.sources.folders import Folders
    from ssl_tasks.sources.records import Records
    from ssl_tasks.sources.tables import Tables
    from ssl_tasks.sources.tars import Tars

    known = frozenset[str]().union(*(kind.keys for kind in (Arrays, DenseFolders, Folders, Records, Tables, Tars)))
    assert known == set(SourceConfig.model_fields) - {"path"}


def test_tables_of_features_are_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    np.save(tmp_path / "c.npy", np.zeros((1, 2, 2)))
    source = open_source(SourceConfig(path=str(tmp_path)), (".csv", ".parquet"), features=True)
    assert source.kind == "tables"
    assert [name for _, name in source.files()] == ["a.csv", "b.parquet"]  # type: ignore[attr-defined]
    assert source.facts()["ignored"] == {".npy": 1}
