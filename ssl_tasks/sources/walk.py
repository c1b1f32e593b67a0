"""The files below a folder, as a stream in the order of their whole relative paths.

    for name in walk("/data/photos", (".jpg", ".png")):
        ...                                                # "cats/0001.jpg", "cats/0002.jpg", "dogs/0001.jpg"

Memory holds the names of one folder at a time, and those packed where there are many.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.errors import RequestError

FEW = 16_384
"""Names of one folder that are held as Python strings; more are packed: 70 bytes a name would become 20."""
MAX_SUFFIXES = 100
OTHER = "other"
HIDDEN = "hidden"
NO_SUFFIX = "no suffix"


def walk(root: str, suffixes: tuple[str, ...], ignored: Counter[str] | None = None) -> Iterator[str]:
    """Posix paths, relative to `root`, of the files with one of the endings, sorted as whole paths are.

    Hidden files and folders are passed over. Links are followed, but not back to a folder that they stand in; a
    link to nowhere counts as a file, for whoever reads it to report.

    Args:
        ignored: counts, by suffix, the files with other endings.

    Raises:
        RequestError: a folder cannot be read, or a name is not UTF-8.
    """
    above = [os.path.realpath(root)]
    stack = [("", sorted_entries(root, ignored))]
    while stack:
        prefix, entries = stack[-1]
        name = next(entries, None)
        if name is None:
            stack.pop()
            above.pop()
        elif name.endswith("/"):
            real = os.path.realpath(f"{root}/{prefix}{name}")
            if real not in above:
                above.append(real)
                stack.append((f"{prefix}{name}", sorted_entries(f"{root}/{prefix}{name[:-1]}", ignored)))
        elif name.lower().endswith(suffixes):
            yield f"{prefix}{name}"
        elif ignored is not None:
            count_ignored(ignored, name)


def sorted_entries(folder: str, ignored: Counter[str] | None = None) -> Iterator[str]:
    """What stands in a folder, sorted; folders end in a slash, which puts them where their whole paths belong."""
    packed: list[pa.Array] = []
    names: list[str] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if is_hidden(entry.name):
                    if ignored is not None:
                        ignored[HIDDEN] += 1
                    continue
                kind = _kind(entry)
                if kind == "special":  # opening a pipe would wait for ever
                    if ignored is not None:
                        count_ignored(ignored, entry.name)
                    continue
                names.append(f"{entry.name}/" if kind == "folder" else entry.name)
                if len(names) == FEW:
                    packed.append(_packed(folder, names))
                    names = []
    except OSError as error:
        raise RequestError(f"ingest.path: the folder {folder!r} cannot be read: {error.strerror}") from error
    packed.append(_packed(folder, names))  # also where they are few: it refuses names that are not UTF-8
    if len(packed) == 1:
        yield from sorted(names)
        return
    del names
    whole = pa.concat_arrays(packed)
    packed.clear()
    order = pc.array_sort_indices(whole)
    for start in range(0, len(order), FEW):
        yield from whole.take(order[start : start + FEW]).to_pylist()


def _packed(folder: str, names: list[str]) -> pa.Array:
    try:
        return pa.array(names, pa.large_string())
    except UnicodeEncodeError as error:  # Arrow's columns and the names in a listing are UTF-8
        (wrong,) = [name for name in names if not is_utf8(name)][:1]
        raise RequestError(f"ingest.path: the name {f'{folder}/{wrong}'!r} is not UTF-8; rename it") from error


def is_utf8(name: str) -> bool:
    """Whether a name can be written as UTF-8; bytes that are none stand in it as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's data: `.DS_Store`, `.git`, `__MACOSX` of an archive."""
    return name.startswith(".") or name == "__MACOSX"


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "special"
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):  # a link in a circle, or to no name, leads nowhere
            return "file"
        raise


def count_ignored(ignored: Counter[str], name: str) -> None:
    """Count a file that is not read, under its suffix; names like `scan.0001` must not fill the memory."""
    suffix = os.path.splitext(name)[1].lower() or NO_SUFFIX
    ignored[suffix if suffix in ignored or len(ignored) < MAX_SUFFIXES else OTHER] += 1
