"""Folders that Hugging Face `datasets` wrote with `save_to_disk`, read without it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import SPLIT_NAMES
from ssl_tasks.sources.class_names import class_names
from ssl_tasks.sources.columnar import ColumnarReader, open_columnar
from ssl_tasks.sources.values import SPLIT_HINT
from ssl_tasks.sources.walk import count_ignored, walk

DICT_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    return (folder / DICT_FILE).is_file() or ((folder / STATE_FILE).is_file() and (folder / INFO_FILE).is_file())


@dataclass(frozen=True)
class Saved:
    """The files of a saved data set or of several, one a split."""

    root: Path
    files: tuple[str, ...]
    """Relative names, sorted within each split."""
    infos: frozenset[str]
    """Those of them that describe the columns."""
    splits: dict[str, str]
    """By file, the split of its rows."""
    classes: dict[str, dict[str, list[str]]]
    """By folder, the class names of its columns."""

    def names(self, ignored: Counter[str] | None) -> Iterator[str]:
        """The files; counts what lies beside them, such as caches."""
        yield from self.files
        if ignored is not None:
            known = {*self.files, DICT_FILE}
            for name in walk(str(self.root), ("",)):
                if name not in known and not name.endswith(STATE_FILE):
                    count_ignored(ignored, name)

    def open(self, path: str) -> AbstractContextManager[ColumnarReader]:
        """Open a data file."""
        return open_columnar(path, self.classes[os.path.dirname(path)] or None)


def saved_at(root: Path) -> Saved:
    """The files of what was saved at `root`.

    Raises:
        RequestError: a file that describes it is damaged or missing, or a split's name says not which it is.
    """
    several = (root / DICT_FILE).is_file()
    folders = [f"{name}/" for name in sorted(map(str, _json(root / DICT_FILE).get("splits", [])))] if several else [""]
    files: list[str] = []
    splits: dict[str, str] = {}
    for folder in folders:
        data = [f"{folder}{name}" for name in _data_files(root / folder)]
        files += [*data, f"{folder}{INFO_FILE}"]
        split = SPLIT_NAMES.get(folder[:-1].lower())
        if several and split is None:
            raise RequestError(
                f"ingest.path: {root} has the split {folder[:-1]!r}, which is not {SPLIT_HINT}; rename it, or point "
                "ingest.path at the folder of one split"
            )
        splits |= dict.fromkeys(data, split or "")
    return Saved(
        root,
        tuple(files),
        frozenset(f"{folder}{INFO_FILE}" for folder in folders),
        splits if several else {},
        {os.path.dirname(f"{root}/{folder}{INFO_FILE}"): _saved_class_names(root / folder) for folder in folders},
    )


def _data_files(folder: Path) -> list[str]:
    """Names of a saved data set's own files, in order; other Arrow files beside them are caches.

    Raises:
        RequestError: it is damaged, or holds a selection that was not written out.
    """
    state = _json(folder / STATE_FILE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise RequestError(f"ingest.path: {folder} is a selection of rows; save it again with a newer `datasets`")
    files = [str(entry["filename"]) for entry in state.get("_data_files", [])]
    for name in files:
        if not (folder / name).is_file():
            raise RequestError(f"ingest.path: {folder / name} is missing, and {STATE_FILE} names it")
    return files


def _saved_class_names(folder: Path) -> dict[str, list[str]]:
    """By column, the names of its classes."""
    return class_names(_json(folder / INFO_FILE).get("features") or {})


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(f"ingest.path: {path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise RequestError(f"ingest.path: {path} holds no JSON object")
    return value
