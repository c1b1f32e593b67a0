"""Which column of a list or data set means what: named by the config, or found by the name it usually has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import BOXES, MASK, PAYLOAD, TEXT
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.values import ROLES, TARGETS

CONTENT_NAMES = ("path", "file_name", "filename", "file", "filepath", "image", "img", "jpg", "jpeg", "png", "bytes")


@dataclass(frozen=True)
class Batch:
    """Some rows of a container."""

    first: int
    """Number of the first of them in the container."""
    columns: Mapping[str, list[Any]]
    """Values; for images bytes, or a path as str; None where there is nothing."""


class Reader(Protocol):
    """An open container."""

    @property
    def names(self) -> Sequence[str]:
        """Its columns."""
        ...

    @property
    def sparse(self) -> bool:
        """Whether rows may have further columns, as lines of JSON may."""
        ...

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """By column, the names that stand for 0, 1, ..."""
        ...

    def holds(self, name: str) -> Literal["paths", "content", "values"]:
        """What a column's type can hold: text may be paths; bytes, tensors and structs of bytes are content."""
        ...

    def batches(self, contents: Sequence[str], others: Sequence[str]) -> Iterator[Batch]:
        """All rows in batches bounded in bytes: columns of images, and columns of plain values."""
        ...

    def paths(self, contents: Sequence[str]) -> Iterator[Batch]:
        """Rows that name files: str for these, None for what stands in the container, which need not be read."""
        ...


@dataclass(frozen=True)
class Columns:
    """Columns that mean something, by the column of `schema.ROWS` or the payload that they give."""

    content: dict[str, str]
    """Payload and mask."""
    roles: dict[str, str]

    def named(self) -> dict[str, str]:
        """By role, as a user calls it."""
        called = {PAYLOAD: "image", MASK: "mask", BOXES: "boxes", **ROLES, **TARGETS}
        return {called[column]: name for column, name in (self.content | self.roles).items()}


def choose(reader: Reader, config: SourceConfig, file: str, before: Columns) -> Columns:
    """The columns of one container.

    Args:
        before: those of the container before it; what it has may not be missing here.

    Raises:
        RequestError: a column is missing, or holds what cannot be meant.
    """
    content = {PAYLOAD: _content_column(reader, config, file)}
    mask = _column(reader, config, file, "mask")
    if mask is not None and (config.mask_column or reader.holds(mask) != "values"):
        content[MASK] = mask
    for role, name in content.items():
        if reader.holds(name) == "values":
            key = "image_column" if role == PAYLOAD else "mask_column"
            raise RequestError(f"ingest.{key}: column {name!r} of {file} holds neither paths nor content of images")
    if config.masks and MASK not in content:
        raise _lacking("masks", "mask", reader, file)
    found = {column: _column(reader, config, file, role) for column, role in (ROLES | TARGETS).items()}
    if config.boxes or config.boxes_column:
        found[BOXES] = _column(reader, config, file, "boxes")
    if config.boxes and found[BOXES] is None:
        raise _lacking("boxes", "boxes", reader, file)
    if config.captions and found[TEXT] is None:
        raise _lacking("captions", ROLES[TEXT], reader, file)
    if absent := [name for name in config.class_columns if name not in reader.names]:
        raise RequestError(f"ingest.class_columns: {file} has no column {absent[0]!r} (it has {_shown(reader)})")
    columns = Columns(content, {column: name for column, name in found.items() if name is not None})
    if lost := sorted(before.named().keys() - columns.named().keys()):
        raise RequestError(f"ingest.path: {file} lacks the column {before.named()[lost[0]]!r} of the file before it")
    return columns


def _lacking(key: str, role: str, reader: Reader, file: str) -> RequestError:
    return RequestError(
        f"ingest.{key}: {file} has no column {role!r} (it has {_shown(reader)}); name the one with the {key} with "
        f"ingest.{role}_column"
    )


def _column(reader: Reader, config: SourceConfig, file: str, role: str) -> str | None:
    named: str | None = getattr(config, f"{role}_column")
    if named is not None and named not in reader.names:
        raise RequestError(f"ingest.{role}_column: {file} has no column {named!r} (it has {_shown(reader)})")
    if named is None and role not in TARGETS.values() and (role in reader.names or reader.sparse):
        return role
    return named


def _content_column(reader: Reader, config: SourceConfig, file: str) -> str:
    """Of the usual names one whose column holds content comes before a path, which may be a mere record of origin."""
    if config.image_column is not None and _column(reader, config, file, "image"):
        return config.image_column
    usual = [name for name in CONTENT_NAMES if name in reader.names]
    for kind in ("content", "paths"):
        for name in usual:
            if reader.holds(name) == kind:
                return name
    raise RequestError(
        f"ingest.path: {file} has no column with paths or contents of images (it has {_shown(reader)}; looked for "
        f"{', '.join(CONTENT_NAMES)}); name it with ingest.image_column"
    )


def _shown(reader: Reader) -> str:
    names = list(reader.names)
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
