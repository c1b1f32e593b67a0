"""Lists of files as text: CSV, TSV, and JSON lines. Every row is read as it stands; a broken one is named."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.columns import Batch

SUFFIXES = (".csv", ".tsv", ".jsonl")
BATCH_ROWS = 512
MAX_FIELD = 1 << 24
"""Characters of one value; Python's own limit, 131,072, is below what a text column may hold."""
FIRST_LINES = 1000
"""Lines of JSON that are looked at to learn which keys there are."""


@contextlib.contextmanager
def open_list(path: str) -> Iterator[TextReader]:
    """Open a list of files.

    Raises:
        RequestError: it is not UTF-8, has no header, or a line of it is broken.
    """
    try:
        if path.lower().endswith(".jsonl"):
            first = list(itertools.islice(_json_lines(path), FIRST_LINES))
            yield TextReader(path, list(dict.fromkeys(key for line in first for key in line)), True, _json_lines(path))
        else:
            lines = _csv_lines(path)
            yield TextReader(path, next(lines), False, lines)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"ingest.path: {path} is not a list that can be read: {error}") from error


class TextReader:
    """See `columns.Reader`: any column may hold paths, none holds content."""

    class_names: Mapping[str, Sequence[str]] = {}

    def __init__(self, path: str, names: Sequence[str], sparse: bool, lines: Iterator[Any]) -> None:
        self.path, self.names, self.sparse = path, names, sparse
        self._lines = lines

    def holds(self, name: str) -> Literal["paths"]:
        """Text."""
        return "paths"

    def batches(self, contents: Sequence[str], others: Sequence[str]) -> Iterator[Batch]:
        """All rows; empty text is no value."""
        names, first = [*contents, *others], 0
        places = {name: self.names.index(name) for name in names if name in self.names}
        while lines := list(itertools.islice(self._lines, BATCH_ROWS)):
            if self.sparse:
                columns = {name: [line.get(name) for line in lines] for name in names}
            else:
                columns = {name: [line[places[name]] or None for line in lines] for name in names}
            for name in contents:
                columns[name] = [self._path(name, value, first + row) for row, value in enumerate(columns[name])]
            yield Batch(first, columns)
            first += len(lines)

    def paths(self, contents: Sequence[str]) -> Iterator[Batch]:
        """All rows, too."""
        return self.batches(contents, ())

    def _path(self, name: str, value: Any, row: int) -> str | None:
        if value is not None and not isinstance(value, str):
            raise RequestError(f"ingest.path: {self.path}#{row}: {name!r} is {str(value)[:40]}, and a path is expected")
        return value or None


def _csv_lines(path: str) -> Iterator[list[str]]:
    """The header, then each row that is not blank."""
    csv.field_size_limit(MAX_FIELD)
    with open(path, newline="", encoding="utf-8-sig") as stream:
        delimiter = "\t" if path.lower().endswith(".tsv") else ","
        reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise RequestError(f"ingest.path: {path} has no header line")
        if twice := sorted(name for name in set(header) if header.count(name) > 1):
            raise RequestError(f"ingest.path: {path} has two columns {twice[0]!r}")
        yield header
        for row in reader:
            if row and len(row) != len(header):
                raise RequestError(
                    f"ingest.path: {path}, line {reader.line_num}: {len(row)} values, and the header has {len(header)}"
                )
            if row:
                yield row


def _json_lines(path: str) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise RequestError(f"ingest.path: {path}, line {number}: not JSON: {error}") from error
            if not isinstance(value, dict):
                raise RequestError(f"ingest.path: {path}, line {number}: expected an object, found {line[:40]!r}")
            yield value
