"""`pretextflow transfer`: what its two arguments may be, what it refuses, and its record, without Prefect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests_adopted import picture, pretrained, timm_file
from typer.testing import CliRunner

from flows import server, session
from flows.commands import app
from flows.dag import DAG, TRANSFER
from flows.execution import Execution, Listener, prepare
from flows.existing import transfer_recipe
from flows.recipe import build_recipe, dag_of, load_recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RunRecord, StageRecord, load_run, save_run

RUN = "20260101-000000-photos-ab12"
QUICK = (
    "transfer.strategies=[knn]", "transfer.label_fractions=[1.0]", "transfer.seeds=1", "transfer.bootstrap=100",
    "transfer.raw_input=false", "transfer.scratch={steps: 1, learning_rates: [0.001]}", "clean.min_side=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for seed in range(40):
        folder = root / ("bright" if seed % 2 else "dark")
        folder.mkdir(exist_ok=True)
        picture(seed, 16).point(lambda value, seed=seed: value // 3 + 150 * (seed % 2)).save(folder / f"{seed:02d}.png")
    return root


@pytest.fixture
def ours(tmp_path: Path, photos: Path, chain: Any) -> Artifact:
    """An encoder of ours with the record of its run."""
    store = Store.open(str(tmp_path / "store"))
    sections = {"ingest": {"path": str(photos)}, "normalize": {"size": 16}, "augment": {"flip_probability": 0.125}}
    encoder = pretrained(chain(store, sections), "test_resnet")
    stage = StageRecord(name="pretrain", status="ran", fingerprint=encoder.fingerprint, reason="", uri=encoder.location)
    save_run(
        store, RunRecord(run_id=RUN, name="photos", recipe={"store": store.uri}, state="completed", stages=[stage])
    )
    return encoder


@pytest.mark.parametrize("form", ["run", "start of the run", "fingerprint", "its start", "uri", "folder"])
def test_an_encoder_of_ours_may_be_named_in_many_ways(ours: Artifact, photos: Path, form: str) -> None:
    text = {
        "run": RUN,
        "start of the run": RUN[:15],
        "fingerprint": ours.fingerprint,
        "its start": ours.fingerprint[:12],
        "uri": ours.location,
        "folder": str(Path(ours.location).relative_to(Path(ours.location).root)),
    }[form]
    if form == "folder":
        text = f"/{text}"
    made: Any = transfer_recipe(text, str(photos), store=ours.uri)
    assert made.adopt.encoder.endswith(ours.fingerprint)
    assert made.store == ours.uri
    assert dag_of(made) is TRANSFER
    assert dag_of(made.to_dict()) is TRANSFER


def test_data_of_a_path_gets_the_encoders_views_and_a_recipe_keeps_its_own(ours: Artifact, photos: Path) -> None:
    of_path: Any = transfer_recipe(RUN, str(photos), store=ours.uri)
    assert of_path.ingest.path == str(photos)
    assert of_path.augment.flip_probability == 0.125
    of_recipe: Any = transfer_recipe(RUN, "digits", ["transfer.seeds=2", "report.title=Digits"], store=ours.uri)
    assert of_recipe.ingest.path == "builtin:digits"
    assert of_recipe.augment.flip_probability == 0.0
    assert of_recipe.clean.near_duplicates is None
    assert of_recipe.transfer.seeds == (0, 1)
    assert of_recipe.name == "digits-transfer"
    assert not hasattr(of_recipe, "pretrain")


def test_a_recipe_with_a_section_adopt_is_one_of_this_dag(tmp_path: Path, photos: Path) -> None:
    timm_file(tmp_path / "w.pth")
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\ningest: {{path: {photos}}}\nadopt: {{encoder: 'timm:test_resnet@{tmp_path}/w.pth'}}\n"
    )
    assert dag_of(load_recipe(str(path))) is TRANSFER
    assert dag_of(load_recipe("digits")) is DAG
    assert dag_of({"name": "x"}) is DAG


@pytest.mark.parametrize("command", ["compare", "search"])
def test_what_pretrains_refuses_a_recipe_that_does_not(command: str, tmp_path: Path, photos: Path) -> None:
    timm_file(tmp_path / "w.pth")
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\ningest: {{path: {photos}}}\nadopt: {{encoder: 'timm:test_resnet@{tmp_path}/w.pth'}}\n"
    )
    words = [command, str(path), "--methods", "simclr,byol", "--store", str(tmp_path / "store"), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "adopts an encoder" in result.stderr
    doctor = CliRunner().invoke(app, ["doctor", "--recipe", str(path), "--store", str(tmp_path / "store"), "--json"])
    assert isinstance(doctor.exception, SystemExit | None)


def test_every_stage_of_it_reads_only_those_before(ours: Artifact) -> None:
    seen: set[str] = set()
    for stage in TRANSFER:
        assert set(stage.inputs) <= seen
        seen.add(stage.name)


Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Call the command; the flow is what Prefect would do, in this process and without its server."""

    def call_flow(execution: Execution, server: Any) -> None:
        for planned in execution.plan:
            execution.run_stage(planned.name)
            execution.check_after(planned.name)
        execution.finish("completed")

    class Server:
        child = ""

    class Connection:
        def __enter__(self) -> Server:
            return Server()

        def __exit__(self, *error: Any) -> None:
            pass

    monkeypatch.setattr(session, "_call_flow", call_flow)
    monkeypatch.setattr(server, "connection", Connection)
    monkeypatch.setattr(session, "_on_interrupt", lambda *given: None)

    def ask(*words: str) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout.splitlines()[-1])

    return ask


def settings(*overrides: str) -> list[str]:
    return [word for text in (*QUICK, *overrides) for word in ("--set", text)]


def test_a_run_is_recorded_cached_shown_and_rerun(ours: Artifact, photos: Path, ask: Ask) -> None:
    words = ("transfer", RUN, str(photos), "--store", ours.uri, *settings("split.seed=3"))
    status, answer = ask(*words)
    assert (status, answer["state"]) == (0, "completed"), answer
    assert [stage["name"] for stage in answer["stages"]] == [stage.name for stage in TRANSFER]
    assert answer["metrics"]["contamination"]["equal"] > 0  # the same pictures, split otherwise
    assert answer["metrics"]["transfer"]["summary"][0]["strategy"] == "knn"
    assert Path(answer["report"]).is_file()
    again = ask(*words)[1]
    assert {stage["status"] for stage in again["stages"]} == {"cached"}
    assert ask("show", answer["run_id"], "--store", ours.uri)[1]["recipe"]["adopt"]["encoder"] == ours.fingerprint
    assert ask("lineage", answer["run_id"], "--store", ours.uri)[0] == 0
    status, rerun = ask("rerun", answer["run_id"], "--from", "contamination", "--store", ours.uri)
    assert status == 0, rerun
    assert [stage["name"] for stage in rerun["stages"] if stage["status"] == "ran"] == ["contamination", "report"]
    other = ask("transfer", answer["run_id"], str(photos), "--store", ours.uri, *settings("split.seed=3"))[1]
    assert other["state"] == "completed"  # a run of this kind names its encoder too
    page = Path(ours.uri).parent / "page.html"
    status, diff = ask("diff", answer["run_id"], other["run_id"], "--store", ours.uri, "-o", str(page))
    assert status == 0, diff
    assert "same encoder" in diff["transfer"]["headline"]


def test_an_encoder_of_another_store_is_told_apart_in_its_lineage(
    ours: Artifact, photos: Path, ask: Ask, tmp_path: Path
) -> None:
    place = ("--store", str(tmp_path / "other"))
    status, answer = ask("transfer", ours.location, str(photos), *place, *settings("transfer.strategies=[]"))
    assert status == 0, answer
    status, traced = ask("lineage", answer["run_id"], *place)
    assert status == 0, traced
    nodes = {node["stage"]: node for node in traced["nodes"]}
    assert nodes["adopt"]["parents"] == {"encoder": ours.fingerprint}
    assert "pretrain" not in nodes


def test_nothing_is_written_when_the_request_is_wrong(tmp_path: Path, photos: Path, ask: Ask) -> None:
    timm_file(tmp_path / "w.pth")
    place, good = ("--store", str(tmp_path / "store")), f"timm:test_resnet@{tmp_path}/w.pth"
    for words, message in (
        ((f"timm:resnet18@{tmp_path}/w.pth", str(photos)), "adopt.encoder: the weights in "),
        ((f"timm:test_resnet@{tmp_path}/gone.pth", str(photos)), "there is no file of weights"),
        (("timm:test_resnet", str(photos)), "expected timm:<model>@<file of weights>"),
        ((str(photos), str(photos)), "has no config.json"),
        (("20250101-000000-gone", str(photos)), "there is no run, artifact or folder of this name"),
        ((good, "no-such-data"), "data no-such-data: there is no such folder or file"),
        ((good, str(tmp_path / "gone.yaml")), "no such file"),
        ((good, str(photos), "--set", "normalize.size=64"), "normalize.size: the encoder brings its own normalization"),
        ((good, str(photos), "--set", "pretrain.epochs=3"), "pretrain: unknown key"),
        ((good, str(photos), "--set", "adopt.size=2"), "adopt.size: "),
        ((good, "cancer"), "adopt.encoder: it takes samples of modality image, and ingest.modality is tabular"),
    ):
        status, answer = ask("transfer", *words, *place)
        assert status == 2, answer
        assert message in answer["error"]
        assert "\n" not in answer["error"]
    assert not list((tmp_path / "store").glob("runs/*"))
    assert not list((tmp_path / "store").glob("objects/*"))


def test_a_run_without_an_encoder_is_named(tmp_path: Path, photos: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    stage = StageRecord(name="pretrain", status="skipped", fingerprint="0" * 64, reason="")
    save_run(store, RunRecord(run_id=RUN, name="photos", recipe={}, state="failed", stages=[stage]))
    with pytest.raises(RequestError, match=f"the run {RUN} has no encoder yet; it is failed"):
        transfer_recipe(RUN, str(photos), store=store.uri)


def test_strategies_that_the_encoder_cannot_take_end_the_run_before_the_data_is_read(
    tmp_path: Path, photos: Path, ask: Ask
) -> None:
    timm_file(tmp_path / "w.pth")
    words = ("transfer", f"timm:test_resnet@{tmp_path}/w.pth", str(photos), "--store", str(tmp_path / "store"))
    status, answer = ask(*words, "--set", "transfer.strategies=[lora]")
    assert status == 2
    assert "lora" in answer["error"]
    ran = [stage["name"] for stage in answer["stages"] if stage["status"] == "ran"]
    assert ran == ["adopt"]


def test_the_record_holds_what_a_worker_needs(ours: Artifact, photos: Path) -> None:
    recipe = transfer_recipe(ours.location, str(photos), QUICK, store=ours.uri)
    execution = prepare(recipe, listener=Listener())
    record = load_run(execution.store, execution.record.run_id)
    assert record is not None
    again = build_recipe(record.recipe, where="record")
    assert again.to_dict() == recipe.to_dict()


def test_the_flow_has_a_name_of_its_own(ours: Artifact, photos: Path) -> None:
    from flows.flow import flow_of

    assert flow_of(transfer_recipe(RUN, str(photos), store=ours.uri)).name == "pretextflow-transfer"
    assert flow_of(load_recipe("digits")).name == "pretextflow"
