"""A store on a local folder or on object storage: atomic small writes, lookups, local copies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid, fs

from ssl_tasks.artifact import Artifact, Manifest
from ssl_tasks.errors import RequestError
from ssl_tasks.store.cache import LocalCache

FORMAT_VERSION = 1
FORMAT_FILE = "pretextflow-store.json"


class DamagedError(Exception):
    """An artifact's manifest exists but its files do not agree with it."""


_MANIFESTS: dict[tuple[str, str], Manifest] = {}
"""By store and fingerprint: all `Store`s of this process must agree on which attempt an artifact is."""


class Store:
    """Reads and writes below one root. Open it with `Store.open`, which checks that it is a store."""

    def __init__(self, uri: str) -> None:
        self.uri, self.fs, self.root = _open_filesystem(uri)
        self.is_local = isinstance(self.fs, fs.LocalFileSystem)
        self._cache = None if self.is_local else LocalCache()
        self._verified: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @classmethod
    def open(cls, uri: str) -> Store:
        """Open a store, making it where there is none.

        Raises:
            RequestError: the place is not writable, holds something else, or was written by a newer pretextflow.
        """
        store = cls(uri)
        try:
            known = store.read_json(FORMAT_FILE)
            if known is None:
                store._create()
            elif not isinstance(known, dict) or known.get("format", 0) > FORMAT_VERSION:
                raise RequestError(
                    f"store {store.uri}: format {known.get('format') if isinstance(known, dict) else known!r} is newer "
                    f"than this pretextflow reads ({FORMAT_VERSION}); upgrade pretextflow or choose another --store"
                )
        except (OSError, ArrowInvalid) as error:
            raise RequestError(f"store {store.uri}: cannot be used: {error}") from error
        return store

    def _create(self) -> None:
        # other processes may be making the same store just now, and a killed one may have left its temporary file
        found = [name for name in self.list("") if FORMAT_FILE not in name]
        if found and self.read_json(FORMAT_FILE) is None:
            raise RequestError(
                f"store {self.uri}: the folder holds something else (for example {found[0]!r}) and is not a "
                "pretextflow store; choose an empty or new folder with --store"
            )
        self.write_json(FORMAT_FILE, {"format": FORMAT_VERSION})

    def full(self, path: str) -> str:
        """`path` inside the file system."""
        return f"{self.root}/{path}" if path else self.root

    def list(self, path: str) -> list[str]:
        """Names directly below `path`, sorted; nothing where it does not exist."""
        infos = self.fs.get_file_info(fs.FileSelector(self.full(path), allow_not_found=True))
        return sorted(info.base_name for info in infos)

    def read_bytes(self, path: str) -> bytes | None:
        """A small file, or None where there is none."""
        try:
            with self.fs.open_input_stream(self.full(path)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a small file so that readers see the old or the new one, never a part."""
        if not self.is_local:
            with self.fs.open_output_stream(self.full(path)) as stream:  # object storage shows whole objects only
                stream.write(data)
            return
        target = Path(self.full(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)

    def read_json(self, path: str) -> Any:
        """A JSON file, or None where there is none or where it is not JSON."""
        data = self.read_bytes(path)
        try:
            return None if data is None else json.loads(data)
        except ValueError:
            return None

    def write_json(self, path: str, value: Any) -> None:
        """Write JSON atomically."""
        self.write_bytes(path, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def delete(self, path: str) -> None:
        """Delete a file or a folder with all below it; nothing happens where it does not exist."""
        full = self.full(path)
        kind = self.fs.get_file_info(full).type
        with contextlib.suppress(FileNotFoundError):
            if kind == fs.FileType.Directory:
                self.fs.delete_dir(full)
            elif kind == fs.FileType.File:
                self.fs.delete_file(full)

    def manifest(self, fingerprint: str) -> Manifest:
        """The manifest of an artifact.

        Raises:
            RequestError: there is no such artifact.
        """
        known = _MANIFESTS.get((self.uri, fingerprint))
        if known is None:
            known = self.find_manifest(fingerprint)
            if known is None:
                raise RequestError(f"store {self.uri}: no artifact {fingerprint}")
        return known

    def find_manifest(self, fingerprint: str) -> Manifest | None:
        """The manifest as it stands in the store now, or None."""
        data = self.read_json(f"objects/{fingerprint}/manifest.json")
        if data is None:
            return None
        manifest = Manifest.model_validate(data)
        _MANIFESTS[self.uri, fingerprint] = manifest
        return manifest

    def commit(self, manifest: Manifest) -> Artifact:
        """Write the manifest, which makes the artifact exist."""
        self.write_json(f"objects/{manifest.fingerprint}/manifest.json", manifest.model_dump(mode="json"))
        _MANIFESTS[self.uri, manifest.fingerprint] = manifest
        self._verified.add((manifest.fingerprint, manifest.attempt))
        return self.handle(manifest)

    def handle(self, manifest: Manifest) -> Artifact:
        """The handle of a committed artifact."""
        return Artifact(self.uri, manifest.fingerprint, manifest.stage, manifest.rows)

    def lookup(self, fingerprint: str, *, verify: bool = False) -> Artifact | None:
        """The artifact, or None where there is none. Sizes are always checked, checksums with `verify`.

        Raises:
            DamagedError: a file is missing, has another size, or (with `verify`) another checksum.
        """
        try:
            manifest = self.find_manifest(fingerprint)
        except ValueError as error:
            raise DamagedError("the manifest cannot be read") from error
        if manifest is None:
            return None
        verify = verify and (fingerprint, manifest.attempt) not in self._verified
        for name, entry in manifest.files.items():
            path = self.full(f"objects/{fingerprint}/{manifest.attempt}/{name}")
            info = self.fs.get_file_info(path)
            if info.type != fs.FileType.File or info.size != entry.bytes:
                raise DamagedError(
                    f"{name} is missing" if info.type != fs.FileType.File else f"{name} has another size"
                )
            if verify:
                with self.fs.open_input_stream(path) as stream:
                    hasher = hashlib.sha256()
                    while chunk := stream.read(1 << 20):
                        hasher.update(chunk)
                if hasher.hexdigest() != entry.sha256:
                    raise DamagedError(f"{name} has another checksum")
        if verify:
            self._verified.add((fingerprint, manifest.attempt))
        return self.handle(manifest)

    def local_path(self, artifact: Artifact, name: str) -> Path:
        """A path that can be memory-mapped: the file itself, or its copy in the local cache."""
        manifest = self.manifest(artifact.fingerprint)
        path = f"objects/{artifact.fingerprint}/{manifest.attempt}/{name}"
        return self.local_file(path, manifest.files[name].sha256)

    def local_file(self, path: str, sha256: str) -> Path:
        """The same for a path in the store."""
        full = self.full(path)
        return Path(full) if self._cache is None else self._cache.get(self.fs, full, sha256)


def _open_filesystem(uri: str) -> tuple[str, fs.FileSystem, str]:
    if "://" not in uri:
        root = str(Path(uri).expanduser().absolute())
        return root, fs.LocalFileSystem(), root
    try:
        filesystem, root = fs.FileSystem.from_uri(_in_one_piece(uri))
    except (ArrowInvalid, OSError, ValueError) as error:
        raise RequestError(f"store {uri}: not a path or URI that can be opened: {error}") from error
    if isinstance(filesystem, fs.LocalFileSystem):
        return root, filesystem, root
    return uri, filesystem, root.rstrip("/")


def _in_one_piece(uri: str) -> str:
    """Small files go to S3 by one request and not by three; that a bucket refuses them is then seen when they close."""
    if not uri.startswith("s3://") or "allow_delayed_open=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"
