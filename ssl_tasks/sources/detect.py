"""Which kind of source a path is, by what is there. The one place that chooses."""

from __future__ import annotations

from pathlib import Path

from ssl_tasks.errors import RequestError
from ssl_tasks.sources import containers, huggingface
from ssl_tasks.sources.arrays import Arrays
from ssl_tasks.sources.base import Names, Source, one_file
from ssl_tasks.sources.builtin import BUILTIN, builtin
from ssl_tasks.sources.columnar import open_columnar
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.dense_folders import DenseFolders, roles_beside
from ssl_tasks.sources.folders import Folders, roles_below
from ssl_tasks.sources.lists import open_list
from ssl_tasks.sources.records import Records
from ssl_tasks.sources.tables import Tables
from ssl_tasks.sources.tars import Tars
from ssl_tasks.sources.walk import walk

KEYS = {name: info for name, info in SourceConfig.model_fields.items() if name != "path"}


def open_source(config: SourceConfig, suffixes: tuple[str, ...], *, features: bool = False) -> Source:
    """What there is at `config.path`.

    Args:
        suffixes: of files that are one sample each; with `features`, of tables.
        features: the files are tables whose columns are the features.

    Raises:
        RequestError: there is nothing, nothing that can be read, or several kinds of containers; or a key means
            nothing for what is there.
    """
    path = _locate(config.path)
    source = _tables(config, path, suffixes) if features else _samples(config, path, suffixes)
    for key, default in ((name, info.get_default(call_default_factory=True)) for name, info in KEYS.items()):
        if key not in source.keys and getattr(config, key) != default:
            raise RequestError(f"ingest.{key}: means nothing for {source.what}, which {path} has; leave it out")
    return source


def _locate(given: str) -> Path:
    path = builtin(given.removeprefix(BUILTIN)) if given.startswith(BUILTIN) else Path(given).expanduser().absolute()
    if not path.exists():
        raise RequestError(f"ingest.path: there is no file or folder {path}")
    return path


def _tables(config: SourceConfig, path: Path, suffixes: tuple[str, ...]) -> Source:
    if path.is_file():
        if not path.name.lower().endswith(suffixes):
            raise RequestError(f"ingest.path: {path} is none of {', '.join(suffixes)}")
        return Tables(config, path.parent, one_file(path.name))
    if next(walk(str(path), suffixes), None) is None:
        raise RequestError(f"ingest.path: {path} has no usable file (looked for {', '.join(suffixes)})")
    return Tables(config, path, containers.below(path, suffixes))


def _samples(config: SourceConfig, path: Path, suffixes: tuple[str, ...]) -> Source:
    known = ", ".join([*suffixes, *(suffix for several in containers.FAMILIES.values() for suffix in several)])
    if path.is_file():
        root, names = path.parent, one_file(path.name)
        if path.name.lower().endswith(suffixes):
            return Folders(config, root, names, [] if config.folders == "auto" else config.folders)
        family = containers.family_of(path.name)
        if family is None:
            raise RequestError(f"ingest.path: {path} is none of {known}")
        return _container(config, root, names, family, suffixes, {})
    if huggingface.is_saved(path):
        return _hugging_face(config, path)
    if next(walk(str(path), suffixes), None) is not None:
        if config.masks or config.boxes:
            roles = roles_beside(path, suffixes, config) if config.folders == "auto" else config.folders
            return DenseFolders(config, path, containers.below(path, suffixes), roles, suffixes)
        roles = roles_below(path, suffixes) if config.folders == "auto" else config.folders
        return Folders(config, path, containers.below(path, suffixes), roles)
    found = containers.examples(path)
    if not found:
        raise RequestError(f"ingest.path: {path} has no usable file (looked for {known})")
    if len(found) > 1:
        shown = ", ".join(f"{family} ({name})" for family, name in found.items())
        raise RequestError(f"ingest.path: {path} has {shown}; point ingest.path at one of them")
    (family,) = found
    names = containers.below(path, containers.FAMILIES[family])
    return _container(config, path, names, family, suffixes, containers.splits_by_name(names(None)))


def _container(
    config: SourceConfig, root: Path, names: Names, family: str, suffixes: tuple[str, ...], splits: dict[str, str]
) -> Source:
    match family:
        case "tars":
            return Tars(config, root, names, suffixes, splits)
        case "NumPy files":
            return Arrays(config, root, names, splits)
        case "lists":
            return Records(config, root, names, open_list, splits)
        case _:
            return Records(config, root, names, open_columnar, splits)


def _hugging_face(config: SourceConfig, root: Path) -> Records:
    saved = huggingface.saved_at(root)
    return Records(config, root, saved.names, saved.open, saved.splits, beside=saved.infos)
