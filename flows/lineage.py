"""From an artifact back to the raw files, with nothing but the store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.stored import default_store, open_to_read
from ssl_tasks.artifact import Manifest
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import ROWS_FILE, SOURCE
from ssl_tasks.store import Store
from ssl_tasks.store.runs import find_run, run_ids

SHOWN_FILES = 5
_ROW = re.compile(r"(?s)^(?P<file>.*?)#\d+(?: -> (?P<named>.*)|:.*)?$")
"""A row of a file, which may name another file, or a member of it."""


def resolve(text: str, uri: str | None) -> tuple[Store, str]:
    """The store and the full fingerprint behind a fingerprint's start, a path or URI, or a run id.

    Raises:
        RequestError: there is none, or there are several.
    """
    root, found, below = text.partition("/objects/")
    if found:
        store, wanted = open_to_read(uri or root), below.split("/")[0]
    elif (Path(text).expanduser() / "manifest.json").is_file():
        folder = Path(text).expanduser().absolute()
        store, wanted = open_to_read(uri or str(folder.parent.parent)), folder.name
    else:
        store, wanted = open_to_read(uri or default_store()), text
    if wanted in run_ids(store):
        made = [stage for stage in find_run(store, wanted).stages if stage.uri]
        if not made:
            raise RequestError(f"run {wanted}: it has made no artifact")
        return store, made[-1].fingerprint
    matches = [name for name in store.list("objects") if name.startswith(wanted)]
    if len(matches) == 1:
        return store, matches[0]
    if matches:
        raise RequestError(f"artifact {text}: {len(matches)} fingerprints start with this; give more digits")
    raise RequestError(f"artifact {text}: no artifact and no run of this name in {store.uri}")


def trace(store: Store, fingerprint: str, *, all_files: bool = False) -> tuple[list[str], list[dict[str, Any]]]:
    """The tree as text lines, and its nodes (each once) for JSON."""
    lines: list[str] = []
    nodes: dict[str, dict[str, Any]] = {}

    def walk(current: str, lead: str, below: str) -> None:
        manifest = store.find_manifest(current)
        if manifest is None:
            lines.append(f"{lead}{current[:12]}  not in this store")
            return
        label = f"{manifest.stage} {current[:12]}  {manifest.rows:,} rows"
        if current in nodes:
            lines.append(f"{lead}{label}  (see above)")
            return
        lines.append(f"{lead}{label}")
        sources = _sources(store, manifest)
        nodes[current] = {
            "stage": manifest.stage,
            "fingerprint": current,
            "rows": manifest.rows,
            "parents": manifest.parents,
            "config": manifest.config,
            "versions": manifest.versions,
            "data_checksum": manifest.data_checksum,
            "sources": sources,
        }
        children = list(manifest.parents.values())
        for place, parent in enumerate(children):
            last = place == len(children) - 1
            walk(parent, f"{below}{'└─ ' if last else '├─ '}", f"{below}{'   ' if last else '│  '}")
        shown = sources if all_files else sources[:SHOWN_FILES]
        lines.extend(f"{below}   {name}" for name in shown)
        if len(sources) > len(shown):
            lines.append(f"{below}   ... and {len(sources) - len(shown):,} more files (--files lists them)")

    walk(fingerprint, "", "")
    return lines, list(nodes.values())


def _sources(store: Store, manifest: Manifest) -> list[str]:
    """Raw files of an artifact without parents: those that hold rows, and those that rows name."""
    if manifest.parents or ROWS_FILE not in manifest.files:
        return []
    table = store.handle(manifest).table(ROWS_FILE, columns=[SOURCE])
    return sorted({file for source in table[SOURCE].to_pylist() for file in _files(str(source))})


def _files(source: str) -> Iterator[str]:
    row = _ROW.match(source)
    yield row["file"] if row else source
    if row and row["named"] is not None:
        yield os.path.normpath(os.path.join(os.path.dirname(row["file"]), row["named"]))
