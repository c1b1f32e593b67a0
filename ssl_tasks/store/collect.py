"""Garbage collection: removes what no kept run refers to, and never what somebody is working on.

collected = collect(store, keep_runs=10, dry_run=True)
collected.bytes_freed
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyarrow import fs

from ssl_tasks.artifact import Manifest
from ssl_tasks.store.filesystem import Store
from ssl_tasks.store.lease import is_held
from ssl_tasks.store.runs import RunRecord, list_runs


@dataclass
class Collected:
    """What was removed, or would be."""

    bytes_freed: int = 0
    artifacts: list[str] = field(default_factory=list)
    """Fingerprints of whole artifacts, and of attempts that never became one."""
    attempts: list[str] = field(default_factory=list)
    """`<fingerprint>/<attempt>` that a later attempt replaced."""
    partials: list[str] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def collect(store: Store, *, keep_runs: int | None = None, dry_run: bool = False) -> Collected:
    """Remove what no kept run refers to, ancestors included.

    Args:
        keep_runs: how many of the newest runs are kept, besides those still running; None keeps all.
        dry_run: only say what would go.
    """
    # Listed before the runs are read: a run's record is written before its first stage, so whatever is
    # made after this line belongs to a run that is seen, or is not in the list.
    objects, partials, leases = store.list("objects"), store.list("partial"), store.list("leases")
    runs = list_runs(store)
    kept = [run for place, run in enumerate(runs) if keep_runs is None or place < keep_runs or run.is_alive()]
    needed = _closure(store, kept)
    resumable = {s.fingerprint for run in kept if run.state != "completed" for s in run.stages}

    collected = Collected()
    for fingerprint in objects:
        if is_held(store, fingerprint):
            continue
        if fingerprint in needed:
            _old_attempts(store, fingerprint, collected, dry_run)
            continue
        collected.artifacts.append(fingerprint)
        # the manifest first: a crash in between leaves no artifact, instead of a damaged one
        _remove(store, f"objects/{fingerprint}/manifest.json", collected, dry_run)
        _remove(store, f"objects/{fingerprint}", collected, dry_run)
    for fingerprint in partials:
        if fingerprint not in resumable and not is_held(store, fingerprint):
            collected.partials.append(fingerprint)
            _remove(store, f"partial/{fingerprint}", collected, dry_run)
    for name in leases:
        if name.endswith(".json") and not is_held(store, name.removesuffix(".json")):
            collected.leases.append(name)
            _remove(store, f"leases/{name}", collected, dry_run)
    for run in runs:
        if run not in kept:
            collected.runs.append(run.run_id)
            _remove(store, f"runs/{run.run_id}.json", collected, dry_run)
    return collected


def _closure(store: Store, runs: list[RunRecord]) -> set[str]:
    """Fingerprints that the runs name, and all their ancestors."""
    found: set[str] = set()
    waiting = {stage.fingerprint for run in runs for stage in run.stages}
    for run in runs:  # an unfinished run has no manifest yet that would name what it builds upon
        for section, key in (("pretrain", "init_from"), ("split", "earlier"), ("adopt", "encoder")):
            waiting.add(str((run.recipe.get(section) or {}).get(key)).rpartition("/")[2])
        further = (run.recipe.get("transfer") or {}).get("encoders") or ()
        waiting.update(reference.rpartition("/")[2] for reference in further)
    while waiting:
        fingerprint = waiting.pop()
        found.add(fingerprint)
        manifest = _manifest(store, fingerprint)
        if manifest:
            waiting.update(set(manifest.parents.values()) - found)
    return found


def _old_attempts(store: Store, fingerprint: str, collected: Collected, dry_run: bool) -> None:
    manifest = _manifest(store, fingerprint)
    for name in store.list(f"objects/{fingerprint}"):
        if name == "manifest.json" or (manifest and name == manifest.attempt):
            continue
        collected.attempts.append(f"{fingerprint}/{name}")
        _remove(store, f"objects/{fingerprint}/{name}", collected, dry_run)


def _manifest(store: Store, fingerprint: str) -> Manifest | None:
    try:
        return store.find_manifest(fingerprint)
    except ValueError:  # damaged; the next run that wants the artifact makes it anew
        return None


def _remove(store: Store, path: str, collected: Collected, dry_run: bool) -> None:
    if dry_run and path.endswith("/manifest.json"):
        return  # its folder is counted next, with it
    collected.bytes_freed += _size(store, path)
    if not dry_run:
        store.delete(path)


def _size(store: Store, path: str) -> int:
    info = store.fs.get_file_info(store.full(path))
    if info.type != fs.FileType.Directory:
        return info.size or 0
    below = store.fs.get_file_info(fs.FileSelector(store.full(path), recursive=True))
    return sum(entry.size or 0 for entry in below)
