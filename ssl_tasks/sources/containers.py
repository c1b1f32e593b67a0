"""Files that hold many samples: found below a folder, with the splits that their names say."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from ssl_tasks.schema import SPLIT_NAMES
from ssl_tasks.sources import arrays, columnar, lists, tars
from ssl_tasks.sources.base import Names
from ssl_tasks.sources.walk import walk

FAMILIES = {
    "tars": tars.SUFFIXES,
    "Parquet or Arrow files": columnar.SUFFIXES,
    "lists": lists.SUFFIXES,
    "NumPy files": arrays.SUFFIXES,
}
"""Endings of each kind of container, by its name in messages."""


def family_of(name: str) -> str | None:
    """The kind of container that a file is, by its ending."""
    found = (family for family, suffixes in FAMILIES.items() if name.lower().endswith(suffixes))
    return next(found, None)


def examples(root: Path) -> dict[str, str]:
    """The first container of each kind below a folder."""
    suffixes = tuple(suffix for several in FAMILIES.values() for suffix in several)
    found: dict[str, str] = {}
    for name in walk(str(root), suffixes):
        found.setdefault(family_of(name) or "", name)
    return found


def below(root: Path, suffixes: tuple[str, ...]) -> Names:
    """The files below a folder with one of the endings."""
    return functools.partial(walk, str(root), suffixes)


def splits_by_name(names: Iterable[str]) -> dict[str, str]:
    """The split of each container, where all of them say one and not all the same.

    `train.csv`, `data/mnist_test-00000-of-00002.parquet` and `val/shard-3.tar` say it.
    """
    splits: dict[str, str] = {}
    for name in names:
        said = [set(map(SPLIT_NAMES.get, re.split(r"[^a-z]+", part))) - {None} for part in name.lower().split("/")]
        split = next((found.pop() for found in reversed(said) if len(found) == 1), None)
        if split is None:
            return {}
        splits[name] = split
    return splits if len(set(splits.values())) > 1 else {}
