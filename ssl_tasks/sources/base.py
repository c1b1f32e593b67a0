"""What a source is: files in one place that give samples, one encoded payload each."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ssl_tasks.schema import CONTENT_ID, PAYLOAD, ROWS, SOURCE
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.hashes import content_hash
from ssl_tasks.sources.listing import Part, combined_hash, listed
from ssl_tasks.sources.memory import Memory

Pair = tuple[pa.Table, pa.Table]
"""Rows without numbers and ids of samples, and their raw payload; as many of both."""

Names = Callable[[Counter[str] | None], Iterator[str]]
"""Gives the relative paths of a source's files in order, each time anew, and counts what it passes over."""


class Source:
    """Files below `root`. Subclasses say what they mean: how `parts` follow from them, and what is in these."""

    kind = ""
    what = ""
    """The kind in words, for messages."""
    keys: frozenset[str] = frozenset()
    """The config's keys that mean something here."""
    unit = "rows"

    def __init__(self, config: SourceConfig, root: Path, names: Names) -> None:
        self.config, self.root, self.names = config, root, names
        self.memory = Memory(str(root), type(self).__name__, config.path)
        self.num_files = 0
        self.ignored: Counter[str] = Counter()
        """By suffix, the files that lie there and are not read; complete once the source has been read."""

    def parts(self, *, content: bool) -> Iterator[Part]:
        """The files to list, in order; with `content`, also what is needed to make samples of them."""
        for name in self.names(self.ignored if content else None):
            yield Part([name], [f"{self.root}/{name}"], [])

    def listing_hash(self) -> str:
        """Hash of all files that would be read, names and contents; those that did not change are not read."""
        return combined_hash(listed(self.parts(content=False), self.memory))

    def listed(self) -> Iterator[Part]:
        """The parts with content, looked at and counted, for those who read them."""
        for part in listed(self.parts(content=True), self.memory):
            self.num_files += sum(seen.hash is not None for seen in part.seen)
            yield part

    def total(self) -> int | None:
        """How many rows there will be, where that is known before reading."""
        return None

    def facts(self) -> dict[str, Any]:
        """What was found, for the manifest; complete once the source has been read."""
        return {"kind": self.kind, "files": self.num_files, "ignored": dict(sorted(self.ignored.items()))}


class SampleSource(Protocol):
    """A source that gives samples of one encoded payload each, which all but `Tables` do."""

    def samples(self) -> Iterator[Pair]:
        """Rows and payloads in order, bounded in rows and bytes.

        Raises:
            RequestError: something cannot be read as what it should be.
            StageError: a file changed while it was read.
        """
        ...


def sample_tables(
    sources: list[str],
    payloads: list[bytes | None],
    contents: list[str | None],
    columns: dict[str, list[Any]],
) -> Pair:
    """Tables of some samples.

    Args:
        contents: content hashes, where they are known already.
        columns: further columns of `schema.ROWS`.
    """
    ids = [
        known or (content_hash(data) if data is not None else content_hash(f"missing {source}".encode()))
        for source, data, known in zip(sources, payloads, contents, strict=True)
    ]
    rows: dict[str, Any] = {SOURCE: pa.array(sources, pa.string()), CONTENT_ID: pa.array(ids, pa.string())}
    rows |= {name: pa.array(values, ROWS.field(name).type) for name, values in columns.items()}
    return pa.table(rows), pa.table({PAYLOAD: pa.array(payloads, pa.large_binary())})


def one_file(name: str) -> Names:
    """The `Names` of a source that is a single file."""
    return functools.partial(_one_file, name)


def _one_file(name: str, ignored: Counter[str] | None) -> Iterator[str]:
    yield name
