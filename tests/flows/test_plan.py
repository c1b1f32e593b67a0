"""Plans: what is cached, what would run, and the reason for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from flows.execution import Execution
from flows.plan import Planned, make_plan, reasons, stages_from
from flows.recipe import load_recipe
from ssl_tasks.artifact import Manifest
from ssl_tasks.config import Config
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store

Begin = Callable[..., Execution]


class Listed(Config):
    strategies: tuple[str, ...] = ()


def run(execution: Execution) -> Execution:
    for planned in execution.plan:
        execution.run_stage(planned.name)
    execution.finish("completed")
    return execution


@pytest.fixture
def done(begin: Begin) -> Execution:
    """The recipe, run once."""
    return run(begin())


@pytest.fixture
def replan(recipe_file: Path, done: Execution) -> Callable[..., dict[str, Planned]]:
    """The plan of the same recipe after that, with overrides."""

    def replan(*overrides: str, stages: object = None) -> dict[str, Planned]:
        recipe = load_recipe(str(recipe_file), overrides)
        plan = make_plan(recipe, Store.open(recipe.store), stages=stages)  # type: ignore[arg-type]  # None or stages
        return {entry.name: entry for entry in plan}

    return replan


Replan = Callable[..., dict[str, Planned]]


def test_everything_runs_for_the_first_time(begin: Begin) -> None:
    plan = begin().plan
    assert [entry.name for entry in plan] == ["ingest", "assign", "split", "pretrain", "transfer", "report"]
    assert {(entry.status, entry.reason, entry.last_seconds) for entry in plan} == {("run", "first time", None)}


def test_nothing_runs_again(replan: Replan, done: Execution) -> None:
    plan = replan()
    assert {entry.status for entry in plan.values()} == {"cached"}
    assert all(entry.reason.startswith("unchanged, made 20") for entry in plan.values())
    assert all(entry.last_seconds is not None for entry in plan.values())
    assert [entry.fingerprint for entry in plan.values()] == [stage.fingerprint for stage in done.record.stages]


def test_a_semantic_field_reruns_its_stage_and_those_after_it(replan: Replan) -> None:
    plan = replan("pretrain.batch_size=2", "pretrain.method.temperature=0.1")
    assert [name for name, entry in plan.items() if entry.status == "run"] == ["pretrain", "transfer", "report"]
    assert plan["pretrain"].reason == "config batch_size 4 -> 2, config method.temperature 0.5 -> 0.1"
    assert plan["transfer"].reason == "input pretrain changed"
    assert plan["report"].reason == "input pretrain changed, input transfer changed"
    assert plan["pretrain"].last_seconds is not None


def test_an_execution_field_reruns_nothing(replan: Replan) -> None:
    assert {entry.status for entry in replan("pretrain.workers=9", "retries=3").values()} == {"cached"}


def test_a_changed_source_is_told(replan: Replan, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("other.png")
    plan = replan()
    assert plan["ingest"].reason == "source files changed"
    assert plan["assign"].reason == "input ingest changed"


def test_a_raised_version_is_told(replan: Replan, tiny: ModuleType) -> None:
    stages = tuple(
        dataclasses.replace(stage, parts=lambda config: {"simclr": 2}) if stage.name == "pretrain" else stage
        for stage in tiny.DAG
    )
    plan = replan(stages=stages)
    assert plan["pretrain"].reason == "version simclr 1 -> 2"
    assert plan["split"].status == "cached"


def test_a_damaged_artifact_is_told_and_what_stands_on_it_stays(replan: Replan, done: Execution) -> None:
    done.artifacts["pretrain"].path("encoder.json").write_text("")
    plan = replan()
    assert (plan["pretrain"].status, plan["pretrain"].reason) == ("damaged", "damaged: encoder.json has another size")
    assert plan["report"].status == "cached"


def test_a_stage_that_was_removed_is_told(replan: Replan, done: Execution) -> None:
    done.store.delete(f"objects/{done.record.stage('report').fingerprint}")
    assert replan()["report"].reason == "removed from the store"


def test_a_removed_stage_is_not_compared_with_an_earlier_config(begin: Begin, replan: Replan) -> None:
    latest = run(begin("pretrain.epochs=2"))
    latest.store.delete(f"objects/{latest.record.stage('pretrain').fingerprint}")
    assert replan("pretrain.epochs=2")["pretrain"].reason == "removed from the store"
    begin("pretrain.epochs=3").finish("failed")  # planned it and never made it
    assert replan("pretrain.epochs=3")["pretrain"].reason == "config epochs 1 -> 3"


def test_the_reason_looks_past_runs_that_never_made_the_stage(begin: Begin, replan: Replan) -> None:
    begin("pretrain.epochs=5").finish("failed")
    assert replan("pretrain.epochs=9")["pretrain"].reason == "config epochs 1 -> 9"


def test_forced_stages_run_and_say_so(begin: Begin, done: Execution, tiny: ModuleType) -> None:
    again = begin(forced=stages_from(tiny.DAG, "transfer"))
    assert [(p.name, p.reason) for p in again.plan if p.status == "run"] == [
        ("transfer", "forced"),
        ("report", "forced"),
    ]
    before = done.store.manifest(done.record.stage("report").fingerprint).attempt
    run(again)
    assert [stage.status for stage in again.record.stages] == ["cached"] * 4 + ["ran"] * 2
    assert Store.open(done.store.uri).manifest(done.record.stage("report").fingerprint).attempt != before


def test_an_unknown_stage_cannot_be_forced(tiny: ModuleType) -> None:
    with pytest.raises(RequestError, match="--from embd: no such stage; there are ingest, assign"):
        stages_from(tiny.DAG, "embd")


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (["linear_probe", "fine_tune", "last_layers", "lora"], "+lora -net2net"),
        (["net2net", "linear_probe", "fine_tune", "last_layers"], "in another order"),
        (["knn"], "+knn -linear_probe -fine_tune -last_layers -net2net"),
    ],
)
def test_of_long_lists_what_came_and_what_went_is_told(after: list[str], said: str) -> None:
    before = {"strategies": ["linear_probe", "fine_tune", "last_layers", "net2net"]}
    previous = Manifest.model_construct(config=before, versions={}, parents={})
    config = Listed(strategies=after)
    assert reasons(config, {}, {}, previous, otherwise="") == f"config strategies {said}"
