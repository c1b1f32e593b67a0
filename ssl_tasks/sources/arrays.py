"""NumPy files: `.npy` with a stack of images, `.npz` with images and labels, in splits where they are named so."""

from __future__ import annotations

import contextlib
import functools
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tasks.errors import RequestError
from ssl_tasks.parallel import ordered_map
from ssl_tasks.schema import LABEL, LABELS, SPLIT_NAMES, SPLITS
from ssl_tasks.sources.base import Names, Pair, Source, sample_tables
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.listing import unchanged
from ssl_tasks.sources.npy import Stack, open_npy, open_npz, require_plain
from ssl_tasks.sources.tensors import KEPT, npy_payloads, stored_dtype, to_stored
from ssl_tasks.sources.values import fill_split, role_columns

SUFFIXES = (".npy", ".npz")
IMAGES = frozenset({"images", "image", "imgs", "x", "data", "arr_0"})
TARGETS = frozenset({"labels", "label", "y", "targets", "target", "arr_1"})
BATCH_ROWS = 1024
BATCH_BYTES = 4 << 20
UNDER_WAY_BYTES = 32 << 20
DAMAGED = (
    *(OSError, ValueError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile),
    *(tokenize.TokenError, SyntaxError),  # of a header, which is a dictionary in Python's own words
)
"""What numpy and zipfile raise."""


class Arrays(Source):
    """The rows of one or more stacks of images."""

    kind = "arrays"
    what = "NumPy arrays"

    def __init__(self, config: SourceConfig, root: Path, names: Names, splits: Mapping[str, str]) -> None:
        """`splits`: by the file's name, the split of its rows where its arrays' names do not say it."""
        super().__init__(config, root, names)
        self.splits = splits

    def samples(self) -> Iterator[Pair]:
        """A row for each image; its payload is what `numpy.save` would write."""
        for part in self.listed():
            for name, path in zip(part.keys, part.paths, strict=True):
                with unchanged(path), _readable(path):
                    for images in self._images(name, path, self.ignored):
                        kind = self.depth if _is_wide(images.stack) else stored_dtype(images.stack.dtype, images.where)
                        yield from _samples(images, kind)

    @functools.cached_property
    def depth(self) -> np.dtype:
        """uint8 or uint16, for the integers of all files whose own type is neither.

        One for all, or 200 would be bright in one file and black in the next. uint16 where one of their values asks for
        it, or where a file is of uint16 already.
        """
        most = 0
        for part in self.parts(content=False):
            for name, path in zip(part.keys, part.paths, strict=True):
                with _readable(path):
                    most = max([most, *map(_most, self._images(name, path))])
        return np.dtype(np.uint8 if most <= 255 else np.uint16)

    def _images(self, name: str, path: str, ignored: Counter[str] | None = None) -> Iterator[_Images]:
        """The stacks of a file, which is open meanwhile; counts the arrays that are none."""
        given = self.splits.get(name)
        if name.lower().endswith(".npy"):
            with open_npy(path) as stack:
                yield _Images(name, "", _require_images(stack, name), None, given)
            return
        with open_npz(path) as stacks:
            pairs, unused = _pairs(path, stacks)
            if ignored is not None:
                ignored.update(f"array {array!r}" for array in unused)
            for split, (array, targets) in pairs.items():
                stack = _require_images(stacks[array], f"{name}:{array}")
                yield _Images(name, f":{array}", stack, stacks[targets] if targets else None, split or given)


@dataclass(frozen=True)
class _Images:
    """A stack of images, and what belongs to it."""

    name: str
    array: str
    """Of an .npz, behind a colon."""
    stack: Stack
    labels: Stack | None
    split: str | None

    @property
    def where(self) -> str:
        """For messages."""
        return f"ingest.path: {self.name}{self.array}"


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Names the file in whatever goes wrong with it."""
    try:
        yield
    except DAMAGED as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"ingest.path: {path} cannot be read: {error}") from error


def _require_images(stack: Stack, where: str) -> Stack:
    if not stack.is_images():
        raise RequestError(f"ingest.path: {where} has shape {stack.shape}; images are (N, H, W) or (N, H, W, C)")
    return stack


def _pairs(path: str, stacks: Mapping[str, Stack]) -> tuple[dict[str | None, tuple[str, str | None]], list[str]]:
    """By split, the names of the array with images and of the one with labels; and the names of all others."""
    images: dict[str | None, str] = {}
    targets: dict[str | None, str] = {}
    for name, stack in stacks.items():
        for base, split in _meanings(name):
            if base in IMAGES and stack.is_images():
                images.setdefault(split, name)
            elif base in TARGETS:
                targets.setdefault(split, name)
    if not images:
        for name, stack in stacks.items():
            require_plain(stack.dtype, f"{path}: {name}")
        several = [name for name, stack in stacks.items() if stack.is_images() and name not in targets.values()]
        if len(several) != 1:
            shown = ", ".join(f"{name} {stack.dtype} {stack.shape}" for name, stack in stacks.items()) or "nothing"
            problem = "several arrays that could be the images" if several else "no array of (N, H, W) or (N, H, W, C)"
            raise RequestError(f"ingest.path: {path} has {problem}; it holds {shown}. Name the one `images`")
        images = {None: several[0]}
    order = sorted(images, key=lambda split: -1 if split is None else SPLITS.index(split))
    pairs = {split: (images[split], targets.get(split)) for split in order}
    used = {name for pair in pairs.values() for name in pair}
    for image, target in pairs.values():
        if target and stacks[target].shape[:1] != stacks[image].shape[:1]:
            raise RequestError(
                f"ingest.path: {path}: {image} has {stacks[image].shape[0]} rows, and {target} has shape "
                f"{stacks[target].shape}"
            )
    return pairs, sorted(set(stacks) - used)


def _meanings(name: str) -> Iterator[tuple[str, str | None]]:
    """`x_train` as well as `train_images`; `arr_0`."""
    name = name.lower()
    yield name, None
    head, _, tail = name.partition("_")
    if head in SPLIT_NAMES:
        yield tail, SPLIT_NAMES[head]
    head, _, tail = name.rpartition("_")
    if tail in SPLIT_NAMES:
        yield head, SPLIT_NAMES[tail]


def _samples(images: _Images, dtype: np.dtype) -> Iterator[Pair]:
    stack = images.stack
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, stack.row_bytes)))
    columns = _targets(images.labels, rows, images.where) if images.labels else None

    def blocks() -> Iterator[tuple[int, np.ndarray, dict[str, Any]]]:
        first = 0
        for block in stack.blocks(rows):
            yield first, block, next(columns) if columns else {}
            first += len(block)

    def tables(item: tuple[int, np.ndarray, dict[str, Any]]) -> Pair:
        first, block, given = item
        places = [f"{images.name}#{first + row}{images.array}" for row in range(len(block))]
        fill_split(given, images.split, len(block))
        payloads: list[bytes | None] = [*npy_payloads(to_stored(block, dtype))]
        return sample_tables(places, payloads, [None] * len(block), given)

    yield from ordered_map(tables, blocks(), weigh=lambda item: item[1].nbytes, most=UNDER_WAY_BYTES)


def _is_wide(stack: Stack) -> bool:
    """Whether its values, and not its type, say which depth they need."""
    return stack.dtype.kind in "iu" and stack.dtype.newbyteorder("=") not in KEPT


def _most(images: _Images) -> int:
    """The largest value of integers, which a type of the images' own speaks for."""
    stack = images.stack
    if not _is_wide(stack):
        return 65_535 if stack.dtype.kind == "u" and stack.dtype.itemsize == 2 else 0
    least, most = 0, 0
    for block in stack.blocks(max(1, BATCH_BYTES // max(1, stack.row_bytes))):
        least, most = min(least, int(block.min())), max(most, int(block.max()))
    if least < 0 or most > 65_535:
        raise RequestError(
            f"{images.where} holds {stack.dtype} from {least} to {most}; store pixels as uint8, uint16 or float32"
        )
    return most


def _targets(stack: Stack, rows: int, where: str) -> Iterator[dict[str, Any]]:
    """Label columns, `rows` at a time: one value a row, or in (N, K) the places of what is not zero.

    Where each of the N rows has exactly one, they are classes and no sets of labels.
    """
    first, one_hot = 0, _is_one_hot(stack, rows)
    for block in stack.blocks(rows):
        if block.ndim == 2 and block.shape[1] == 1:
            block = block[:, 0]
        places = [f"{where}#{first + row}" for row in range(len(block))]
        if block.ndim == 1:
            yield role_columns({LABEL: block.tolist()}, {}, places)
        elif one_hot:
            yield {LABEL: [str(place) for place in block.argmax(axis=1)]}
        elif block.ndim == 2 and np.isin(block, (0, 1)).all():
            yield {LABELS: [[str(place) for place in np.flatnonzero(row)] for row in block]}
        else:
            raise RequestError(f"{where}: its labels have shape {stack.shape}; expected (N,), or (N, K) of 0 and 1")
        first += len(block)


def _is_one_hot(stack: Stack, rows: int) -> bool:
    """Whether every row of (N, K > 1) is 0 but for a single 1."""
    return (
        len(stack.shape) == 2
        and stack.shape[1] > 1
        and stack.dtype.kind in "buif"
        and all(((block == 1).sum(axis=1) == 1).all() and np.isin(block, (0, 1)).all() for block in stack.blocks(rows))
    )
