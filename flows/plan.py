"""What a run would do, worked out up front: fingerprints need only the parents' fingerprints.

for planned in make_plan(recipe, store):
    print(planned.stage.name, planned.status, planned.reason)
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flows.recipe import Recipe, dag_of
from ssl_tasks.artifact import Manifest
from ssl_tasks.config import Config, semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Store
from ssl_tasks.store.filesystem import DamagedError
from ssl_tasks.store.runs import RunRecord, list_runs


@dataclass(frozen=True)
class Planned:
    """One stage of a plan."""

    stage: Stage
    config: Config
    fingerprint: str
    status: Literal["cached", "run", "damaged"]
    reason: str
    last_seconds: float | None
    """How long it took the last time, under this or an earlier config."""

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name


def make_plan(
    recipe: Recipe,
    store: Store,
    *,
    stages: tuple[Stage, ...] | None = None,
    forced: Collection[str] = (),
) -> list[Planned]:
    """Each stage with its fingerprint, whether it is in the store, and why it is not.

    Raises:
        RequestError: the source cannot be read.
    """
    history = [record for record in list_runs(store) if record.name == recipe.name]
    fingerprints: dict[str, str] = {}
    configs: dict[str, Config] = {}
    plan = []
    for stage in stages or dag_of(recipe):
        config = configs[stage.name] = recipe.config_of(stage)
        source = stage.source_of(configs, fingerprints, store.uri)
        fingerprint = fingerprints[stage.name] = stage.fingerprint(config, fingerprints, source)
        plan.append(_planned(stage, config, fingerprint, fingerprints, store, history, stage.name in forced))
    return plan


def stages_from(stages: tuple[Stage, ...], first: str) -> list[str]:
    """Names of the stage `first` and of those after it.

    Raises:
        RequestError: there is no such stage.
    """
    names = [stage.name for stage in stages]
    if first not in names:
        raise RequestError(f"--from {first}: no such stage; there are {', '.join(names)}")
    return names[names.index(first) :]


def _planned(
    stage: Stage,
    config: Config,
    fingerprint: str,
    fingerprints: Mapping[str, str],
    store: Store,
    history: list[RunRecord],
    forced: bool,
) -> Planned:
    damage = None
    try:
        found = store.lookup(fingerprint)
    except DamagedError as error:
        found, damage = None, str(error)
    if found:
        manifest = store.manifest(fingerprint)
        made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(manifest.started))
        reason = "forced" if forced else f"unchanged, made {made}"
        return Planned(stage, config, fingerprint, "run" if forced else "cached", reason, manifest.seconds)
    previous = _previous(store, stage, fingerprint, history)
    seconds = previous.seconds if previous else None
    if damage:
        return Planned(stage, config, fingerprint, "damaged", f"damaged: {damage}", seconds)
    if _was_made(stage, fingerprint, history):
        reason = "removed from the store"
    else:
        reason = _difference(stage, config, fingerprints, previous) if previous else "first time"
    return Planned(stage, config, fingerprint, "run", reason, seconds)


def _was_made(stage: Stage, fingerprint: str, history: list[RunRecord]) -> bool:
    """Whether a run of the recipe had the very artifact that is not there now."""
    entries = (entry for record in history for entry in record.stages if entry.name == stage.name)
    return any(entry.fingerprint == fingerprint and entry.status in ("ran", "cached") for entry in entries)


def _previous(store: Store, stage: Stage, fingerprint: str, history: list[RunRecord]) -> Manifest | None:
    """The stage's manifest in the newest run of the recipe that finished the stage under another fingerprint."""
    for record in history:
        for earlier in record.stages:
            if earlier.name != stage.name or earlier.fingerprint == fingerprint:
                continue
            try:
                manifest = store.find_manifest(earlier.fingerprint)
            except ValueError:
                continue
            if manifest:
                return manifest
    return None


def _difference(stage: Stage, config: Config, fingerprints: Mapping[str, str], previous: Manifest) -> str:
    return reasons(
        config,
        stage.versions(config),
        {parent: fingerprints[parent] for parent in stage.inputs},
        previous,
        otherwise=otherwise(stage),
    )


def otherwise(stage: Stage) -> str:
    """Why two artifacts of a stage are not the same where config, versions and inputs are."""
    if stage.source:
        return "source files changed"
    return "other data of encoders is at hand" if stage.beside else "made of other parts"


def reasons(
    config: Config, versions: Mapping[str, int], parents: Mapping[str, str], previous: Manifest, *, otherwise: str
) -> str:
    """Why an artifact that is made of this is not the one that `previous` describes.

    Args:
        otherwise: what there is to say where none of this is the reason.
    """
    found = [f"config {text}" for text in _changed_fields(config, previous.config)]
    for name, version in versions.items():
        old = previous.versions.get(name)
        if old is not None and old != version:
            found.append(f"version {name} {old} -> {version}")
    found += [f"input {name} changed" for name, parent in parents.items() if previous.parents.get(name) != parent]
    if not found:
        found.append(otherwise)
    return ", ".join(found)


def _changed_fields(config: Config, old: Mapping[str, Any]) -> Iterator[str]:
    new_values, old_values = dict(leaves(semantic(config))), dict(leaves(old))
    for key in sorted({*new_values, *old_values}):
        before = old_values[key] if key in old_values else _default(config, key)
        after = new_values[key] if key in new_values else _default(config, key)
        if before != after:
            yield f"{key} {_changed(before, after)}"


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_ABSENT = object()
WIDTH = 40
"""Letters of a value in a reason."""


def _default(config: Config, key: str) -> Any:
    """The default behind a field that was left out because it had it; `_ABSENT` where there is none."""
    model: Any = type(config)
    value: Any = _ABSENT
    for part in key.split("."):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return _ABSENT
        value = fields[part].get_default(call_default_factory=True) if not fields[part].is_required() else _ABSENT
        model = type(value) if isinstance(value, Config) else fields[part].annotation
    return value


def _changed(before: Any, after: Any) -> str:
    """`4 -> 2`; of lists that are too long to stand side by side what came and what went: `+lora -net2net`."""
    short = max(len(_text(before)), len(_text(after))) <= WIDTH
    if short or not (isinstance(before, list | tuple) and isinstance(after, list | tuple)):
        return f"{_show(before)} -> {_show(after)}"
    came = [f"+{value}" for value in after if value not in before]
    went = [f"-{value}" for value in before if value not in after]
    return _cut(" ".join([*came, *went]) or "in another order", 2 * WIDTH)


def _show(value: Any) -> str:
    return _cut(_text(value), WIDTH)


def _text(value: Any) -> str:
    return "unset" if value is _ABSENT or value is None else str(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
