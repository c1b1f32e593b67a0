"""A listing: the files that a source consists of, in order, each with its size and content hash, as a stream.

    parts = listed(source.parts(), source.memory)
    combined_hash(parts)                            # the source's fingerprint
    for part, contents in read_parts(parts): ...    # the same files' bytes, held to their hashes

Files are looked at in parallel, a part at a time, and only those are read that the memory does not know as they are.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.parallel import ordered_map
from ssl_tasks.sources.hashes import content_hash, content_hash_file
from ssl_tasks.sources.memory import Memory, Recall, Seen, Update

PART_FILES = 128
"""Files of one part: one future for each file would cost more than reading it."""
PIECE_BYTES = 4 << 20
UNDER_WAY_BYTES = 48 << 20
SMALL_BYTES = 1 << 20
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Why there is no file of a name: nothing stands there, a link leads in a circle, no name can be as long."""
CHANGED = "changed while it was read; run again when it rests"


@dataclass
class Part:
    """Some of a source's rows, and the files that belong to them."""

    keys: list[str]
    """One a file, unique in the source and ascending: the relative path, or the row of a list that names it."""
    paths: list[str]
    rows: list[int]
    """The row, within this part, that each file belongs to; ascending."""
    roles: list[str] = field(default_factory=list)
    """Per file, the column of `table` that its content belongs to; empty where a row is a file and no more."""
    table: dict[str, list[Any]] = field(default_factory=dict)
    """What is known of the rows besides."""
    table_bytes: int = 0
    known: Sequence[Seen | None] = ()
    """Per file, what the memory holds."""
    consecutive: bool = False
    seen: Sequence[Seen] = ()
    """Per file, what is there now."""

    def add(self, key: str, path: str, row: int, role: str) -> None:
        """One more file of a row."""
        self.keys.append(key)
        self.paths.append(path)
        self.rows.append(row)
        self.roles.append(role)


def listed(parts: Iterable[Part], memory: Memory) -> Iterator[Part]:
    """The parts with `seen` filled in; keeps what was seen, once the last part has been taken.

    Raises:
        RequestError: a file may not be read.
    """
    recall = Recall(memory)

    def recalled() -> Iterator[Part]:
        for part in parts:
            part.known, part.consecutive = recall.look_up(part.keys)
            yield part

    with Update(memory) as update:
        for part in ordered_map(_look, recalled(), weigh=lambda part: part.table_bytes, most=UNDER_WAY_BYTES):
            update.add(part.keys, part.seen, unchanged=part.consecutive and part.known == part.seen)
            yield part
        update.finish()


def _look(part: Part) -> Part:
    part.seen = [_see(path, known) for path, known in zip(part.paths, part.known, strict=True)]
    return part


def _see(path: str, known: Seen | None) -> Seen:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # a pipe would wait for ever
            return Seen(0, 0, None)
        if known and known[:2] == (found.st_size, found.st_mtime_ns) and known.hash:
            return known
        if found.st_size > SMALL_BYTES:
            return Seen(found.st_size, found.st_mtime_ns, content_hash_file(path))
        return Seen(found.st_size, found.st_mtime_ns, content_hash(_read(path, found.st_size)))
    except ValueError:  # a null byte in a name
        return Seen(0, 0, None)
    except OSError as error:
        if error.errno in NOWHERE:
            return Seen(0, 0, None)
        raise RequestError(f"ingest.path: {path} cannot be read: {error.strerror}") from error


def combined_hash(parts: Iterable[Part]) -> str:
    """One hash for the content hashes and keys of all files; a file that is not there counts as such."""
    hasher = hashlib.sha256()
    for part in parts:
        lines = (f"{seen.hash or '-'} {key}\n" for key, seen in zip(part.keys, part.seen, strict=True))
        hasher.update("".join(lines).encode())
    return hasher.hexdigest()


def read_parts(parts: Iterable[Part], on_stale: Callable[[], None]) -> Iterator[tuple[Part, list[bytes | None]]]:
    """Pieces of listed parts, of about `PIECE_BYTES`, with their files' bytes; None where there is no such file.

    Args:
        on_stale: called where a file has not the listed hash although it has not changed since.

    Raises:
        StageError: a file vanished or has not the content that was listed.
    """

    def read(piece: Part) -> tuple[Part, list[bytes | None]]:
        return piece, [_verified(path, seen, on_stale) for path, seen in zip(piece.paths, piece.seen, strict=True)]

    pieces = (piece for part in parts for piece in cut(part))
    yield from ordered_map(read, pieces, weigh=_weight, most=UNDER_WAY_BYTES)


def _weight(part: Part) -> int:
    return part.table_bytes + sum(seen.size for seen in part.seen)


def cut(part: Part) -> Iterator[Part]:
    """A part in pieces of whole rows, each of `PIECE_BYTES` of files or of one row: where depends on the data only."""
    num_rows = len(next(iter(part.table.values()))) if part.table else len(part.keys)
    first = start = size = 0
    for row, places in itertools.groupby(range(len(part.keys)), lambda place: part.rows[place]):
        files = list(places)
        row_size = sum(part.seen[place].size for place in files)
        if size and size + row_size > PIECE_BYTES:
            yield _slice(part, first, row, start, files[0])
            first, start, size = row, files[0], 0
        size += row_size
    yield _slice(part, first, num_rows, start, len(part.keys))


def _slice(part: Part, first: int, end: int, start: int, stop: int) -> Part:
    if (first, start) == (0, 0) and stop == len(part.keys):
        return part
    return Part(
        keys=part.keys[start:stop],
        paths=part.paths[start:stop],
        rows=[row - first for row in part.rows[start:stop]],
        roles=part.roles[start:stop],
        table={name: values[first:end] for name, values in part.table.items()},
        seen=part.seen[start:stop],
    )


def _verified(path: str, seen: Seen, on_stale: Callable[[], None]) -> bytes | None:
    if seen.hash is None:
        return None
    try:
        data = _read(path, seen.size)
    except OSError as error:
        raise StageError(f"ingest.path: {path} {CHANGED} ({error.strerror})") from error
    if content_hash(data) != seen.hash:
        if _state(path) == seen[:2]:
            on_stale()
        raise StageError(f"ingest.path: {path} {CHANGED}")
    return data


def _read(path: str, size: int) -> bytes:
    """A file's bytes: one system call for its content, and one byte more than expected shows that it grew."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(handle, size + 1)
        if len(data) < size:  # a network file system may give less at a time, and Linux never gives more than 2 GiB
            chunks = [data]
            while chunk := os.read(handle, size + 1):
                chunks.append(chunk)
            data = b"".join(chunks)
        return data
    finally:
        os.close(handle)


@contextlib.contextmanager
def unchanged(path: str) -> Iterator[None]:
    """Holds a file to its size and time while it is read: whatever else goes wrong then has that for a reason.

    Raises:
        StageError: it changed.
    """
    before = _state(path)
    try:
        yield
    except Exception as error:
        if _state(path) != before:
            raise StageError(f"ingest.path: {path} {CHANGED}") from error
        raise
    if _state(path) != before:
        raise StageError(f"ingest.path: {path} {CHANGED}")


def _state(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
