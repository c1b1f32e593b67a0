"""What can be told of infra/ without containers: schemas, roles, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from flows.commands import app
from ssl_tasks.cluster.metrics import GAUGES

INFRA = Path(__file__).parents[1] / "infra"
ENTRYPOINT = INFRA / "entrypoint.sh"


def load(name: str) -> Any:
    return yaml.safe_load((INFRA / name).read_text(encoding="utf-8"))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(["bash", str(ENTRYPOINT), *arguments], env=env, capture_output=True, text=True, timeout=30)


def test_the_launchers_file_is_as_ray_wants_it() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(load("ray-cluster.yaml"))


def test_services_start_roles_and_commands_that_there_are() -> None:
    lines = ENTRYPOINT.read_text().splitlines()
    roles = {line.strip().rstrip(")") for line in lines if line.startswith("  ") and line.endswith(")")}
    services = load("compose.yaml")["services"]
    ours = {name: service for name, service in services.items() if service.get("image") == "pretextflow"}
    assert {"ray-head", "ray-worker", "prefect", "prefect-worker", "driver"} == set(ours)
    for name in ("ray-head", "ray-worker", "prefect-worker"):
        assert ours[name]["command"][0] in roles
    assert ours["driver"]["entrypoint"][-1] in roles
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]  # typer's
    assert ours["driver"]["command"][0] in commands
    assert load("kubernetes/rayjob.yaml")["spec"]["entrypoint"].split()[1] in commands


def test_the_same_ray_everywhere() -> None:
    for name, spec in {"raycluster": ["spec"], "rayjob": ["spec", "rayClusterSpec"]}.items():
        found = load(f"kubernetes/{name}.yaml")
        for key in spec:
            found = found[key]
        assert found["rayVersion"] == ray.__version__


def test_the_image_has_the_parts_of_ray_that_jobs_and_metrics_need() -> None:
    """Plain `ray` has neither dashboard nor job server nor metrics exporter."""
    assert load("kubernetes/rayjob.yaml")["kind"] == "RayJob"
    assert "--metrics-export-port" in ENTRYPOINT.read_text()
    assert '".[jobs$' in (INFRA / "Dockerfile").read_text().split("pip install")[1].split("FROM")[0]
    extras = tomllib.loads((INFRA.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name for name in extras["jobs"] if name.startswith("ray[default]")]


def test_every_metric_is_in_the_readme() -> None:
    readme = (INFRA / "README.md").read_text()
    assert [key for key in GAUGES if f"`ray_pretextflow_{key}`" not in readme] == []
    assert readme.count("`ray_pretextflow_") == len(GAUGES)


def pods(value: Any) -> Any:
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


@pytest.mark.parametrize(("name", "least"), [("raycluster", 2), ("rayjob", 2), ("prefect-worker", 1)])
def test_no_pod_runs_as_root_or_without_the_token(name: str, least: int) -> None:
    found = list(pods(load(f"kubernetes/{name}.yaml")))
    assert len(found) >= least
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= {variable["name"] for variable in container["env"]}
        assert container["resources"]["limits"]["memory"]
        node_of_ray = name != "prefect-worker"
        assert container.get("volumeMounts", []) == [{"name": "shm", "mountPath": "/dev/shm"}] * node_of_ray


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_role_without_a_token_says_what_to_do(role: str) -> None:
    done = run(role, RAY_HEAD_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr


def test_a_worker_says_that_no_head_answers() -> None:
    done = run("worker", RAY_HEAD_ADDRESS="127.0.0.1:1", RAY_AUTH_TOKEN="0" * 32, RAY_WAIT_SECONDS="1")
    assert done.returncode == 1
    assert "nothing answers at 127.0.0.1:1 after 1 s" in done.stderr


def test_a_driver_of_jobs_starts_no_node_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pretextflow").write_text('#!/bin/sh\necho "$RAY_ADDRESS $*"\n')
    (tmp_path / "pretextflow").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run("driver", "doctor", "--ray", RAY_JOB_SERVER="http://head:8265", RAY_AUTH_TOKEN="0" * 32, PATH=path)
    assert (done.returncode, done.stdout) == (0, "http://head:8265 doctor --ray\n")


def test_the_prefect_worker_reaches_the_cluster_and_the_server_that_there_are() -> None:
    (container,) = next(pods(load("kubernetes/prefect-worker.yaml")))["containers"]
    given = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    cluster = load("kubernetes/raycluster.yaml")["metadata"]["name"]
    assert given["RAY_JOB_SERVER"] == f"http://{cluster}-head-svc:8265"
    assert given["PREFECT_API_URL"].endswith("/api")
    assert container["args"] == ["prefect-worker"]
    (of_a_node,) = next(pods(load("kubernetes/rayjob.yaml")))["containers"]
    assert container["image"] == of_a_node["image"]


def test_an_unknown_role_lists_those_there_are() -> None:
    done = run("boss")
    assert done.returncode == 2
    assert "head | worker | prefect-worker | driver" in done.stderr
