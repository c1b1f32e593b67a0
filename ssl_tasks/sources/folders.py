"""Images in folders: one file a sample, whose folders say its split, label, group or domain."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import DOMAIN, GROUP_ID, LABEL, SPLIT, SPLIT_NAMES
from ssl_tasks.sources.base import Names, Pair, Source, sample_tables
from ssl_tasks.sources.config import FolderRole, SourceConfig
from ssl_tasks.sources.listing import PART_FILES, Part, read_parts
from ssl_tasks.sources.values import SPLIT_HINT
from ssl_tasks.sources.walk import sorted_entries, walk

COLUMNS = {"split": SPLIT, "label": LABEL, "group": GROUP_ID, "domain": DOMAIN}
"""Column of `schema.ROWS` for each role of a folder."""


class Folders(Source):
    """A folder of files, or one file, each of which is a sample."""

    kind = "folders"
    what = "images in folders"
    keys = frozenset({"folders"})
    unit = "files"

    def __init__(self, config: SourceConfig, root: Path, names: Names, roles: Sequence[FolderRole]) -> None:
        super().__init__(config, root, names)
        self.roles = roles

    def parts(self, *, content: bool) -> Iterator[Part]:
        """Files in the order of their paths."""
        names = self.names(self.ignored if content else None)
        while keys := list(itertools.islice(names, PART_FILES)):
            yield Part(keys, [f"{self.root}/{key}" for key in keys], list(range(len(keys))))

    def samples(self) -> Iterator[Pair]:
        """A row for each file; one that links to nowhere has no payload."""
        for part, contents in read_parts(self.listed(), self.memory.forget):
            hashes = [seen.hash for seen in part.seen]
            yield sample_tables(part.keys, contents, hashes, folder_values(part.keys, self.roles))

    def total(self) -> int | None:
        """What the listing that the plan needed has counted."""
        return len(self.memory) or None

    def facts(self) -> dict[str, Any]:
        """Also what the folders were taken for."""
        return {**super().facts(), "folders": list(self.roles)}


def folder_values(names: Iterable[str], roles: Sequence[FolderRole]) -> dict[str, list[Any]]:
    """Columns of `schema.ROWS`, as the folders of these paths have them; null where a file stands less deep.

    Raises:
        RequestError: a folder at the level of splits is called otherwise.
    """
    known: dict[str, list[str | None]] = {}
    rows = []
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in known:
            known[folder] = _values(name, folder.split("/") if folder else [], roles)
        rows.append(known[folder])
    named = [(place, COLUMNS[role]) for place, role in enumerate(roles) if role != "ignore"]
    return {column: [row[place] for row in rows] for place, column in named}


def _values(name: str, levels: list[str], roles: Sequence[FolderRole]) -> list[str | None]:
    values: list[str | None] = [*levels, *[None] * len(roles)][: len(roles)]
    for place, (value, role) in enumerate(zip(values, roles, strict=True)):
        if role == "split" and value is not None:
            values[place] = SPLIT_NAMES.get(value.lower())
            if values[place] is None:
                raise RequestError(
                    f"ingest.folders: the folder {value!r} of {name} stands where the split is expected and is not "
                    f"{SPLIT_HINT}; name what each level means, for example ingest.folders=[label]"
                )
    return values


def roles_below(root: Path, suffixes: tuple[str, ...]) -> list[FolderRole]:
    """What `folders: auto` means for a folder; looks only for one file in each of the folders at its top."""

    def tops() -> Iterator[str]:
        for entry in sorted_entries(str(root)):
            if not entry.endswith("/"):
                if entry.lower().endswith(suffixes):
                    yield ""
            elif next(walk(f"{root}/{entry[:-1]}", suffixes), None) is not None:
                yield entry[:-1]

    return roles_of(tops())


def roles_of(tops: Iterable[str]) -> list[FolderRole]:
    """[split, label] where the top folders, as far as they hold files, are called as splits are, else [label].

    Args:
        tops: the top folders that hold files; empty for a file that stands in none.
    """
    loose, splits = False, set()
    for name in tops:
        if not name:
            loose = True
        elif name.lower() in SPLIT_NAMES:
            splits.add(name)
        else:
            return ["label"]
    return ["split", "label"] if len(splits) >= 2 or (splits and not loose) else ["label"]
