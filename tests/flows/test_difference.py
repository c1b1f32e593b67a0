"""`pretextflow diff`: what the recipes and the stages of two runs say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import difference
from flows.commands import app
from flows.execution import Execution

Begin = Callable[..., Execution]


@pytest.fixture
def two(begin: Begin) -> tuple[Execution, Execution]:
    made = []
    for overrides in ((), ("pretrain.epochs=3", "pretrain.workers=2")):
        execution = begin(*overrides, "transfer.strategies=[]")
        for planned in execution.plan:
            execution.run_stage(planned.name)
        execution.finish("completed")
        made.append(execution)
    return made[0], made[1]


def diff(*words: str) -> tuple[int, dict[str, Any], str]:
    result = CliRunner().invoke(app, ["diff", *words, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_recipes_and_stages_are_set_side_by_side(two: tuple[Execution, Execution], tmp_path: Path) -> None:
    old, new = (execution.record.run_id for execution in two)
    output = tmp_path / "page.html"
    status, answer, seen = diff(old, new, "--store", two[0].store.uri, "-o", str(output))
    assert status == 0, answer
    assert answer["recipe"] == [
        {"key": "pretrain.epochs", "old": 1, "new": 3, "changes_result": True},
        {"key": "pretrain.workers", "old": 1, "new": 2, "changes_result": False},
    ]
    stages = {line["name"]: line for line in answer["stages"]}
    assert [name for name, line in stages.items() if line["same"]] == ["ingest", "assign", "split"]
    assert stages["split"]["new"]["status"] == "cached"
    assert stages["split"]["why"] == ""
    assert stages["pretrain"]["why"] == "config epochs 1 -> 3"
    assert stages["transfer"]["why"] == "input pretrain changed"
    assert answer["data"]["same"] is True
    assert {"what": "rejected: duplicate of test", "old": 1, "new": 1} in answer["data"]["lines"]
    assert answer["transfer"]["headline"].startswith("There is no transfer in both runs")
    assert answer["page"] == str(output)
    assert old in output.read_text()
    assert "pretrain.epochs" in seen
    assert "shared" in seen


def test_a_stage_that_is_gone_is_said_to_be(two: tuple[Execution, Execution], tmp_path: Path) -> None:
    store = two[0].store
    store.delete(f"objects/{two[0].record.stage('pretrain').fingerprint}")
    _, answer, _ = diff(*(e.record.run_id for e in two), "--store", store.uri, "-o", str(tmp_path / "page.html"))
    why = {line["name"]: line["why"] for line in answer["stages"]}
    assert why["pretrain"] == "the artifact of the old run is not in the store"


def test_what_cannot_be_compared_is_refused(two: tuple[Execution, Execution], tmp_path: Path) -> None:
    old, new = (execution.record.run_id for execution in two)
    place = ("--store", two[0].store.uri)
    assert diff(old, old, *place)[:2] == (2, {"error": f"diff: {old} and {old} are one run, {old}"})
    status, answer, _ = diff(old, new, *place, "-o", str(tmp_path / "none" / "page.html"))
    assert (status, answer["error"]) == (2, f"--output: there is no folder {tmp_path / 'none'}")
    assert diff(old, "nothing", *place)[0] == 2


def test_keys_that_one_recipe_lacks_are_told(tiny: Any) -> None:
    old = {"name": "one", "seed": 1, "pretrain": {"method": {"name": "simclr", "temperature": 0.2}}}
    new = {"name": "two", "seed": 1, "pretrain": {"method": {"name": "byol"}, "novel": [1]}}
    assert difference.recipe(old, new) == [
        {"key": "pretrain.method.name", "old": "simclr", "new": "byol", "changes_result": True},
        {"key": "pretrain.novel", "old": None, "new": [1], "changes_result": True},
        {"key": "pretrain.method.temperature", "old": 0.2, "new": 0.5, "changes_result": True},
        {"key": "name", "old": "one", "new": "two", "changes_result": False},
    ]


def test_a_key_that_an_older_recipe_lacks_counts_as_its_default(two: tuple[Execution, Execution]) -> None:
    new = two[1].record.recipe
    old = {
        **{name: dict(section) if isinstance(section, dict) else section for name, section in new.items()},
        "transfer": {key: value for key, value in new["transfer"].items() if key not in ("bootstrap", "tune")},
    }
    assert difference.recipe(old, new) == []
    del old["pretrain"]["epochs"]
    assert [line["key"] for line in difference.recipe(old, new)] == ["pretrain.epochs"]
