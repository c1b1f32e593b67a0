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
    """What `folders: auto` means for a folder; looks for one file in each top folder that the answer depends on.

    Raises:
        RequestError: see `roles_of`.
    """

    def tops() -> Iterator[str]:
        has_others = False
        for entry in sorted_entries(str(root)):
            name = entry.removesuffix("/")
            if name == entry:
                if entry.lower().endswith(suffixes):
                    yield ""
            elif has_others and not _is_split(name):
                continue  # of thousands of classes, one is enough
            elif next(walk(f"{root}/{name}", suffixes), None) is not None:
                has_others |= not _is_split(name)
                yield name

    return roles_of(tops())


def roles_of(tops: Iterable[str], above: int = 0) -> list[FolderRole]:
    """[split, label] where the top folders, as far as they hold files, are called as splits are, else [label].

    Args:
        tops: the top folders that hold files; empty for a file that stands in none.
        above: number of folders above them, which mean nothing.

    Raises:
        RequestError: several are called as splits are, and another is not: the rows of test would be trained on.
    """
    loose, splits, others = False, dict[str, None](), []
    for name in tops:
        if not name:
            loose = True
        elif _is_split(name):
            splits[name] = None
        else:
            others.append(name)
    ignored: list[FolderRole] = ["ignore"] * above
    if len(splits) >= 2 and others:
        wanted = f"ingest.folders=[{', '.join([*ignored, 'label'])}]"
        raise RequestError(
            f"ingest.folders: {', '.join(map(repr, splits))} are called as splits are, and {others[0]!r} beside them "
            f"is not; set {wanted} if all of them are classes, otherwise move {others[0]!r} elsewhere or rename it to "
            f"{SPLIT_HINT}"
        )
    if others:
        return [*ignored, "label"]
    return [*ignored, "split", "label"] if len(splits) >= 2 or (splits and not loose) else [*ignored, "label"]


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_NAMES
