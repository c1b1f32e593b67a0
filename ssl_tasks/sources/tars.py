"""Tars, read as streams: WebDataset shards, whose samples are members of one name, and packed folders of images."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_tasks.errors import RequestError
from ssl_tasks.parallel import ordered_map
from ssl_tasks.schema import LABEL, MASK, PAYLOAD, SOURCE, SPLIT_NAMES
from ssl_tasks.sources.base import Names, Pair, Source, sample_tables
from ssl_tasks.sources.config import FolderRole, SourceConfig
from ssl_tasks.sources.folders import folder_values, roles_of
from ssl_tasks.sources.listing import unchanged
from ssl_tasks.sources.tar_members import Member, members
from ssl_tasks.sources.values import ROLES, TARGETS, fill_split, role_columns
from ssl_tasks.sources.walk import count_ignored

SUFFIXES = (".tar", ".tar.gz", ".tgz")
SIDECARS = ("cls", "json", "txt")
MASKS = ("mask", "seg")
BATCH_ROWS = 512
BATCH_BYTES = 4 << 20
UNDER_WAY_BYTES = 32 << 20
MAX_FOLDERS = 10_000

Row = dict[str, Any]
"""A sample: SOURCE, PAYLOAD, and whatever else of `schema.ROWS` it has."""


class Tars(Source):
    """The samples in one or more tars."""

    kind = "tars"
    what = "tars"
    keys = frozenset({"folders", "captions", "masks", *(f"{role}_column" for role in (ROLES | TARGETS).values())})

    def __init__(
        self, config: SourceConfig, root: Path, names: Names, suffixes: tuple[str, ...], splits: Mapping[str, str]
    ) -> None:
        """`suffixes`: of images. `splits`: by the tar's name, the split of its rows that have none of their own."""
        super().__init__(config, root, names)
        self.suffixes, self.splits = suffixes, splits
        self.roles: Sequence[FolderRole] | None = None
        self._known_keys = False

    def samples(self) -> Iterator[Pair]:
        """A row for each sample of a shard, or for each image of a packed folder."""
        self.roles = self._folder_roles()
        for part in self.listed():
            for name, path in zip(part.keys, part.paths, strict=True):
                rows = self._samples(name, path) if self.roles is None else self._images(name, path)
                with unchanged(path):
                    split = self.splits.get(name)
                    batches = ((batch, split) for batch in _batches(rows))
                    yield from ordered_map(
                        self._tables, batches, weigh=lambda item: sum(map(_weight, item[0])), most=UNDER_WAY_BYTES
                    )

    def _folder_roles(self) -> Sequence[FolderRole] | None:
        """What folders in the tars mean; None where members beside the images say it."""
        paths = (f"{self.root}/{name}" for name in self.names(None))
        folders = packed_folders(paths, self.suffixes, labelled=self.config.folders != "auto")
        for key in self.keys:
            means_nothing = (key == "folders") == (folders is None)
            if means_nothing and getattr(self.config, key) not in (None, "auto", False):
                found = "have .cls, .json or .txt beside" if folders is None else "have no .cls, .json or .txt beside"
                raise RequestError(f"ingest.{key}: means nothing here, as the tars {found} their images; leave it out")
        if folders is None:
            return None
        return _auto_roles(folders) if self.config.folders == "auto" else self.config.folders

    def _images(self, name: str, path: str) -> Iterator[Row]:
        number = itertools.count()
        for member in members(path, self.ignored):
            if member.name.lower().endswith(self.suffixes):
                where = f"{name}#{next(number)}:{member.name}"
                yield {SOURCE: where, PAYLOAD: member.read(), "member": member.name}
            else:
                count_ignored(self.ignored, member.name)

    def _samples(self, name: str, path: str) -> Iterator[Row]:
        number = 0
        for files in _grouped(members(path, self.ignored), self.suffixes):
            names = sorted(files)
            pictures = [extension for extension in names if f".{extension}".endswith(self.suffixes)]
            images = [extension for extension in pictures if extension.partition(".")[0] not in MASKS]
            masks = [extension for extension in pictures if extension not in images]
            used = {*images[:1], *masks[:1], *SIDECARS} if images else set()
            for extension in names:
                if extension not in used:
                    count_ignored(self.ignored, files[extension][0])
            if images:
                member, payload = files[images[0]]
                where = f"{name}#{number}:{member}"
                row = {SOURCE: where, PAYLOAD: payload, MASK: files[masks[0]][1] if masks else None}
                yield row | self._sidecars({kind: files[kind][1] for kind in SIDECARS if kind in files}, where)
                number += 1

    def _sidecars(self, found: Mapping[str, bytes | None], where: str) -> Row:
        """Values for the columns of `ROLES`, and those of `TARGETS` that are named, from `.json`, `.cls` and `.txt`."""
        values: Row = dict.fromkeys(self._columns())
        if data := found.get("json"):
            values |= self._described(data, where)
        if "cls" in found:
            values[LABEL] = found["cls"]
        if "txt" in found:
            values["text"] = found["txt"]
        return values

    def _described(self, data: bytes, where: str) -> Row:
        try:
            described = json.loads(data)
        except ValueError as error:
            raise RequestError(f"ingest.path: {where}: its .json is not JSON: {error}") from error
        if not isinstance(described, dict):
            raise RequestError(f"ingest.path: {where}: its .json is no object")
        given = self._columns()
        roles = ROLES | TARGETS
        for column, key in given.items():
            if not self._known_keys and key is not None and key not in described:
                raise RequestError(
                    f"ingest.{roles[column]}_column: the .json of {where} has no key {key!r} (it has "
                    f"{', '.join(map(str, described))})"
                )
        self._known_keys = True
        return {column: described.get(key or ROLES[column]) for column, key in given.items()}

    def _columns(self) -> dict[str, str | None]:
        """What the config calls the columns that may be given."""
        given = {column: getattr(self.config, f"{role}_column") for column, role in (ROLES | TARGETS).items()}
        return {column: key for column, key in given.items() if column in ROLES or key is not None}

    def _tables(self, item: tuple[list[Row], str | None]) -> Pair:
        rows, split = item
        sources, payloads = [row[SOURCE] for row in rows], [row[PAYLOAD] for row in rows]
        if self.roles is None:
            columns = role_columns({column: [row[column] for row in rows] for column in self._columns()}, {}, sources)
            columns[MASK] = [row[MASK] for row in rows]
        else:
            columns = folder_values([row["member"] for row in rows], self.roles)
        fill_split(columns, split, len(rows))
        return sample_tables(sources, payloads, [None] * len(rows), columns)

    def facts(self) -> dict[str, Any]:
        """Also what the folders in them were taken for."""
        return {**super().facts(), **({} if self.roles is None else {"folders": list(self.roles)})}


def _grouped(found: Iterable[Member], suffixes: tuple[str, ...]) -> Iterator[dict[str, tuple[str, bytes | None]]]:
    """Members that stand together and have one key: by extension, the name and, of what may be used, the bytes."""
    files: dict[str, tuple[str, bytes | None]] = {}
    before: str | None = None
    for member in found:
        if files and (member.key != before or member.extension in files):
            yield files
            files = {}
        wanted = member.extension in SIDECARS or f".{member.extension}".endswith(suffixes)
        files[member.extension] = (member.name, member.read() if wanted else None)
        before = member.key
    if files:
        yield files


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == BATCH_ROWS or size + _weight(row) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += _weight(row)
    if batch:
        yield batch


def _weight(row: Row) -> int:
    return len(row[PAYLOAD]) + len(row.get(MASK) or b"")


def packed_folders(paths: Iterable[str], suffixes: tuple[str, ...], *, labelled: bool = False) -> set[str] | None:
    """The folders of the images in some tars, at most `MAX_FOLDERS`; None as soon as an image has a sidecar.

    Args:
        labelled: that folders are labels was said, and `.cls` files are none.

    Raises:
        RequestError: there are `.cls` files and none belongs to an image: all labels would be lost.
    """
    folders: set[str] = set()
    stray: str | None = None
    for path in paths:
        before, kinds = "", set[str]()
        for member in members(path):
            if stray is None and member.name.lower().endswith(".cls"):
                stray = f"{path}: member {member.name!r}"
            if member.key != before:
                before, kinds = member.key, set()
            is_image = f".{member.extension}".endswith(suffixes)
            is_mask = is_image and member.extension.partition(".")[0] in MASKS
            kinds.add("sidecar" if is_mask or member.extension in SIDECARS else "image" if is_image else "other")
            if {"sidecar", "image"} <= kinds:
                return None
            if is_image and len(folders) < MAX_FOLDERS:
                folders.add(os.path.dirname(member.name))
    if stray and not labelled:
        raise RequestError(
            f"ingest.path: {stray} belongs to no image, and neither does another .cls; what makes a sample stands one "
            "behind the other in one folder, under one name up to its first dot. Pack it so, or say by ingest.folders "
            "what the folders in the tars mean"
        )
    return folders


def _auto_roles(folders: set[str]) -> list[FolderRole]:
    """As for a folder on a disk; but what stands above all images is the packed folder's own name, and no label.

    A folder called as a split is means the same where it is the only one.
    """
    common = os.path.commonpath(folders) if folders else ""
    shared = common.split("/") if common else []
    depth = next((place for place, name in enumerate(shared) if name.lower() in SPLIT_NAMES), len(shared))
    tops = {"".join(folder.split("/")[depth : depth + 1]) for folder in folders}
    return roles_of(sorted(tops), depth)
