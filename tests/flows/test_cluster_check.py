"""A cluster that could not do the pretraining is refused before the first stage; `doctor` shows the same checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import doctor
from flows.cluster_check import check_cluster
from flows.execution import Listener, prepare
from flows.recipe import load_recipe
from ssl_tasks.cluster import look
from ssl_tasks.cluster.nodes import Node, versions
from ssl_tasks.errors import RequestError
from ssl_tasks.training.config import PretrainConfig

GOOD = Node("10.0.0.1", {"CPU": 4.0, "object_store_memory": 1e9}, versions(), shm_bytes=2_000_000_000)
BLIND = replace(GOOD, name="10.0.0.2", store="does not see /data of this host")
OLD = replace(GOOD, name="10.0.0.3", versions={**versions(), "torch": "1.0.0"})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The nodes that answer at 10.0.0.1:6379."""
    nodes = [GOOD]
    monkeypatch.setattr(look, "ask", lambda address, store="", **_more: list(nodes))
    monkeypatch.setattr("flows.ray_address.require_answer", lambda address: None)
    return nodes


def recipe(tmp_path: Path, *sets: str) -> Any:
    return load_recipe("digits", ["ray_address=10.0.0.1:6379", *sets], store=str(tmp_path / "store"))


def test_the_first_failure_is_the_message_and_the_others_are_counted(cluster: list[Node], tmp_path: Path) -> None:
    check_cluster(recipe(tmp_path))
    cluster += [BLIND, OLD]
    with pytest.raises(RequestError, match=r"^ray_address: node 10\.0\.0\.3 has torch 1\.0\.0 .*\(and 1 more: pretext"):
        check_cluster(recipe(tmp_path))


def test_no_stage_runs_and_no_record_is_written(cluster: list[Node], tmp_path: Path) -> None:
    asked = recipe(tmp_path, "pretrain.num_workers=4")
    with pytest.raises(
        RequestError, match=r"pretrain\.num_workers: this run needs 8 CPU .* set pretrain\.num_workers=2"
    ):
        prepare(asked, listener=Listener())
    assert not list((tmp_path / "store").glob("runs/*.json"))
    assert not (tmp_path / "store" / "objects").exists()


def test_a_gpu_that_this_machine_lacks_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    import torch

    if torch.cuda.device_count():
        pytest.skip("this machine has GPUs")
    asked = load_recipe("digits", ["pretrain.use_gpu=true"], store=str(tmp_path / "store"))
    with pytest.raises(RequestError, match=r"pretrain\.use_gpu: the Ray cluster has no GPU; set it to auto or false"):
        prepare(asked, listener=Listener())
    spread = load_recipe(
        "digits", ["pretrain.num_workers=2", "pretrain.placement=STRICT_SPREAD"], store=str(tmp_path / "store")
    )
    with pytest.raises(RequestError, match=r"placed STRICT_SPREAD\).* set pretrain\.placement=PACK"):
        prepare(spread, listener=Listener())


def test_custom_resources_are_there_on_a_local_ray(tmp_path: Path) -> None:
    asked = load_recipe("digits", ["pretrain.resources_per_worker={a100: 1}"], store=str(tmp_path / "store"))
    prepare(asked, listener=Listener())


def test_doctor_shows_each_check_and_what_mends_it(cluster: list[Node], tmp_path: Path) -> None:
    cluster += [BLIND, OLD]
    (tmp_path / "store").mkdir()
    found = list(doctor._cluster("10.0.0.1:6379", str(tmp_path / "store"), PretrainConfig(num_workers=2)))
    assert [(each.check, each.level) for each in found] == [
        ("cluster nodes", "ok"),
        ("cluster versions", "fail"),
        ("cluster store", "fail"),
        ("cluster /dev/shm", "ok"),
        ("cluster disk", "ok"),
        ("cluster room", "ok"),
    ]
    assert found[1].mend == "install the same on all nodes and restart Ray there"
    assert "that all nodes share" in found[2].mend
    assert found[5].found == "holds 2 workers of 1 CPU and 2 CPU for their feed"


def test_a_store_that_is_not_made_yet_is_not_judged(cluster: list[Node], tmp_path: Path) -> None:
    found = [each.check for each in doctor._cluster("10.0.0.1:6379", str(tmp_path / "new"), PretrainConfig())]
    assert "cluster store" not in found
    assert not (tmp_path / "new").exists()


def test_a_cluster_that_lets_nobody_in_is_one_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_given: Any, **_more: Any) -> list[Node]:
        raise RequestError("ray_address: cannot use Ray at 10.0.0.1:6379: wrong token")

    monkeypatch.setattr(look, "ask", refuse)
    (finding,) = doctor._cluster("10.0.0.1:6379", str(tmp_path), PretrainConfig())
    assert (finding.level, "wrong token" in finding.found) == ("fail", True)
