"""Bring one artifact into being, or find it: the only way a stage is run."""

from __future__ import annotations

import importlib.metadata
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from ssl_tasks.artifact import Artifact, Manifest
from ssl_tasks.config import Config, semantic
from ssl_tasks.errors import StageError
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output, Store
from ssl_tasks.store.filesystem import DamagedError
from ssl_tasks.store.lease import lease

LIBRARIES = ("pretextflow", "torch", "timm", "ray", "pyarrow", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Materialized:
    """What became of one stage."""

    artifact: Artifact
    status: Literal["ran", "cached"]
    seconds: float
    warning: str | None = None


def materialize(
    store: Store,
    stage: Stage,
    config: Config,
    parents: Mapping[str, Artifact],
    *,
    fingerprint: str,
    force: bool = False,
    verify: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> Materialized:
    """Find the artifact of `fingerprint` or make it.

    Args:
        force: make it anew although it exists.
        verify: check the checksums of a found one, for when a later stage is about to read it.
        on_wait: told the name of another run that is making the same artifact.

    Raises:
        PretextflowError: whatever the stage refuses.
    """
    began = time.monotonic()
    found, warning = find(store, fingerprint, verify)
    if found and not force:
        return Materialized(found, "cached", time.monotonic() - began)
    with lease(store, fingerprint, on_wait) as still_ours:
        if not force:
            found, _ = find(store, fingerprint, verify=False) if warning is None else (None, None)
            if found:  # another run made it while this one waited
                return Materialized(found, "cached", time.monotonic() - began)
        started, clock = time.time(), time.monotonic()
        out = Output(store.uri, fingerprint, uuid.uuid4().hex[:12], stage.name)
        handle = stage.run(config, out, *(parents[name] for name in stage.inputs))
        _require_unchanged(stage, config, fingerprint)
        if not still_ours():
            raise StageError(f"{stage.name}: this run stood still and another took the stage over; run again")
        manifest = Manifest(
            fingerprint=fingerprint,
            attempt=out.attempt,
            stage=stage.name,
            versions=stage.versions(config),
            config=semantic(config),
            parents={name: parents[name].fingerprint for name in stage.inputs} | out.read,
            rows=handle.rows,
            files=dict(sorted(out.entries.items())),
            measured=out.measured,
            schemas=out.schemas,
            started=started,
            seconds=time.monotonic() - clock,
            libraries=_library_versions(),
        )
        artifact = store.commit(manifest)
        store.delete(f"partial/{fingerprint}")
    pa.default_memory_pool().release_unused()  # Arrow would keep what the stage had for the ones that follow
    return Materialized(artifact, "ran", time.monotonic() - began, warning)


def _require_unchanged(stage: Stage, config: Config, fingerprint: str) -> None:
    """What was read must be what the fingerprint was made from; both were some time apart."""
    if stage.source and stage.fingerprint(config, {}, stage.source(config)) != fingerprint:
        raise StageError(f"{stage.name}: the source changed after the run was planned; run again when it rests")


def find(store: Store, fingerprint: str, verify: bool) -> tuple[Artifact | None, str | None]:
    """The artifact where there is a whole one, and why it is made anew where it is damaged."""
    try:
        return store.lookup(fingerprint, verify=verify), None
    except DamagedError as damage:
        return None, f"artifact {fingerprint[:12]} is damaged ({damage}) and is made anew"


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
