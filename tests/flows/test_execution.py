"""Runs without Prefect: the record at every point, checks between stages, continuing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.execution import Execution, Listener, is_unforeseen, prepare
from flows.ray_address import ray_environment, unreachable
from flows.recipe import load_recipe
from ssl_tasks.errors import RequestError, StageError, TryAgainError
from ssl_tasks.store.runs import load_run

Begin = Callable[..., Execution]


def run(execution: Execution) -> None:
    for planned in execution.plan:
        execution.run_stage(planned.name)
        execution.check_after(planned.name)


def saved(execution: Execution) -> Any:
    return load_run(execution.store, execution.record.run_id)


def test_the_record_is_written_before_the_first_stage_and_after_each(begin: Begin) -> None:
    execution = begin()
    seen = [[stage.status for stage in saved(execution).stages]]
    for planned in execution.plan:
        execution.run_stage(planned.name)
        seen.append([stage.status for stage in saved(execution).stages])
    assert seen == [["ran"] * done + ["pending"] * (6 - done) for done in range(7)]
    assert saved(execution).state == "running"
    execution.finish("completed")
    record = saved(execution)
    assert record.state == "completed"
    assert record.finished >= record.started
    assert record.metrics["transfer"]["summary"][0]["pretrained"] == 0.9
    assert record.report is not None
    assert record.report.endswith("report.html")
    assert record.recipe == execution.recipe.to_dict()
    assert [stage.fingerprint for stage in record.stages] == [planned.fingerprint for planned in execution.plan]


def test_a_failure_is_recorded_and_the_rest_is_skipped(begin: Begin) -> None:
    execution = begin("pretrain.fail=refuse")
    with pytest.raises(StageError) as caught:
        run(execution)
    execution.finish("failed", caught.value)
    record = saved(execution)
    assert [stage.status for stage in record.stages] == ["ran", "ran", "ran", "failed", "skipped", "skipped"]
    assert record.stage("pretrain").reason == record.error == "the representation collapsed; lower pretrain.lr"
    assert record.stage("report").reason == "pretrain failed"
    assert record.report is None


def test_a_run_is_continued_under_its_id(begin: Begin) -> None:
    first = begin("pretrain.fail=crash")
    with pytest.raises(OSError, match="network"):
        run(first)
    first.finish("failed")
    second = begin(previous=first.record)
    run(second)
    second.finish("completed")
    assert second.record.run_id == first.record.run_id
    assert second.record.started == first.record.started
    assert [stage.status for stage in saved(second).stages] == ["cached"] * 3 + ["ran"] * 3


def test_an_attempt_that_will_be_repeated_leaves_the_stage_open(begin: Begin) -> None:
    execution = begin("pretrain.fail=crash")
    for name in ("ingest", "assign", "split"):
        execution.run_stage(name)
    with pytest.raises(OSError, match="network"):
        execution.run_stage("pretrain", tries_left=1)
    assert saved(execution).stage("pretrain").status == "pending"


def test_a_refusal_is_final_whatever_tries_are_left(begin: Begin) -> None:
    execution = begin("pretrain.fail=refuse")
    for name in ("ingest", "assign", "split"):
        execution.run_stage(name)
    with pytest.raises(StageError):
        execution.run_stage("pretrain", tries_left=1)
    assert saved(execution).stage("pretrain").status == "failed"


def test_a_standstill_is_worth_another_try_and_a_refusal_is_not() -> None:
    assert is_unforeseen(TryAgainError("no progress"))
    assert is_unforeseen(OSError("gone"))
    assert not is_unforeseen(StageError("NaN"))
    assert not is_unforeseen(KeyboardInterrupt())


def test_an_interruption_is_recorded_as_one(begin: Begin) -> None:
    execution = begin()
    execution.run_stage("ingest")
    execution.finish("interrupted", KeyboardInterrupt())
    assert (saved(execution).state, saved(execution).error) == ("interrupted", "interrupted")


def test_transfer_without_labels_is_refused_after_ingest(begin: Begin) -> None:
    execution = begin("ingest.labelled=false")
    with pytest.raises(RequestError, match=r"knn need labels.*set transfer.strategies=\[\]"):
        run(execution)
    execution.finish("failed")
    statuses = {stage.name: stage.status for stage in saved(execution).stages}
    assert statuses["ingest"] == "ran"
    assert statuses["assign"] == "skipped"
    assert statuses["transfer"] == "failed"
    run(begin("ingest.labelled=false", "transfer.strategies=[]"))


def test_labels_that_transfer_would_refuse_are_refused_before_training(begin: Begin) -> None:
    execution = begin("split.budget=13")
    with pytest.raises(RequestError, match="class 'single' has one label only"):
        run(execution)
    execution.finish("failed")
    assert "pretrain" not in execution.artifacts
    assert saved(execution).stage("transfer").status == "failed"
    run(begin("split.budget=13", "transfer.strategies=[]"))


def test_a_batch_larger_than_the_train_rows_is_refused_before_training(begin: Begin) -> None:
    execution = begin("pretrain.batch_size=9")
    with pytest.raises(RequestError, match="9 is larger than the 8 train rows"):
        run(execution)
    assert "pretrain" not in execution.artifacts
    run(begin("pretrain.batch_size=8"))


def test_what_a_stage_warns_of_is_told_when_it_ran(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Listener, "warning", lambda self, text: told.append(text))
    run(begin())
    assert told == ["assign: much looks alike"]
    run(begin())  # cached: nobody wants to hear it again
    assert len(told) == 1


def test_a_damaged_parent_is_made_anew_before_it_is_read(begin: Begin) -> None:
    first = begin()
    run(first)
    path = first.artifacts["split"].path("splits.parquet")
    data = bytearray(path.read_bytes())
    data[10] ^= 0xFF
    path.write_bytes(data)
    first.store._verified.clear()
    unread = begin()
    assert {planned.status for planned in unread.plan} == {"cached"}
    again = begin("pretrain.epochs=2")
    run(again)
    assert again.record.stage("split").status == "ran"
    assert "another checksum" in again.record.stage("split").reason


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_ray_address_without_a_cluster_is_refused_at_once(begin: Begin, address: str) -> None:
    with pytest.raises(RequestError, match="ray_address: no Ray cluster at"):
        begin(f"ray_address={address}")


def test_the_ray_address_does_not_matter_when_everything_is_cached(begin: Begin) -> None:
    run(begin())
    assert {planned.status for planned in begin("ray_address=127.0.0.1:1").plan} == {"cached"}


def test_an_unreachable_ray_of_the_environment_is_refused(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(RequestError, match=r"RAY_ADDRESS: no Ray cluster at 127\.0\.0\.1:1"):
        begin()


@pytest.mark.parametrize(
    ("address", "problem"),
    [("nowhere", "expected host:port"), ("127.0.0.1:1", "refused"), ("127.0.0.1:99999999999999999999", "")],
)
def test_why_an_address_cannot_be_reached(address: str, problem: str) -> None:
    found = unreachable(address)
    assert found  # of a port that cannot be, every version of Python says something else
    assert problem in found


@pytest.mark.parametrize(("given", "seen"), [("local", None), ("", None), ("10.0.0.1:6379", "10.0.0.1:6379")])
def test_stages_see_the_address_of_a_cluster_or_none(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, given: str, seen: str | None
) -> None:
    execution = begin()
    monkeypatch.setenv("RAY_ADDRESS", given)
    with ray_environment(execution.recipe):
        assert os.environ.get("RAY_ADDRESS") == seen
    assert os.environ["RAY_ADDRESS"] == given


def test_a_stage_may_refuse_before_anything_runs_but_only_if_it_is_to_run(begin: Begin) -> None:
    run(begin())
    assert {planned.status for planned in begin("pretrain.epochs=1").plan} == {"cached"}
    with pytest.raises(RequestError, match=r"pretrain\.epochs: 13 is unlucky"):
        begin("pretrain.epochs=13")


def test_policies_that_the_method_does_not_use_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_tasks.methods.base import ViewSpec
    from ssl_tasks.methods.simclr import SimCLR

    given = ["augment.policies={second: {blur_probability: 0.1}, local: {size: 4}}"]
    recipe = load_recipe("digits", given, store=str(tmp_path / "store"))
    message = r"augment\.policies: simclr uses no policy called 'second' or 'local'; its views are drawn by augment\."
    with pytest.raises(RequestError, match=message):
        prepare(recipe, listener=Listener())
    monkeypatch.setattr(SimCLR, "views", ViewSpec(("augment", "second", "local")))
    assert prepare(recipe, listener=Listener()).record.state == "running"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method.name=mae"], r"pretrain\.backbone: mae works on the patches of a ViT, and ResNet has none"),
        (["method.name=mae", "backbone=test_vit", "method.decoder_dim=48"], r"pretrain\.method\.decoder_dim: 48 is no"),
        (
            ["method.name=simmim", "backbone=test_vit", "method.mask_patches=4"],
            r"pretrain\.method\.mask_patches: the im",
        ),
    ],
)
def test_a_method_that_does_not_fit_backbone_and_images_is_refused_before_anything_runs(
    settings: list[str], message: str, tmp_path: Path
) -> None:
    recipe = load_recipe("digits", [f"pretrain.{setting}" for setting in settings], store=str(tmp_path / "store"))
    with pytest.raises(RequestError, match=message):
        prepare(recipe, listener=Listener())
    assert not (tmp_path / "store" / "objects").exists()
