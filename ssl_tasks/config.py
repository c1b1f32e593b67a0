"""What all configs share: frozen pydantic models whose fields are semantic or execution.

A semantic field is part of an artifact's fingerprint; an execution field (workers, threads, cadence) is not,
so that a run may move to another cluster and keep its cache.

    class CleanConfig(Config):
        error_budget: float = 0.01
        workers: int = execution(0)
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_tasks.errors import RequestError

PLACES = ("ingest.path", "store", "adopt.encoder")
"""Keys whose value is a place: never a number, a date or a mapping."""


class Config(BaseModel):
    """A frozen section of a recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def execution(default: Any, **constraints: Any) -> Any:
    """A field that changes how a stage runs and not what it makes: left out of the fingerprint."""
    return Field(default, json_schema_extra={"execution": True}, **constraints)


def is_execution(config: type[BaseModel], field: str) -> bool:
    """Whether `field` of `config` was declared with `execution(...)`."""
    extra = config.model_fields[field].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("execution"))


def artifact_reference() -> Any:
    """A field that names an artifact or nothing: only its fingerprint counts, wherever its store is."""
    return Field(None, json_schema_extra={"artifact": True})


def artifact_references() -> Any:
    """As `artifact_reference`, for a tuple of any number of them."""
    return Field((), json_schema_extra={"artifact": True})


def _identity(config: type[BaseModel], field: str, value: Any) -> Any:
    extra = config.model_fields[field].json_schema_extra
    if not (isinstance(extra, dict) and extra.get("artifact")):
        return value
    if isinstance(value, list):
        return [reference.rstrip("/").rpartition("/")[2] for reference in value]
    return value.rstrip("/").rpartition("/")[2]


def semantic(config: BaseModel) -> dict[str, Any]:
    """The semantic fields that differ from their defaults, as JSON values.

    Defaults are left out so that a new field, at its default, changes no existing fingerprint; a default whose
    meaning changes needs a new stage version instead.
    """
    kept: dict[str, Any] = dict(config.model_extra or {})
    for name, info in type(config).model_fields.items():
        if is_execution(type(config), name):
            continue
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            nested = semantic(value)
            if nested:
                kept[name] = nested
        elif info.is_required() or value != info.get_default(call_default_factory=True):
            kept[name] = _identity(type(config), name, config.model_dump(mode="json", include={name})[name])
    return kept


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def deep_merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section; neither is changed."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: plain YAML would silently take the later one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As its parent, or a `MarkedYAMLError`."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key is a mapping or a list; text with { or [ needs quotes"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_override(text: str) -> dict[str, Any]:
    """`section.key=value` as a nested mapping; the value is read as YAML, so `[1, 2]` and `1e-3` work.

    What names a place is taken as it stands, unless it is quoted or null: folders may be called `2024` or `a #1`.

    Raises:
        RequestError: without `=`, with an empty key, or with a value that is not YAML or that YAML would cut.
    """
    key, equals, value = text.partition("=")
    key, parts = key.strip(), key.strip().split(".")
    if not equals or not all(parts):
        raise RequestError(f"--set {text}: expected section.key=value")
    plain = not value.strip().startswith(("'", '"'))
    if key in PLACES and plain and value.strip() not in ("", "null", "~"):
        return _nested(parts, value)
    try:
        parsed, is_cut = yaml.load(value, Loader=StrictLoader), _has_comment(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-30
        problem = f" ({error.problem})" if isinstance(error, yaml.MarkedYAMLError) else ""
        raise RequestError(f"--set {key}: the value is not valid YAML: {value!r}{problem}") from error
    if is_cut:
        text = "..." if '"' in value or "'" in value else value
        raise RequestError(f"--set {key}: YAML takes what follows # for a comment; write --set {key}='\"{text}\"'")
    return _nested(parts, parsed)


def _has_comment(text: str) -> bool:
    """Whether YAML leaves out a part of `text`: between its tokens there is but space, unless there are comments."""
    tokens = list(yaml.scan(text))
    gaps = (text[left.end_mark.index : right.start_mark.index] for left, right in itertools.pairwise(tokens))
    return any("#" in gap for gap in gaps)


def _nested(parts: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def explain(error: ValidationError, model: type[BaseModel], where: str = "", section: str = "") -> RequestError:
    """A pydantic error as one message a user can act on, naming each key by its path, which begins with `section`."""
    lines = []
    for item in error.errors():
        path = ".".join([section] * bool(section) + [str(part) for part in item["loc"]]) or "(top level)"
        if item["type"] == "extra_forbidden":
            hint = _closest(path.rpartition(".")[2], _keys_at(model, item["loc"][:-1]))
            lines.append(f"{path}: unknown key{hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = item.get("input")
            shown = f" (got {given!r})" if isinstance(given, (str, int, float, bool, type(None))) else ""
            if given is not None and item["type"] == "string_type":  # YAML made a number, date or mapping of it
                shown += f"; text like this needs quotes: {path}='\"...\"'"
            lines.append(f"{path}: {message}{shown}")
    return RequestError((f"{where}: " if where else "") + "; ".join(lines))


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in loc:
        if get_origin(current) is dict:  # names of the user's own, each with a value of one type
            current = get_args(current)[1]
            continue
        info = getattr(current, "model_fields", {}).get(part)
        current = getattr(info, "annotation", None)
    return list(getattr(current, "model_fields", {}))


def _closest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f", did you mean {near[0]!r}?"
    return f" (known here: {', '.join(sorted(known))})" if known else ""
