"""Checks of the installation, Prefect, the store and Ray; each finding with the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from flows import bytecode
from flows import server as prefect_server
from flows.execution import check_writable
from flows.ray_address import ADDRESS_FILE, cluster_address, unreachable
from ssl_tasks.errors import PretextflowError, RequestError
from ssl_tasks.store import Store
from ssl_tasks.training.config import PretrainConfig

PACKAGES = (
    "pretextflow",
    "ray",
    "prefect",
    "fastapi",
    "sqlalchemy",
    "torch",
    "torchvision",
    "timm",
    "pyarrow",
    "scikit-learn",
)
TOO_NEW = {
    "fastapi": ((0, 155), "Prefect's server does not start with it"),
    "sqlalchemy": ((2, 1), "Prefect's scheduler fails with it, and no scheduled run ever starts"),
}
"""First version that does not work with Prefect 3.8, and what one would see."""
OPTIONAL = ("pretextflow",)
"""Missing where the source tree is used without having been installed."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    check: str
    level: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def examine(
    store: str, *, ray: bool = False, address: str | None = None, config: PretrainConfig | None = None
) -> Iterator[Finding]:
    """All findings, one after the other.

    Args:
        ray: start a local Ray and run one task, or ask every node of the cluster.
        address: of the cluster; where not given, RAY_ADDRESS.
        config: of the training that the cluster is to hold; one worker by default.
    """
    yield from _versions()
    yield from _prefect()
    yield from _store(store)
    named = address or os.environ.get("RAY_ADDRESS")
    yield from _ray_address(named, "--address " if address else "RAY_ADDRESS=")
    yield from _ray_token(named)
    cluster = cluster_address(named)
    if ray and cluster:
        yield from _cluster(cluster, store, config or PretrainConfig())
    elif ray:
        yield _ray_starts()


def _versions() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    mend = "" if supported else "install Python 3.11, 3.12 or 3.13 and pretextflow in it"
    yield Finding("python", "ok" if supported else "warn", version, mend)
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
            first, effect = TOO_NEW.get(name, ((sys.maxsize,), ""))
            if _numbers(version) >= first:
                limit = ".".join(map(str, first))
                yield Finding(name, "fail", f"{version}: {effect}", f"pip install '{name}<{limit}'")
            else:
                yield Finding(name, "ok", version)
        except importlib.metadata.PackageNotFoundError:
            level: Literal["warn", "fail"] = "warn" if name in OPTIONAL else "fail"
            yield Finding(name, level, "not installed", "pip install pretextflow")
    if not bytecode.is_compiled():
        found = "the installed packages are not compiled, which slows every start"
        yield Finding("bytecode", "warn", found, f"{sys.executable} -m compileall -q {sysconfig.get_path('purelib')}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _prefect() -> Iterator[Finding]:
    url = prefect_server.configured_url()
    if url:
        try:
            prefect_server.Server(url.rstrip("/")).wait()
            yield Finding("prefect server", "ok", f"{url} answers")
        except PretextflowError as error:
            yield Finding("prefect server", "fail", str(error), "prefect server start, or unset PREFECT_API_URL")
        return
    home = prefect_server.prefect_home()
    where = home if home.exists() else home.parent
    if os.access(where, os.W_OK):
        yield Finding("prefect server", "ok", f"embedded, its database in {home}")
    else:
        yield Finding("prefect server", "fail", f"{home} cannot be written", "export PREFECT_HOME=<writable folder>")


def _store(uri: str) -> Iterator[Finding]:
    mend = "choose another folder with --store or PRETEXTFLOW_STORE"
    try:
        plain = Store(uri)
        if plain.is_local and not Path(plain.root).exists():
            parent = next(path for path in Path(plain.root).parents if path.exists())
            if not os.access(parent, os.W_OK):
                yield Finding("store", "fail", f"{plain.root} cannot be made: {parent} cannot be written", mend)
            else:
                yield Finding("store", "ok", f"{plain.root} will be made by the first run")
            return
        store = Store.open(uri)
        check_writable(store)
        yield Finding("store", "ok", f"{store.uri} can be written")
    except PretextflowError as error:
        yield Finding("store", "fail", str(error), mend)


def _ray_address(address: str | None, given: str) -> Iterator[Finding]:
    if address and address not in ("local", "auto"):
        problem = unreachable(address)
        if problem:
            found = f"{given}{address} does not answer: {problem}"
            yield Finding(
                "ray address", "fail", found, "unset RAY_ADDRESS" if given == "RAY_ADDRESS=" else "correct it"
            )
        else:
            yield Finding("ray address", "ok", f"{given}{address} answers")
    else:
        yield Finding("ray address", "ok", "not set: each run starts a local Ray of its own")
    if not ADDRESS_FILE.exists():
        return
    known = ADDRESS_FILE.read_text().strip()
    if unreachable(known):
        found = f"{ADDRESS_FILE} names {known}, where no cluster answers; it was left by one that was killed"
        yield Finding("ray address file", "fail" if address == "auto" else "warn", found, f"rm {ADDRESS_FILE}")
    else:
        yield Finding("ray address file", "ok", f"{ADDRESS_FILE} names {known}, which answers")


def _ray_token(address: str | None) -> Iterator[Finding]:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    has_token = bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()
    if mode == "token" and not has_token:
        found = f"RAY_AUTH_MODE=token, and there is no token at {path}"
        yield Finding("ray token", "fail", found, "ray get-auth-token --generate")
    elif address and has_token and mode != "token":
        found = "there is a token, and a client that connects by address does not use it by itself"
        yield Finding("ray token", "warn", found, "export RAY_AUTH_MODE=token if the cluster wants one")
    else:
        yield Finding("ray token", "ok", "used" if mode == "token" else "not needed for a local Ray")


def _cluster(address: str, uri: str, config: PretrainConfig) -> Iterator[Finding]:
    """The checks that a run makes before its first stage."""
    from flows.cluster_check import seen

    try:
        plain = Store(uri)
        made = not plain.is_local or Path(plain.root).exists()
        for each in seen(address, uri if made else "", config):
            if made or each.check != "cluster store":
                yield Finding(each.check, each.level, each.found, each.mend)
    except RequestError as error:
        yield Finding("cluster", "fail", str(error))


def _ray_starts() -> Finding:
    from ssl_tasks.cluster.connect import connection
    from ssl_tasks.cluster.probe import run_one_task

    try:
        with connection(num_cpus=1):
            return Finding("ray start", "ok", run_one_task())
    except Exception as error:  # Ray raises many kinds; each is a finding
        return Finding("ray start", "fail", f"{type(error).__name__}: {error}", "see /tmp/ray/session_latest/logs")


def worst(findings: list[Finding]) -> int:
    """Exit status: 1 where something fails."""
    return int(any(finding.level == "fail" for finding in findings))
