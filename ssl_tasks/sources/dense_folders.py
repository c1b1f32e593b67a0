"""Images in folders with masks in a folder beside them, or with boxes in a COCO annotation file.

data/images/a.jpg, data/masks/a.png             ingest: {path: data, masks: true}
data/train/images/a.jpg, data/train/masks/a.png
data/a.jpg, data/instances.json                 ingest: {path: data, boxes: true, boxes_file: instances.json}
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import BOXES, MASK, PAYLOAD, SOURCE
from ssl_tasks.sources.base import Names, Pair, sample_tables
from ssl_tasks.sources.boxes import Box, read_coco
from ssl_tasks.sources.config import FolderRole, SourceConfig
from ssl_tasks.sources.folders import Folders, folder_values, roles_of
from ssl_tasks.sources.listing import Part, read_parts
from ssl_tasks.sources.walk import sorted_entries, walk

ARRAYS = (".npy",)
"""Masks may be arrays, too, which as images would be containers of many."""
LISTINGS = 16
"""Folders of masks whose names are held at once."""
FIRST = "\0"
"""Sorts before every path, as the keys of a listing ascend."""


class DenseFolders(Folders):
    """See `Folders`; each sample may have a mask or boxes."""

    keys = Folders.keys | {"masks", "mask_folder", "boxes", "boxes_file"}

    def __init__(
        self, config: SourceConfig, root: Path, names: Names, roles: Sequence[FolderRole], suffixes: tuple[str, ...]
    ) -> None:
        """Args as in `Folders`, and

        suffixes: of images.

        Raises:
            RequestError: there are to be boxes, and no file of them is named.
        """
        if config.boxes and not config.boxes_file:
            raise RequestError(
                "ingest.boxes: name the COCO annotation file of these images with ingest.boxes_file, or point "
                "ingest.path at a list of images with a column of boxes"
            )
        super().__init__(config, root, functools.partial(_images, names, config), roles)
        self.masks = _Masks(root, config.mask_folder, suffixes + ARRAYS) if config.masks else None
        self.boxes_path = root / config.boxes_file if config.boxes and config.boxes_file else None

    def parts(self, *, content: bool) -> Iterator[Part]:
        """The file of boxes, then images in the order of their paths, each followed by its mask."""
        if self.boxes_path:
            yield Part([FIRST], [str(self.boxes_path)], [])
        for images in super().parts(content=content):
            part = Part([], [], [], table={SOURCE: images.keys})
            for row, name in enumerate(images.keys):
                part.add(name, f"{self.root}/{name}", row, PAYLOAD)
                mask = self.masks.of(name) if self.masks else None
                if mask is not None:
                    part.add(f"{name}{FIRST}{mask}", f"{self.root}/{mask}", row, MASK)
            yield part

    def samples(self) -> Iterator[Pair]:
        """A row for each image."""
        boxes = _Boxes(read_coco(self.boxes_path)) if self.boxes_path else None
        described = (part for part in self.listed() if part.table)
        for part, contents in read_parts(described, self.memory.forget):
            names: list[str] = part.table[SOURCE]
            found: dict[str, list[Any]] = {role: [None] * len(names) for role in (PAYLOAD, MASK)}
            hashes: list[str | None] = [None] * len(names)
            for row, role, seen, data in zip(part.rows, part.roles, part.seen, contents, strict=True):
                found[role][row] = data
                if role == PAYLOAD:
                    hashes[row] = seen.hash
            columns = folder_values(names, self.roles) | {MASK: found[MASK]}
            if boxes:
                columns[BOXES] = [boxes.of(name) for name in names]
            yield sample_tables(names, found[PAYLOAD], hashes, columns)

    def total(self) -> int | None:
        """Not known: the listing counts masks, too."""
        return None


def _images(names: Names, config: SourceConfig, ignored: Counter[str] | None) -> Iterator[str]:
    for name in names(ignored):
        if not (config.masks and config.mask_folder in name.split("/")[:-1]):
            yield name


class _Masks:
    """Finds the mask of an image by its path; holds the names of a few folders at a time."""

    def __init__(self, root: Path, folder: str, suffixes: tuple[str, ...]) -> None:
        self.root, self.folder, self.suffixes = root, folder, suffixes
        self._listed = functools.lru_cache(LISTINGS)(self._listing)

    def of(self, image: str) -> str | None:
        """Relative path of the mask; None where there is none.

        Raises:
            RequestError: two files have its name.
        """
        *folders, name = image.split("/")
        stem = name.rpartition(".")[0]
        for place in range(len(folders) + 1):
            for after in (place + 1, place):
                folder = "/".join([*folders[:place], self.folder, *folders[after:]])
                if (found := self._listed(folder).get(stem)) is not None:
                    return f"{folder}/{found}"
        return None

    def _listing(self, folder: str) -> dict[str, str]:
        if not (self.root / folder).is_dir():
            return {}
        found: dict[str, str] = {}
        for name in sorted_entries(f"{self.root}/{folder}"):
            if not name.lower().endswith(self.suffixes):
                continue
            stem = name.rpartition(".")[0]
            if stem in found:
                raise RequestError(
                    f"ingest.mask_folder: {folder} has {found[stem]!r} and {name!r}, and which of them is the mask of "
                    f"the image {stem!r} is not known; remove one"
                )
            found[stem] = name
        return found


class _Boxes:
    def __init__(self, by_name: dict[str, list[Box]]) -> None:
        self.by_name = by_name

    def of(self, image: str) -> list[Box] | None:
        """By the path, or the end of it that the file calls the image by; None where it has no such image."""
        while image not in self.by_name:
            _, slash, image = image.partition("/")
            if not slash:
                return None
        return self.by_name[image]


def roles_beside(root: Path, suffixes: tuple[str, ...], config: SourceConfig) -> list[FolderRole]:
    """What `folders: auto` means for images with masks or boxes: splits, where folders are called so, and no labels.

    They stand at the top, or below the one folder that holds all images.

    Raises:
        RequestError: as `folders.roles_of`.
    """
    tops = list(_tops(root, suffixes, config))
    roles = roles_of(tops)
    if roles == ["label"] and len(tops) == 1 and tops[0]:
        roles = roles_of(_tops(root / tops[0], suffixes, config), above=1)
    return [role for role in roles if role != "label"]


def _tops(root: Path, suffixes: tuple[str, ...], config: SourceConfig) -> Iterator[str]:
    """The folders with images; empty for an image that stands in none."""
    for entry in sorted_entries(str(root)):
        name = entry.removesuffix("/")
        if name == entry:
            if entry.lower().endswith(suffixes):
                yield ""
        elif config.masks and name == config.mask_folder:
            continue
        elif next(walk(f"{root}/{name}", suffixes), None) is not None:
            yield name
