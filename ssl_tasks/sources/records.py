"""Lists and data sets: containers whose rows name files or hold their content, with columns for the rest.

What a container's format is stands in `lists` (CSV, JSON lines) and `columnar` (Parquet, Arrow), what its columns
mean in `columns`; here is how the files that rows name are found, hashed and read beside them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import BOXES, LABELS, MASK, PAYLOAD, SOURCE
from ssl_tasks.sources.base import Names, Pair, Source, sample_tables
from ssl_tasks.sources.boxes import boxes_of
from ssl_tasks.sources.columns import Batch, Columns, Reader, choose
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.listing import Part, read_parts, unchanged
from ssl_tasks.sources.values import ROLES, TARGETS, classes_of, fill_split, role_columns
from ssl_tasks.sources.walk import is_utf8

HANDFUL = 5
"""Of masks that are not there; with more of them, and no other, the column holds something else."""

OpenReader = Callable[[str], AbstractContextManager[Reader]]


class Records(Source):
    """The rows of one or more containers."""

    kind = "records"
    what = "a list or data set"
    keys = frozenset(
        {
            "image_column",
            "mask_column",
            "masks",
            "boxes_column",
            "boxes",
            "captions",
            "labels_separator",
            "class_columns",
        }
        | {f"{role}_column" for role in (ROLES | TARGETS).values()}
    )

    def __init__(
        self,
        config: SourceConfig,
        root: Path,
        names: Names,
        open_reader: OpenReader,
        splits: Mapping[str, str],
        beside: Collection[str] = (),
    ) -> None:
        """Args as in `Source`, and

        splits: by the container's name, the split of those of its rows that have none of their own.
        beside: which of the names say something about the rows and hold none.
        """
        super().__init__(config, root, names)
        self.open_reader, self.splits, self.beside = open_reader, splits, beside
        self.columns = Columns({}, {})
        self.missing: Counter[str] = Counter()
        self.with_mask = 0
        self._first_mask = ""
        self._names: set[str] = set()

    def parts(self, *, content: bool) -> Iterator[Part]:
        """Each container, then the files that its rows name."""
        for container in super().parts(content=content):
            yield container
            (name,), (path,) = container.keys, container.paths
            if name in self.beside:
                continue
            with unchanged(path), self.open_reader(path) as reader:
                self.columns = columns = choose(reader, self.config, name, self.columns)
                self._names.update(reader.names)
                images, others = list(columns.content.values()), list(columns.roles.values())
                others += [one for one in self.config.class_columns if one not in others]
                for batch in reader.batches(images, others) if content else reader.paths(images):
                    yield self._part(name, columns, batch, reader if content else None)

    def _part(self, name: str, columns: Columns, batch: Batch, reader: Reader | None) -> Part:
        """A batch's rows, with a file for each path in it; without a reader, these files alone matter."""
        contents = {role: list(batch.columns[given]) for role, given in columns.content.items()}
        places = [f"{name}#{batch.first + row}" for row in range(len(contents[PAYLOAD]))]
        sources = list(places)
        part = Part([], [], [], table={SOURCE: sources, **contents})
        for row, place in enumerate(places):
            for role, values in sorted(contents.items()):  # so that keys ascend
                given = values[row]
                if isinstance(given, str):
                    key = f"{name}#{batch.first + row:012d} {role} {given}"
                    part.add(key, self._locate(name, given, place), row, role)
                    values[row] = None
                    if role == PAYLOAD:
                        sources[row] = f"{place} -> {given}"
                    elif not self._first_mask:
                        self._first_mask = given
                elif given is not None:
                    part.table_bytes += len(given)
        if reader is not None:
            given_roles = {column: batch.columns[given] for column, given in columns.roles.items()}
            if BOXES in given_roles:
                values = given_roles.pop(BOXES)
                part.table[BOXES] = [
                    boxes_of(value, f"{place}: boxes") for value, place in zip(values, places, strict=True)
                ]
            names = {c: reader.class_names[given] for c, given in columns.roles.items() if given in reader.class_names}
            part.table |= role_columns(given_roles, names, places, self.config.labels_separator)
            if classes := self.config.class_columns:
                part.table[LABELS] = classes_of({one: batch.columns[one] for one in classes}, places)
            fill_split(part.table, self.splits.get(name), len(places))
        return part

    def _locate(self, name: str, given: str, place: str) -> str:
        if "://" in given:
            raise RequestError(f"ingest.path: {place} names {given!r}; only files on this machine's disks are read")
        if not is_utf8(given):
            raise RequestError(f"ingest.path: {place} names {given!r}, which is not UTF-8")
        return os.path.join(self.root, os.path.dirname(name), given)

    def samples(self) -> Iterator[Pair]:
        """A row for each row; one whose file is not there has no payload.

        Raises:
            RequestError: also where `ingest.mask_column` names a column none of whose values is a file.
        """
        described = (part for part in self.listed() if part.table)
        for part, found in read_parts(described, self.memory.forget):
            table = dict(part.table)
            ids: list[str | None] = [None] * len(table[SOURCE])
            for row, role, seen, data in zip(part.rows, part.roles, part.seen, found, strict=True):
                table[role][row] = data
                if role == PAYLOAD:
                    ids[row] = seen.hash
                self.missing[role] += data is None
            self.with_mask += sum(mask is not None for mask in table.get(MASK, ()))
            yield sample_tables(table.pop(SOURCE), table.pop(PAYLOAD), ids, table)
        if self.config.mask_column and self._no_masks():
            raise RequestError(f"ingest.mask_column: {self._no_masks()}; leave it out if these are no paths")

    def _no_masks(self) -> str | None:
        """What is wrong, where a column was taken for masks and none of its values is a file."""
        if self.with_mask or self.missing[MASK] <= HANDFUL:
            return None
        count, name = self.missing[MASK], self.columns.named()["mask"]
        return f"none of the {count} values of column {name!r} is a file (the first is {self._first_mask!r})"

    def facts(self) -> dict[str, Any]:
        """Also which columns were taken for what, and how many named files are not there.

        A column that was found by its name, and whose values are no files, was taken for masks by mistake.
        """
        columns = {role: name for role, name in self.columns.named().items() if name in self._names}
        facts = {**super().facts(), "columns": columns, "missing": dict(+self.missing)}
        if problem := self._no_masks():
            del columns["mask"], facts["missing"][MASK]
            facts["warnings"] = [f"{problem}, so it is ignored; if these are paths to masks, they lead nowhere"]
        return facts
