"""Tables: CSV or Parquet, numbers and categories, stored as float32 with NaN where a value is missing."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ssl_tasks.errors import RequestError
from ssl_tasks.modalities.base import Checked, Stats, Vocabulary
from ssl_tasks.policy import ResolvedPolicy
from ssl_tasks.schema import CONTENT_ID, DOMAIN, GROUP_ID, LABEL, LABELS, ROWS, SOURCE, SPLIT
from ssl_tasks.sources.hashes import content_hash
from ssl_tasks.sources.tables import Tables
from ssl_tasks.sources.values import TARGETS, classes_of, role_columns

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
BROKEN = "broken"
"""Raw column that holds the text of a line with the wrong number of values; null for all others."""
_COLUMN = "column "
"""Begins the raw name of every column of the user's, so that one called `row` does not meet the row number."""
_ROLES = {LABEL: "label", GROUP_ID: "group", DOMAIN: "domain", SPLIT: "split"}
NAMED = 5
"""Columns that a message names."""
_NUMBER = r"^\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|Inf)\s*$"


class TabularModality:
    """See `ssl_tasks.modalities.base.Modality`. A column is numeric where nearly all its values are numbers."""

    name = "tabular"

    def read(self, source: Tables, config: Any) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Rows in file order; all values as text, so that one wrong value is a row's fault and not the file's."""
        schema: pa.Schema | None = None
        for path, name in source.files():
            first = 0
            for table, broken in _text_tables(Path(path), config.labels_column):
                schema = schema or _raw_schema(table, config, name)
                columns = [column.removeprefix(_COLUMN) for column in schema.names if column != BROKEN]
                if missing := sorted({*columns, *_roles(config)} - set(table.column_names)):
                    raise RequestError(f"ingest.path: {name} lacks the column {missing[0]!r} of the first file")
                raw = pa.table([*table.select(columns).columns, broken], schema=schema)
                yield _identity(table, raw, config, name, first), raw
                first += table.num_rows

    def check(self, raw: pa.Table, config: Any) -> Checked:
        """A row is unusable where its line is broken or a value of a numeric column is no number."""
        broken = raw[BROKEN].to_pylist()
        wrong: dict[int, str] = {}
        for name, kind in _kinds(raw).items():
            if kind == "number":
                column = raw[_COLUMN + name]
                bad = pc.and_(pc.is_valid(column), pc.invert(_is_number(column))).to_numpy(zero_copy_only=False)
                for index in np.flatnonzero(bad.astype(bool)):
                    wrong.setdefault(int(index), f"column {name!r}: {column[int(index)].as_py()!r} is not a number")
        nothing: list[Any] = [None] * raw.num_rows
        return Checked(
            reasons=[
                "wrong_number_of_values" if text is not None else "not_a_number" if row in wrong else None
                for row, text in enumerate(broken)
            ],
            details=[text if text is not None else wrong.get(row) for row, text in enumerate(broken)],
            keys=nothing,
            oddities=nothing,
        )

    def thumbnails(self, raw: pa.Table) -> list[bytes | None]:
        """A row of numbers has no picture."""
        return [None] * raw.num_rows

    def learn(self, raw: Iterator[pa.Table], measures: Iterator[pa.Table] | None, config: Any) -> Vocabulary:
        """The categories of text columns, as train rows have them; others become all zeros."""
        columns: dict[str, list[str] | None] = {}
        for table in raw:
            for name, kind in _kinds(table).items():
                if kind == "number":
                    columns.setdefault(name, None)
                else:
                    seen = columns.get(name) or []
                    columns[name] = sorted({*seen, *pc.unique(table[_COLUMN + name]).drop_null().to_pylist()})
        return {"columns": columns}

    def recall(self, stats: Stats, raw: Iterator[pa.Table], measures: Iterator[pa.Table] | None) -> Vocabulary:
        """The encoder's columns and categories; a category that it has not seen becomes all zeros.

        Raises:
            RequestError: the table has not the same columns, or no numbers where it had.
        """
        columns, kinds = stats["vocabulary"]["columns"], _kinds(next(raw))
        numbers = [name for name, seen in columns.items() if seen is None]
        for names, what, mend in (
            (sorted(columns.keys() - kinds.keys()), "lacks", "name it as it was called there"),
            (sorted(kinds.keys() - columns.keys()), "has beside its", "leave it out by ingest.drop_columns"),
            ([name for name in numbers if kinds.get(name) == "category"], "has no numbers in", "write numbers there"),
        ):
            if names:
                shown = ", ".join(repr(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
                raise RequestError(
                    f"normalize: the encoder was trained on other columns: the data at ingest.path {what} "
                    f"column{'s' * (len(names) != 1)} {shown}; {mend}, or take another encoder"
                )
        vocabulary: Vocabulary = stats["vocabulary"]
        return vocabulary

    def transform(self, raw: pa.Table, vocabulary: Vocabulary, config: Any) -> np.ndarray:
        """(N, D) float32: numbers, one-hot categories; NaN where a number is missing."""
        parts = []
        for name, categories in vocabulary["columns"].items():
            column = raw[_COLUMN + name]
            if categories is None:
                trimmed = pc.utf8_trim_whitespace(column)
                parts.append(pc.cast(trimmed, pa.float64()).to_numpy(zero_copy_only=False)[:, None])
            else:
                found = pc.index_in(column, value_set=pa.array(categories, pa.string()))
                codes = found.to_numpy(zero_copy_only=False)
                parts.append((codes[:, None] == np.arange(len(categories))).astype(np.float64))
        values = np.concatenate(parts, axis=1).astype(np.float32)
        values[~np.isfinite(values)] = np.nan
        return values

    def fit(self, payload: Iterator[np.ndarray], vocabulary: Vocabulary, config: Any) -> Stats:
        """Mean and deviation of each column over the values that are there (Chan's update, stable in one pass)."""
        count = mean = squares = np.zeros(0)
        for batch in payload:
            here = np.isfinite(batch).sum(0).astype(np.float64)
            values = np.where(np.isfinite(batch), batch, 0).astype(np.float64)
            average = values.sum(0) / np.maximum(here, 1)
            spread = (np.where(np.isfinite(batch), values - average, 0) ** 2).sum(0)
            if not len(count):
                count, mean, squares = here, average, spread
                continue
            both = np.maximum(count + here, 1)
            delta = average - mean
            mean = mean + delta * here / both
            squares = squares + spread + delta**2 * count * here / both
            count = count + here
        std = np.sqrt(squares / np.maximum(count, 1))
        names = [
            name if categories is None else f"{name}={category}"
            for name, categories in vocabulary["columns"].items()
            for category in ([None] if categories is None else categories)
        ]
        return {
            "modality": self.name,
            "shape": [len(mean)],
            "mean": mean.tolist(),
            "std": np.where(std > 1e-12, std, 1.0).tolist(),
            "columns": names,
            "vocabulary": vocabulary,
        }

    def augment(self, payload: Tensor, policy: ResolvedPolicy, keys: Tensor) -> Tensor:
        """The row itself: methods for tables corrupt it themselves."""
        return payload

    def to_input(self, payload: Tensor, stats: Stats) -> Tensor:
        """(B, D) float32 standardized; a missing value becomes the mean, 0."""
        mean = torch.tensor(stats["mean"], device=payload.device, dtype=torch.float64)
        std = torch.tensor(stats["std"], device=payload.device, dtype=torch.float64)
        return torch.nan_to_num((payload.double() - mean) / std, nan=0.0).float()

    def input_shape(self, stats: Stats) -> tuple[int, ...]:
        """(D,)."""
        return (int(stats["shape"][0]),)


MODALITY = TabularModality()


def _text_tables(file: Path, lists: str | None) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Pairs of a file's columns as text, null where a value is missing, and the broken lines' text.

    Args:
        lists: the column that may hold lists, which stay lists.
    """
    try:
        yield from _parquet_tables(file, lists) if file.suffix.lower() == ".parquet" else _csv_tables(file)
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"ingest.path: {file} is not a table that can be read: {error}") from error


def _parquet_tables(file: Path, lists: str | None) -> Iterator[tuple[pa.Table, pa.Array]]:
    reader = pq.ParquetFile(file)
    _refuse_twins(file, reader.schema_arrow.names)
    for batch in reader.iter_batches(batch_size=65536):
        columns = {
            name: column if name == lists and _is_list(column.type) else _as_text(file, name, column)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        yield pa.table(columns), pa.nulls(batch.num_rows, pa.string())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _as_text(file: Path, name: str, column: pa.Array) -> pa.Array:
    """What a CSV of the same values would give: NaN is missing, as are the texts of `MISSING`."""
    try:
        text = pc.cast(column, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RequestError(
            f"ingest.path: column {name!r} of {file} holds {column.type}, which is neither number nor text"
        ) from error
    return pc.if_else(pc.is_in(text, value_set=pa.array(MISSING)), pa.scalar(None, pa.string()), text)


def _refuse_twins(file: Path, names: Sequence[str]) -> None:
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise RequestError(f"ingest.path: {file} has two columns {twice[0]!r}")


def _csv_tables(file: Path) -> Iterator[tuple[pa.Table, pa.Array]]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with open(file, newline="", encoding="utf-8-sig") as stream:
        names = next(csv.reader(stream, delimiter=delimiter), [])
    if not names:
        raise RequestError(f"ingest.path: {file} has no header line")
    _refuse_twins(file, names)
    if broken_names := [name for name in names if len(name.splitlines()) > 1]:
        raise RequestError(f"ingest.path: {file} has a line break in the column name {broken_names[0][:40]!r}")
    broken: list[str] = []

    def keep_aside(row: Any) -> str:
        broken.append(row.text)
        return "skip"

    reader = pa_csv.open_csv(
        file,
        pa_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
        pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep_aside),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=list(MISSING), strings_can_be_null=True
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch]), pa.nulls(batch.num_rows, pa.string())
    if broken:
        yield pa.table({name: pa.nulls(len(broken), pa.string()) for name in names}), pa.array(broken, pa.string())


def _roles(config: Any) -> set[str]:
    """The columns that the config names for what is no feature."""
    named = {getattr(config, f"{role}_column") for role in (_ROLES | TARGETS).values()} - {None}
    return named | {*config.class_columns}


def _raw_schema(table: pa.Table, config: Any, source: str) -> pa.Schema:
    left_out = {*_roles(config), *config.drop_columns}
    for name in sorted(left_out):
        if name not in table.column_names:
            raise RequestError(f"ingest: {source} has no column {name!r} (it has {', '.join(table.column_names)})")
    kinds = {
        name: b"number" if _mostly_numbers(table[name]) else b"category"
        for name in table.column_names
        if name not in left_out
    }
    fields = [pa.field(_COLUMN + name, pa.string(), metadata={b"kind": kind}) for name, kind in kinds.items()]
    if not fields:
        raise RequestError(f"ingest: {source} has no column left besides label, group, domain and split")
    return pa.schema([*fields, pa.field(BROKEN, pa.string())])


def _identity(table: pa.Table, raw: pa.Table, config: Any, source: str, first: int) -> pa.Table:
    texts = [pc.fill_null(raw[name], "\x00") for name in raw.column_names]
    joined = pc.binary_join_element_wise(*texts, "\x1f").to_pylist()
    rows: dict[str, Any] = {
        SOURCE: pa.array([f"{source}#{first + index}" for index in range(table.num_rows)], pa.string()),
        CONTENT_ID: pa.array([content_hash(text.encode()) for text in joined], pa.string()),
    }
    for column, role in _ROLES.items():
        name = getattr(config, f"{role}_column")
        if name is not None:
            rows[column] = pc.utf8_trim_whitespace(table[name])
    named = {column: getattr(config, f"{role}_column") for column, role in TARGETS.items()}
    given = {column: table[name].to_pylist() for column, name in named.items() if name is not None}
    targets = role_columns(given, {}, rows[SOURCE].to_pylist(), config.labels_separator) if given else {}
    if config.class_columns:
        of_class = {name: table[name].to_pylist() for name in config.class_columns}
        targets[LABELS] = classes_of(of_class, rows[SOURCE].to_pylist())
    rows |= {column: pa.array(values, ROWS.field(column).type) for column, values in targets.items()}
    return pa.table(rows)


def _kinds(raw: pa.Table) -> dict[str, str]:
    return {
        field.name.removeprefix(_COLUMN): (field.metadata or {}).get(b"kind", b"category").decode()
        for field in raw.schema
        if field.name.startswith(_COLUMN)
    }


def _is_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)


def _mostly_numbers(column: pa.ChunkedArray) -> bool:
    there = column.drop_null()
    return len(there) == 0 or (pc.sum(_is_number(there)).as_py() or 0) >= 0.9 * len(there)
