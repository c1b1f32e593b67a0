"""Two runs of a store side by side: recipes, stages and why they differ, and what `ssl_tasks.report` says of the rest.

found = compare_runs(store, find_run(store, "2026"), find_run(store, "2027"))
found["recipe"], found["transfer"]["headline"]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from flows.plan import leaves, otherwise, reasons
from flows.recipe import dag_of, recipe_model
from ssl_tasks.artifact import Manifest
from ssl_tasks.config import is_execution
from ssl_tasks.report import difference
from ssl_tasks.report.difference import Side
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RunRecord, StageRecord


def compare_runs(store: Store, old: RunRecord, new: RunRecord) -> dict[str, Any]:
    """What differs between two runs, as plain JSON values."""
    sides = (side(store, old), side(store, new))
    return {
        "old": _about(old),
        "new": _about(new),
        "recipe": recipe(old.recipe, new.recipe),
        "stages": list(_stages(store, old, new)),
        "data": difference.data(*sides),
        "training": difference.training(*sides),
        "transfer": difference.transfer(*sides),
    }


def side(store: Store, record: RunRecord) -> Side:
    """A run with those of its artifacts that are in the store."""
    found = {
        stage.name: store.handle(manifest)
        for stage in record.stages
        if stage.status in ("ran", "cached") and (manifest := store.find_manifest(stage.fingerprint))
    }
    metrics = {name: artifact.measured for name, artifact in found.items()}
    return Side(record.run_id, record.recipe, {**record.metrics, **metrics}, found)


def _about(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "name": record.name,
        "state": record.state,
        "started": record.started,
        "seconds": record.seconds,
        "report": record.report,
    }


def recipe(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`key`, `old`, `new` of each key whose value differs, None where a recipe has none; first those that count.

    A key that a recipe of an earlier version does not have counts as its default. `changes_result` is false for
    workers, devices and the like, which no fingerprint holds.
    """
    before, after = dict(leaves(old)), dict(leaves(new))
    models = [recipe_model(dag_of(values)) for values in (new, old)]
    lines = []
    for key in dict.fromkeys([*after, *before]):
        counts, default = _about_key(key, models)
        line = {"key": key, "old": before.get(key, default), "new": after.get(key, default), "changes_result": counts}
        if line["old"] != line["new"]:
            lines.append(line)
    return sorted(lines, key=lambda line: not line["changes_result"])


def _about_key(key: str, models: Sequence[type[BaseModel]]) -> tuple[bool, Any]:
    """Whether a key of a recipe is part of fingerprints, as what today's recipes do not know is taken to be, and its
    default as plain JSON, None where there is none."""
    if key == "name":
        return False, None
    *sections, last = key.split(".")
    first = key.split(".")[0]
    model = next((one for one in models if first in one.model_fields), models[0])
    for part in sections:
        info = model.model_fields.get(part)
        if info is None or not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
            return True, None
        if is_execution(model, part):
            return False, None
        model = info.annotation
    info = model.model_fields.get(last)
    if info is None or info.is_required():
        return not (info and is_execution(model, last)), None
    default = model.model_construct(**{last: info.get_default(call_default_factory=True)})
    return not is_execution(model, last), default.model_dump(mode="json", include={last})[last]


def _stages(store: Store, old: RunRecord, new: RunRecord) -> Iterator[dict[str, Any]]:
    known = {stage.name: stage for stage in dag_of(new.recipe)}
    before, after = ({stage.name: stage for stage in record.stages} for record in (old, new))
    for name in dict.fromkeys([*after, *before]):
        yield {
            "name": name,
            "same": name in before and name in after and before[name].fingerprint == after[name].fingerprint,
            "old": _stage(before.get(name)),
            "new": _stage(after.get(name)),
            "why": _why(store, known.get(name), before.get(name), after.get(name)),
        }


def _stage(record: StageRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return record.model_dump(include={"status", "seconds", "rows", "fingerprint", "reason"})


def _why(store: Store, stage: Stage | None, old: StageRecord | None, new: StageRecord | None) -> str:
    """Why the artifacts are two; empty where they are one."""
    if old is None or new is None:
        return f"only in the {'new' if old is None else 'old'} run"
    if old.fingerprint == new.fingerprint:
        return ""
    manifests = [store.find_manifest(record.fingerprint) for record in (old, new)]
    if stage is None or manifests[0] is None or manifests[1] is None:
        missing = [name for name, made in zip(("old", "new"), manifests, strict=True) if made is None]
        return f"the artifact of the {' and the '.join(missing)} run is not in the store"
    return _between(stage, manifests[0], manifests[1])


def _between(stage: Stage, old: Manifest, new: Manifest) -> str:
    try:
        config = stage.config.model_validate(new.config)
    except ValidationError:
        return "made under a config that is not known any more"
    return reasons(config, new.versions, new.parents, old, otherwise=otherwise(stage))
