"""Parquet and Arrow IPC files, in batches bounded in bytes, with what Hugging Face writes into their schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.arrow_tensors import is_tensor, tensor_payloads
from ssl_tasks.sources.class_names import schema_class_names
from ssl_tasks.sources.columns import Batch

SUFFIXES = (".parquet", ".arrow", ".feather")
BATCH_ROWS = 512
BATCH_BYTES = 8 << 20
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
IPC_FILE = b"ARROW1"
BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)


@contextlib.contextmanager
def open_columnar(path: str, class_names: Mapping[str, Sequence[str]] | None = None) -> Iterator[ColumnarReader]:
    """Open a Parquet file, or an Arrow IPC file or stream.

    Args:
        class_names: instead of those that the file's schema has.

    Raises:
        RequestError: it is damaged, cut short, or of another format.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = ParquetBatches(path, stack) if path.lower().endswith(".parquet") else IpcBatches(path, stack)
            yield ColumnarReader(path, file, class_names)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"ingest.path: {path} cannot be read: {error}") from error


class ParquetBatches:
    """Batches of a Parquet file; with `lacking`, of row groups that lack some in one of these columns."""

    def __init__(self, path: str, stack: contextlib.ExitStack) -> None:
        self._file = stack.enter_context(pq.ParquetFile(path, pre_buffer=False))
        self.schema: pa.Schema = self._file.schema_arrow

    def __call__(self, names: Sequence[str], lacking: Sequence[str] = ()) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Pairs of the first row's number and a batch."""
        first = 0
        for number in range(self._file.num_row_groups):
            group = self._file.metadata.row_group(number)
            if not lacking or any(self._may_lack(group, name) for name in lacking):
                rows = _bounded(group.total_byte_size, group.num_rows)
                start = first
                for batch in self._file.iter_batches(rows, row_groups=[number], columns=list(names), use_threads=False):
                    yield start, batch
                    start += batch.num_rows
            first += group.num_rows

    def _may_lack(self, group: Any, name: str) -> bool:
        """Whether content may be missing, so that a path counts: statistics say it without reading the content."""
        columns = (group.column(place) for place in range(group.num_columns))
        counts = [
            column.statistics.null_count if column.statistics and column.statistics.has_null_count else 1
            for column in columns
            if column.path_in_schema == f"{name}.bytes"
        ]
        return not counts or any(counts)


class IpcBatches:
    """Batches of an Arrow IPC file or stream, memory-mapped."""

    def __init__(self, path: str, stack: contextlib.ExitStack) -> None:
        self._path = path
        with open(path, "rb") as stream:
            self._is_file = stream.read(len(IPC_FILE)) == IPC_FILE
            stream.seek(-min(len(END_OF_STREAM), stream.seek(0, 2)), 2)
            if not self._is_file and stream.read() != END_OF_STREAM:
                raise RequestError(f"ingest.path: {path} is no Arrow file, or is cut short: its end mark is missing")
        self._source = stack.enter_context(pa.memory_map(path))
        self.schema: pa.Schema = self._open(None).schema

    def _open(self, fields: list[int] | None) -> Any:
        self._source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        return (pa.ipc.open_file if self._is_file else pa.ipc.open_stream)(self._source, options=options)

    def __call__(self, names: Sequence[str], lacking: Sequence[str] = ()) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Pairs of the first row's number and a batch; nothing is saved by skipping some: they are mapped."""
        reader = self._open([self.schema.get_field_index(name) for name in names])
        whole = (reader.get_batch(i) for i in range(reader.num_record_batches)) if self._is_file else reader
        first = 0
        for batch in whole:
            self._validate(batch, first)
            rows = _bounded(batch.nbytes, batch.num_rows)
            for start in range(0, batch.num_rows, rows):
                yield first + start, batch.slice(start, rows)
            first += batch.num_rows

    def _validate(self, batch: pa.RecordBatch, first: int) -> None:
        """Offsets that point beyond the mapped file would end the process without a word, not raise."""
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid as error:
            rows = f"rows {first} to {first + batch.num_rows - 1}"
            raise RequestError(f"ingest.path: {self._path} is damaged in {rows}: {error}") from error


def _bounded(num_bytes: int, num_rows: int) -> int:
    """Rows of a batch, so that it holds about `BATCH_BYTES`."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * num_rows // max(1, num_bytes)))


class ColumnarReader:
    """See `columns.Reader`."""

    sparse = False

    def __init__(
        self, path: str, file: ParquetBatches | IpcBatches, class_names: Mapping[str, Sequence[str]] | None
    ) -> None:
        self._path, self._file = path, file
        self.names: list[str] = file.schema.names
        if twice := sorted(name for name in set(self.names) if self.names.count(name) > 1):
            raise RequestError(f"ingest.path: {path} has two columns {twice[0]!r}")
        self.class_names = schema_class_names(file.schema) if class_names is None else class_names

    def holds(self, name: str) -> Literal["paths", "content", "values"]:
        """By the column's type."""
        kind = _plain(self._file.schema.field(name).type)
        if _is_binary(kind) or _is_image_struct(kind) or is_tensor(kind):
            return "content"
        return "paths" if _is_text(kind) else "values"

    def batches(self, contents: Sequence[str], others: Sequence[str]) -> Iterator[Batch]:
        """All rows."""
        names = [*contents, *(name for name in others if name not in contents)]
        for first, batch in self._file(names):
            columns = {name: batch.column(name).to_pylist() for name in others}
            columns |= {name: self._contents(name, batch.column(name), first) for name in contents}
            yield Batch(first, columns)

    def paths(self, contents: Sequence[str]) -> Iterator[Batch]:
        """Rows that may name files; where statistics say that all content is there, nothing is read."""
        kinds = {name: _plain(self._file.schema.field(name).type) for name in contents}
        some = [name for name, kind in kinds.items() if _is_text(kind) or _is_image_struct(kind)]
        if not some:
            return
        for first, batch in self._file(some, lacking=some):
            columns = {name: _paths(batch.column(name)) for name in some}
            yield Batch(first, {name: columns.get(name) or [None] * batch.num_rows for name in contents})

    def _contents(self, name: str, column: Any, first: int) -> list[Any]:
        kind = _plain(column.type)
        if _is_image_struct(kind):
            data, path = _fields(column)
            return [a if a is not None else b or None for a, b in zip(data.to_pylist(), path.to_pylist(), strict=True)]
        if is_tensor(kind):
            return list(tensor_payloads(_storage(column), self._path, first, name))
        values: list[Any] = column.to_pylist()
        return [value or None for value in values] if _is_text(kind) else values


def _paths(column: Any) -> list[Any]:
    """Paths of a column, None where the content itself stands there."""
    if not _is_image_struct(_plain(column.type)):
        return [value or None for value in column.to_pylist()]
    data, path = _fields(column)
    return [value or None for value in pc.if_else(data.is_null(), path, pa.scalar(None, path.type)).to_pylist()]


def _fields(column: Any) -> tuple[Any, Any]:
    """`bytes` and `path` of a column of structs; a struct that is null has neither."""
    column = _storage(column)
    fields = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
    return fields["bytes"], fields.get("path", pa.nulls(len(column), pa.string()))


def _storage(column: Any) -> Any:
    """A column without an extension type of others; a tensor's stays, which knows its shape."""
    return column.storage if _is_foreign(column.type) else column


def _plain(kind: Any) -> Any:
    if _is_foreign(kind):
        return kind.storage_type
    return kind.value_type if isinstance(kind, pa.DictionaryType) else kind


def _is_foreign(kind: Any) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.FixedShapeTensorType)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: Any) -> bool:
    return any(test(kind) for test in BINARY)


def _is_image_struct(kind: Any) -> bool:
    """Hugging Face's Image: the content, or where that is null a path."""
    if not isinstance(kind, pa.StructType) or kind.get_field_index("bytes") < 0:
        return False
    data = kind.field("bytes").type
    path = kind.field("path").type if kind.get_field_index("path") >= 0 else pa.null()
    could_be = (_is_binary(data) or pa.types.is_null(data)) and (_is_text(path) or pa.types.is_null(path))
    return could_be and not (pa.types.is_null(data) and pa.types.is_null(path))
