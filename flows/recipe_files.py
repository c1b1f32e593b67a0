"""Where recipes stand: files, and those that come with the package."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl_tasks.config import StrictLoader
from ssl_tasks.errors import RequestError

BUILTIN = Path(__file__).parent / "recipes"


def builtin_recipes() -> list[str]:
    """Names of the recipes that come with the package: those of a folder as `gpu/simclr-imagenet`, last."""
    found = (path.relative_to(BUILTIN).with_suffix("").as_posix() for path in BUILTIN.rglob("*.yaml"))
    return sorted(found, key=lambda name: (name.count("/"), name))


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """The sections of a recipe file or a built-in recipe, as they stand there.

    Raises:
        RequestError: no such recipe, or broken YAML.
    """
    return named_method(_read(_find(name_or_path)))


def named_method(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with a method that is given by its name alone as a mapping, which options can be merged with."""
    section = data.get("pretrain")
    if not isinstance(section, Mapping) or not isinstance(section.get("method"), str):
        return data
    return {**data, "pretrain": {**section, "method": {"name": section["method"]}}}


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
