"""A recipe: name, seed, store, and one section per stage, checked against the stages' own configs.

recipe = load_recipe("digits", ["pretrain.epochs=5"])
recipe.config_of(stage)
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError, create_model

from ssl_tasks.config import Config, StrictLoader, deep_merge, execution, explain, parse_override
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Store
from ssl_tasks.training.config import MethodChoice

if TYPE_CHECKING:
    from ssl_tasks.store.runs import RunRecord, StageRecord

BUILTIN = Path(__file__).parent / "recipes"
DEFAULT_STORE = "./pretextflow-store"
STORE_VARIABLE = "PRETEXTFLOW_STORE"
ADOPT = "adopt"
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
    """host:port of a Ray cluster; None starts a local Ray, unless RAY_ADDRESS is set."""
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


def builtin_recipes() -> list[str]:
    """Names of the recipes that come with the package: those of a folder as `gpu/simclr-imagenet`, last."""
    found = (path.relative_to(BUILTIN).with_suffix("").as_posix() for path in BUILTIN.rglob("*.yaml"))
    return sorted(found, key=lambda name: (name.count("/"), name))


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


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """The sections of a recipe file or a built-in recipe, as they stand there.

    Raises:
        RequestError: no such recipe, or broken YAML.
    """
    return _named_method(_read(_find(name_or_path)))


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
        change = _named_method(parse_override(text))
        for name, value in change.items():
            info = model.model_fields.get(name)
            is_section = info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, Config)
            if is_section and not isinstance(value, Mapping):
                raise RequestError(f"--set {text}: {name} is a section; set its keys, as in --set {name}.key=value")
        changes = deep_merge(changes, change)
    return changes


def _named_method(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with a method that is given by its name alone as a mapping, which options can be merged with."""
    section = data.get("pretrain")
    if not isinstance(section, Mapping) or not isinstance(section.get("method"), str):
        return data
    return {**data, "pretrain": {**section, "method": {"name": section["method"]}}}


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


def with_fingerprints(recipe: Recipe) -> Recipe:
    """The recipe with the encoders of runs that `transfer.encoders` names by their fingerprints, which are hashed.

    Raises:
        RequestError: there is no such run, or it has no encoder, or two names stand for one encoder.
    """
    transfer = getattr(recipe, "transfer", None)
    given: tuple[str, ...] = getattr(transfer, "encoders", ())
    found = tuple(_fingerprint(reference, recipe.store) for reference in given)
    meant: dict[str, str] = {}
    for name, reference in zip(given, found, strict=True):
        other = meant.setdefault(reference.rstrip("/").rpartition("/objects/")[2], name)
        if other != name:
            raise RequestError(f"transfer.encoders: {other} and {name} are the same encoder; name each once")
    if transfer is None or found == given:
        return recipe
    return recipe.model_copy(update={"transfer": transfer.model_copy(update={"encoders": found})})


def _fingerprint(reference: str, store: str) -> str:
    from ssl_tasks.store.references import FINGERPRINT
    from ssl_tasks.store.runs import find_run

    if FINGERPRINT.fullmatch(reference.rstrip("/").rpartition("/objects/")[2]):
        return reference
    try:
        record = find_run(open_to_read(store), reference)
    except RequestError as error:
        raise RequestError(f"transfer.encoders: {error}") from error
    made = encoder_stage(record)
    if made is None:
        raise RequestError(f"transfer.encoders: run {record.run_id} has trained no encoder; it is {record.state}")
    return made.fingerprint


def encoder_stage(record: RunRecord) -> StageRecord | None:
    """The stage that gave a run its encoder, where it came so far."""
    made = [stage for stage in record.stages if stage.name in ("pretrain", ADOPT) and stage.status in ("ran", "cached")]
    return made[0] if made else None


def default_store() -> str:
    """The store of commands that read no recipe."""
    return os.environ.get(STORE_VARIABLE) or DEFAULT_STORE


def open_to_read(uri: str) -> Store:
    """The store, for a command that only looks: one that is not there yet is empty, and is not made.

    Raises:
        RequestError: the place holds something else, or cannot be read.
    """
    store = Store(uri)
    try:
        return Store.open(uri) if store.list("") else store
    except OSError as error:
        raise RequestError(f"store {store.uri}: cannot be read: {error}") from error


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path).expanduser()
    if name_or_path in builtin_recipes() and not path.is_file():
        return BUILTIN / f"{name_or_path}.yaml"
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or path.is_file():
        if path.is_file():
            return path
        kind = "is a folder" if path.is_dir() else "no such file"
        raise RequestError(f"recipe {name_or_path}: {kind}; built-in recipes: {', '.join(builtin_recipes())}")
    near = difflib.get_close_matches(name_or_path, builtin_recipes(), n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise RequestError(
        f"recipe {name_or_path}: there is no built-in recipe and no file of this name{hint} "
        f"(built in: {', '.join(builtin_recipes())}; a file ends in .yaml)"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RequestError(f"recipe {path}, line {line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OSError) as error:  # ValueError: not UTF-8, or a date such as 2026-02-30
        raise RequestError(f"recipe {path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise RequestError(f"recipe {path}: expected sections with keys, found {type(data).__name__}")
    return {str(key): value for key, value in data.items()}


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
