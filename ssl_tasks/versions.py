"""Hold versions to the code: versions.lock keeps a hash of the import closure of each stage, method, modality and
strategy.

    python -m ssl_tasks.versions                       # what changed since the lock was written
    python -m ssl_tasks.versions --refresh "reason"    # the change gives equal results: keep the versions

A forgotten version number would turn an edited helper into a stale cache hit; the tests fail instead, until
the version is raised or the lock refreshed with a reason.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from ssl_tasks import methods, modalities, transfer

ROOT = Path(__file__).parent
LOCK = ROOT / "versions.lock"
CHOSEN_BY_NAME = ("ssl_tasks.methods", "ssl_tasks.modalities", "ssl_tasks.transfer")
"""Listings whose entries are loaded by name and carry versions of their own."""
NO_DATA = (".py", ".pyc", ".lock", ".typed", ".md")
"""Endings of what stands beside a module and is not read by it."""


def current() -> dict[str, dict[str, Any]]:
    """Version and closure hash of everything that carries a version."""
    found: dict[str, tuple[str, int]] = {}
    for file in sorted((ROOT / "stages").glob("[!_]*.py")):
        if file.stem != "base":
            module = f"ssl_tasks.stages.{file.stem}"
            found[f"stage {file.stem}"] = (module, _stage_version(module))
    for name, (module, version) in methods.METHODS.items():
        found[f"method {name}"] = (module, version)
    for name, module in modalities.MODALITIES.items():
        found[f"modality {name}"] = (module, modalities.VERSIONS[name])
    for name, module in transfer.STRATEGIES.items():
        found[f"strategy {name}"] = (module, transfer.strategy(name).version)
    return {name: {"version": version, "closure": closure_hash(module)} for name, (module, version) in found.items()}


def differences() -> list[str]:
    """What the lock does not hold any more, one line each."""
    locked = json.loads(LOCK.read_text())["entries"] if LOCK.exists() else {}
    now = current()
    lines = [f"{name}: not in the lock" for name in now if name not in locked]
    lines += [f"{name}: in the lock only" for name in locked if name not in now]
    for name in sorted(now.keys() & locked.keys()):
        if now[name]["closure"] != locked[name]["closure"] and now[name]["version"] == locked[name]["version"]:
            lines.append(f"{name}: its code changed and its version is still {now[name]['version']}")
        elif now[name] != locked[name]:
            lines.append(f"{name}: version {locked[name]['version']} -> {now[name]['version']} is not in the lock")
    return lines


def refresh(reason: str) -> None:
    """Write the lock as the code stands, with the reason for it."""
    LOCK.write_text(json.dumps({"reason": reason, "entries": current()}, indent=1, sort_keys=True) + "\n")


def closure_hash(module: str) -> str:
    """Hash of the syntax trees of a module and of all it imports from this package, docstrings left out.

    Data files beside these modules, such as the report's template, count byte by byte.
    """
    hasher = hashlib.sha256()
    closure = sorted(_closure(module))
    for name in closure:
        hasher.update(f"{name} {_source_hash(name)}\n".encode())
    for folder in sorted({file.parent for name in closure if (file := _file(name))}):
        for path in _data_files(folder):
            hasher.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return hasher.hexdigest()[:32]


def _data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*.*") if path.is_file() and path.suffix not in NO_DATA)


def _closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in CHOSEN_BY_NAME:
            waiting.extend(_imports(name))
    return seen


@functools.cache
def _file(module: str) -> Path | None:
    path = ROOT.parent / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Modules of this package that `module` imports, at its top or inside functions."""
    found: set[str] = set()
    file = _file(module)
    assert file is not None, module
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found.update(name for name in names if name.startswith("ssl_tasks.") and _file(name))
    return frozenset(found)


@functools.cache
def _source_hash(module: str) -> str:
    file = _file(module)
    assert file is not None, module
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]  # every node with a body list has the attribute
                item for item in body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            ]
    return hashlib.sha256(_dump(tree).encode()).hexdigest()


def _dump(node: Any) -> str:
    """A syntax tree as text, the same under every version of Python: fields that are empty are left out, which
    `ast.dump` shows or not as the version pleases, and which newer versions have more of."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return f"{type(node).__name__}({', '.join(f'{name}={_dump(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    return repr(node)


def _stage_version(module: str) -> int:
    version: int = importlib.import_module(module).STAGE.version
    return version


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refresh", metavar="REASON")
    reason = parser.parse_args().refresh
    if reason:
        refresh(reason)
    found = differences()
    sys.stdout.write("\n".join(found) + "\n" if found else "versions.lock holds\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
