"""A node's local copies of files on object storage, so that shards can be memory-mapped. Bounded in bytes."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from pyarrow import fs


def cache_home() -> Path:
    """`$XDG_CACHE_HOME/pretextflow` or `~/.cache/pretextflow`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretextflow"


class LocalCache:
    """Copies addressed by checksum; the least recently used go when the bound is passed."""

    def __init__(self, root: Path | None = None, max_bytes: int | None = None) -> None:
        self.root = root or cache_home() / "shards"
        self.max_bytes = max_bytes or int(os.environ.get("PRETEXTFLOW_CACHE_BYTES", 50 << 30))

    def get(self, filesystem: fs.FileSystem, path: str, sha256: str) -> Path:
        """Local path of a file, copied where it is not here yet or where a crash has cut its copy."""
        target = self.root / sha256[:2] / f"{sha256}{Path(path).suffix}"
        if target.exists() and target.stat().st_size == filesystem.get_file_info(path).size:
            os.utime(target)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        with filesystem.open_input_stream(path) as source, open(temporary, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        os.replace(temporary, target)
        self._shrink(keep=target)
        return target

    def _shrink(self, keep: Path) -> None:
        files = [(entry.stat(), entry) for entry in self.root.glob("*/*") if not entry.name.startswith(".")]
        total = sum(stat.st_size for stat, _ in files)
        for stat, entry in sorted(files, key=lambda pair: pair[0].st_mtime):
            if total <= self.max_bytes:
                return
            if entry != keep:
                entry.unlink(missing_ok=True)  # a process that has it mapped keeps its pages
                total -= stat.st_size
