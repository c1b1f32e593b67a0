"""A recipe: name, seed, store, and one section per stage, checked against the stages' own configs.

recipe = load_recipe("digits", ["pretrain.epochs=5"])
recipe.config_of(stage)
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, create_model

from flows.recipe_files import named_method, read_recipe
from flows.stored import ADOPT, DEFAULT_STORE, STORE_VARIABLE, with_fingerprints
from ssl_tasks.config import Config, deep_merge, execution, explain, parse_override
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.base import Stage
from ssl_tasks.training.config import MethodChoice

SHARED_FIELDS = ("seed", "modality", "captions", "masks", "boxes")
"""Fields of stage configs that the recipe fills where the section does not set them."""


class Recipe(Config):
    """What all recipes have; `recipe_model` adds a section for each stage."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")
    seed: int = Field(0, ge=0, lt=2**31)
    store: str = execution(DEFAULT_STORE)
    """--store, --set store=, PRETEXTFLOW_STORE, this key and the default, in this order."""
    retries: int = execution(1, ge=0, le=20)
    """How often a stage is tried again after an unforeseen error. What it refuses is not tried again."""
    retry_delay: float = execution(2.0, ge=0)
    """Seconds before it is tried again."""
    ray_address: str | None = execution(None)
    """host:port of a Ray cluster with a node on this host; http://host:8265, its job server, where there is none: each
    stage is then a Ray job. None starts a local Ray, unless RAY_ADDRESS is set."""
    queue: str | None = execution(None)
    """Name of a Prefect concurrency limit of training workers: the training waits until its `num_workers` are free."""

    def config_of(self, stage: Stage) -> Config:
        """The stage's config, out of its section (two stages may share one)."""
        section: Config = getattr(self, stage.section_name)
        if type(section) is stage.config:
            return section
        return stage.config.model_validate({name: getattr(section, name) for name in stage.config.model_fields})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with all defaults, for run records and Prefect's parameters."""
        return self.model_dump(mode="json")


@functools.lru_cache(maxsize=8)
def recipe_model(stages: tuple[Stage, ...]) -> type[Recipe]:
    """The pydantic model of a recipe for these stages."""
    sections: dict[str, type[Config]] = {}
    for stage in stages:
        known = sections.get(stage.section_name)
        if known is None or issubclass(stage.config, known):
            sections[stage.section_name] = stage.config
    fields: dict[str, Any] = {}
    for name, config in sections.items():
        required = any(info.is_required() for info in config.model_fields.values())
        fields[name] = (config, ...) if required else (config, Field(default_factory=config))
    return create_model("Recipe", __base__=Recipe, **fields)


def default_dag() -> tuple[Stage, ...]:
    """The project's DAG, imported when somebody needs it."""
    from flows.dag import DAG

    return DAG


def dag_of(recipe: Mapping[str, Any] | Recipe) -> tuple[Stage, ...]:
    """The DAG of a recipe: one with a section `adopt` evaluates an encoder that is there already."""
    if ADOPT not in (recipe if isinstance(recipe, Mapping) else type(recipe).model_fields):
        return default_dag()
    from flows.dag import TRANSFER

    return TRANSFER


def load_recipe(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    store: str | None = None,
    stages: tuple[Stage, ...] | None = None,
) -> Recipe:
    """Read a recipe file or a built-in recipe, lay the overrides over it and check it.

    Raises:
        RequestError: no such recipe, broken YAML, an unknown key or a wrong value, each by its path.
    """
    return lay_over(read_recipe(name_or_path), overrides, where=f"recipe {name_or_path}", store=store, stages=stages)


def lay_over(
    data: dict[str, Any],
    overrides: Sequence[str],
    *,
    where: str,
    store: str | None = None,
    stages: tuple[Stage, ...] | None = None,
) -> Recipe:
    """A recipe from sections with the overrides laid over them; `where` starts the message of an error.

    Raises:
        RequestError: an unknown key or a wrong value, each by its path.
    """
    stages = stages or dag_of(data)
    if os.environ.get(STORE_VARIABLE):
        data = {**data, "store": os.environ[STORE_VARIABLE]}
    changes = _changes(overrides, recipe_model(stages))
    data = deep_merge(_without_other_method(data, changes), changes)
    if store is not None:
        data = {**data, "store": store}
    return build_recipe(data, where=where, stages=stages)


def _changes(overrides: Sequence[str], model: type[Recipe]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for text in overrides:
        change = named_method(parse_override(text))
        for name, value in change.items():
            info = model.model_fields.get(name)
            is_section = info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, Config)
            if is_section and not isinstance(value, Mapping):
                raise RequestError(f"--set {text}: {name} is a section; set its keys, as in --set {name}.key=value")
        changes = deep_merge(changes, change)
    return changes


def _without_other_method(data: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`data` without the options of its method where the changes name another: they would mean nothing to that."""
    section, change = data.get("pretrain"), changes.get("pretrain")
    if not isinstance(section, Mapping) or not isinstance(change, Mapping):
        return data
    name, wanted = (
        method.get("name") if isinstance(method := value.get("method"), Mapping) else None
        for value in (section, change)
    )
    if wanted in (None, name or MethodChoice.model_fields["name"].default):
        return data
    return {**data, "pretrain": {key: value for key, value in section.items() if key != "method"}}


def build_recipe(data: Mapping[str, Any], *, where: str, stages: tuple[Stage, ...] | None = None) -> Recipe:
    """A recipe from plain values; `where` starts the message of an error.

    Raises:
        RequestError: an unknown key or a wrong value.
    """
    model = recipe_model(stages or dag_of(data))
    try:
        return with_fingerprints(model.model_validate(_resolve_paths(_share(data, model))))
    except ValidationError as error:
        raise explain(error, model, where) from error


def _share(data: Mapping[str, Any], model: type[Recipe]) -> dict[str, Any]:
    """Fill the `SHARED_FIELDS` of the sections that have them and do not set them."""
    ingest = data.get("ingest")
    of_data = ingest if isinstance(ingest, Mapping) else {}
    shared = {"seed": data.get("seed"), **{name: of_data.get(name) for name in SHARED_FIELDS if name != "seed"}}
    filled = dict(data)
    for name, info in model.model_fields.items():
        config = info.annotation
        section = {} if data.get(name) is None else data[name]  # one whose keys are all commented out reads as null
        if not (isinstance(config, type) and issubclass(config, Config) and isinstance(section, Mapping)):
            continue
        values = {key: shared[key] for key in SHARED_FIELDS if key in config.model_fields and shared[key] is not None}
        if values or name in data:
            filled[name] = {**values, **section}
    return filled


def _resolve_paths(data: dict[str, Any]) -> dict[str, Any]:
    """Make `store` and `ingest.path` absolute, from the current directory: a later process may have another."""
    resolved = {**data, "store": _absolute(data.get("store", DEFAULT_STORE))}
    ingest = data.get("ingest")
    if isinstance(ingest, Mapping) and "path" in ingest:
        resolved["ingest"] = {**ingest, "path": _absolute(ingest["path"])}
    return resolved


def _absolute(value: Any) -> Any:
    if not isinstance(value, str) or not value or "://" in value or value.startswith("builtin:"):
        return value
    return str(Path(value).expanduser().absolute())


def require_pretraining(recipe: Recipe, command: str) -> Any:
    """The section `pretrain`, for what needs one.

    Raises:
        RequestError: the recipe adopts an encoder and pretrains none.
    """
    section = getattr(recipe, "pretrain", None)
    if section is None:
        raise RequestError(
            f"{command}: the recipe adopts an encoder that is there already ({ADOPT}), and {command} pretrains; leave "
            f"the section {ADOPT} out, or use `pretextflow run`"
        )
    return section
