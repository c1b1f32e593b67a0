"""NumPy arrays on disk, a block of rows at a time. Pickled objects are never loaded."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ssl_tasks.errors import RequestError

ENCRYPTED = 0x1
"""Of a zip member's flags."""


class Stack:
    """An array of N rows that can be read from its begin, more than once."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, blocks: Callable[[int], Iterator[np.ndarray]]) -> None:
        self.shape, self.dtype = shape, dtype
        self.blocks = blocks
        """Gives (rows, ...) arrays, the last one shorter."""

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def is_images(self) -> bool:
        """Whether it can be (N, H, W) or (N, H, W, C) pixels."""
        return len(self.shape) in (3, 4) and self.dtype.kind in "buif" and self.row_bytes > 0


@contextlib.contextmanager
def open_npy(path: str) -> Iterator[Stack]:
    """An .npy file, memory-mapped.

    Raises:
        RequestError: it holds Python objects.
        ValueError: it is damaged.
    """
    with open(path, "rb") as stream:
        require_plain(_header(stream, path)[2], path)
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)

    def blocks(rows: int) -> Iterator[np.ndarray]:
        for first in range(0, mapped.shape[0], rows):
            yield mapped[first : first + rows]

    yield Stack(mapped.shape, mapped.dtype, blocks)


@contextlib.contextmanager
def open_npz(path: str) -> Iterator[dict[str, Stack]]:
    """The arrays of an .npz file, by name; each is unpacked as it is read.

    Raises:
        RequestError: an array that is read holds Python objects, or is stored in Fortran order; one is encrypted.
        ValueError, zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        yield {name.removesuffix(".npy"): _member(archive, name, f"{path}: {name}") for name in names}


def _member(archive: zipfile.ZipFile, name: str, where: str) -> Stack:
    if archive.getinfo(name).flag_bits & ENCRYPTED:
        raise RequestError(f"ingest.path: {where} is encrypted; save it without a password")
    with archive.open(name) as stream:
        shape, fortran, dtype = _header(stream, where)

    def blocks(rows: int) -> Iterator[np.ndarray]:
        require_plain(dtype, where)
        if fortran and len(shape) > 1:  # its rows do not stand one behind the other
            raise RequestError(f"ingest.path: {where} is in Fortran order; save numpy.ascontiguousarray of it")
        with archive.open(name) as stream:
            _header(stream, where)
            for first in range(0, shape[0], rows):
                here = (min(rows, shape[0] - first), *shape[1:])
                data = stream.read(math.prod(here) * dtype.itemsize)
                yield np.frombuffer(data, dtype).reshape(here)

    return Stack(shape, dtype, blocks)


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise RequestError(f"ingest.path: {where} has fields with names, and images have none")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(stream)


def require_plain(dtype: np.dtype, where: str) -> None:
    """Refuse Python objects, whose loading would run what stands in the file."""
    if dtype.hasobject:
        raise RequestError(
            f"ingest.path: {where} holds Python objects (a ragged array, or a list of strings), which are never "
            "loaded; store equal shapes in one array of numbers"
        )
