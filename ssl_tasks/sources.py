"""Where data comes from: the files below a path, their content hashes, and the built-in data sets.

Hashes are cached by path, size and time of change, so an unchanged folder is recognized without reading it.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_tasks.config import digest
from ssl_tasks.errors import RequestError
from ssl_tasks.parallel import ordered_map
from ssl_tasks.store.cache import cache_home

BUILTIN = "builtin:"


def content_hash(data: bytes) -> str:
    """128 bits of BLAKE2b, as 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def content_hash_file(path: Path) -> str:
    """`content_hash` of a file's bytes, read in chunks: a table can be larger than memory."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, functools.partial(hashlib.blake2b, digest_size=16)).hexdigest()


def find_files(path: str, suffixes: Sequence[str]) -> tuple[Path, list[Path]]:
    """The root folder and the files below it with one of the endings, sorted by relative path.

    Args:
        path: a folder, one file, or `builtin:digits` / `builtin:cancer`.

    Raises:
        RequestError: there is no such path, nothing in it can be read, or a name in it is not UTF-8.
    """
    root = builtin(path.removeprefix(BUILTIN)) if path.startswith(BUILTIN) else Path(path).expanduser().absolute()
    if not root.exists():
        raise RequestError(f"ingest.path: there is no file or folder {root}")
    if root.is_file():
        if root.suffix.lower() not in suffixes:
            raise RequestError(f"ingest.path: {root} is none of {', '.join(suffixes)}")
        return root.parent, [root]
    found = [
        Path(folder) / name
        for folder, names in _walk(root)
        for name in names
        if name.lower().endswith(tuple(suffixes)) and not name.startswith(".")
    ]
    if not found:
        raise RequestError(f"ingest.path: {root} has no usable file (looked for {', '.join(suffixes)})")
    for file in found:
        try:
            str(file).encode()
        except UnicodeEncodeError as error:  # Arrow's columns and the names in a listing are UTF-8
            raise RequestError(f"ingest.path: the name {str(file)!r} is not UTF-8; rename it") from error
    return root, sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder and the names of its files; links are followed, but not back to a folder that they stand in."""
    inside = {str(root): frozenset({os.path.realpath(root)})}
    for folder, folders, names in os.walk(root, followlinks=True):
        above = inside.pop(folder)
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in folders}
        folders[:] = sorted(name for name in folders if real[name] not in above)
        inside |= {os.path.join(folder, name): above | {real[name]} for name in folders}
        yield folder, names


def listing_hash(root: Path, files: Sequence[Path]) -> str:
    """Hash of relative paths and contents; reads only files that changed since the last time."""
    memory = cache_home() / "sources" / f"{digest(str(root))[:32]}.json"
    known = _remembered(memory)

    def entry(file: Path) -> tuple[str, list[object]]:
        name, stat = file.relative_to(root).as_posix(), file.stat()
        match known.get(name):
            case [stat.st_size, stat.st_mtime_ns, str()] as old:
                return name, old
        return name, [stat.st_size, stat.st_mtime_ns, content_hash_file(file)]

    current = dict(ordered_map(entry, files))
    if current != known:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f".{uuid.uuid4().hex}")
        temporary.write_text(json.dumps(current))
        os.replace(temporary, memory)
    return combined_hash([(name, str(values[2])) for name, values in current.items()])


def _remembered(memory: Path) -> dict[str, Any]:
    """What the memory file holds; nothing where it is absent or damaged, for it only saves time."""
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def combined_hash(contents: Sequence[tuple[str, str]]) -> str:
    """One hash for (relative path, content hash) of all files."""
    hasher = hashlib.sha256()
    for name, content in contents:
        hasher.update(f"{content} {name}\n".encode())
    return hasher.hexdigest()


def builtin(name: str) -> Path:
    """Folder of a data set that ships with scikit-learn, written out once as a user's would be.

    Raises:
        RequestError: there is none of that name.
    """
    writers = {"digits": _write_digits, "cancer": _write_cancer}
    if name not in writers:
        raise RequestError(f"ingest.path: no built-in data {BUILTIN}{name}; there are {', '.join(writers)}")
    target = cache_home() / "data" / name
    if not target.exists():
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        writers[name](temporary)
        try:
            temporary.rename(target)  # whole or not at all
        except OSError:
            shutil.rmtree(temporary)  # another process was first
    return target


def _write_digits(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(place / f"{number:04d}.png")


def _write_cancer(folder: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    cancer = load_breast_cancer()
    with open(folder / "breast_cancer.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(name.replace(" ", "_") for name in cancer.feature_names), "diagnosis"])
        for values, label in zip(cancer.data, cancer.target, strict=True):
            writer.writerow([*(repr(float(value)) for value in values), cancer.target_names[label]])
