"""Run the stages one after the other without Prefect; importable from test files and from their processes."""

from __future__ import annotations

from typing import Any

from ssl_tasks.artifact import Artifact
from ssl_tasks.materialize import materialize
from ssl_tasks.store import Store


def run_chain(store: Store, recipe: dict[str, dict[str, Any]], until: str = "augment") -> dict[str, Artifact]:
    """Materialize the stages up to `until` from plain sections; gives the artifacts by stage name."""
    from flows.recipe import build_recipe, dag_of

    built = build_recipe({"name": "test", "store": store.uri, **recipe}, where="test")
    artifacts: dict[str, Artifact] = {}
    fingerprints: dict[str, str] = {}
    configs: dict[str, Any] = {}
    for stage in dag_of(built):
        config = configs[stage.name] = built.config_of(stage)
        source = stage.source_of(configs, fingerprints, store.uri)
        fingerprints[stage.name] = stage.fingerprint(config, fingerprints, source)
        made = materialize(store, stage, config, artifacts, fingerprint=fingerprints[stage.name])
        artifacts[stage.name] = made.artifact
        if stage.name == until:
            break
    return artifacts
