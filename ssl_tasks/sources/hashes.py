"""Content hashes: 128 bits of BLAKE2b, as 32 hex digits."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


def content_hash(data: bytes) -> str:
    """Hash of bytes in memory."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def content_hash_file(path: str | Path) -> str:
    """`content_hash` of a file's bytes, read in chunks: a table can be larger than memory."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, functools.partial(hashlib.blake2b, digest_size=16)).hexdigest()
