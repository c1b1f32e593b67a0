"""Commands that need no server, and what every command promises: JSON last, exit status, no traceback."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import doctor as doctor_checks
from flows import lineage, session
from flows.commands import app
from flows.console import make_console
from flows.execution import Execution
from flows.output import Out
from ssl_tasks.errors import StageError

Begin = Callable[..., Execution]
Ask = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def ask(tiny: ModuleType) -> Ask:
    """Call a command with --json: exit status, the JSON object, what people see."""

    def ask(*words: str) -> tuple[int, dict[str, Any], str]:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stderr

    return ask


@pytest.fixture
def done(begin: Begin) -> Execution:
    execution = begin()
    for planned in execution.plan:
        execution.run_stage(planned.name)
    execution.finish("completed")
    return execution


def test_the_commands_are_these() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == {
        *("run", "plan", "rerun", "transfer", "compare", "search", "diff", "runs", "show", "lineage", "quarantine"),
        *("gc", "methods", "doctor", "deploy", "serve"),
    }  # fmt: skip


def test_quarantine_lists_what_a_run_rejected_and_flagged(ask: Ask, done: Execution, tmp_path: Path) -> None:
    place = ("--store", done.store.uri)
    status, answer, seen = ask("quarantine", done.record.run_id, *place)
    assert status == 0
    assert [(row["row"], row["severity"], row["reason"]) for row in answer["rows"]] == [
        (3, "rejected", "duplicate_of_test"),
        (5, "flagged", "outlier"),
        (6, "flagged", "outlier"),
    ]
    assert answer["counts"][0] == {"severity": "flagged", "reason": "outlier", "rows": 2}
    assert "f3.png" in seen
    assert "2 outlier (flagged)" in seen
    status, answer, seen = ask("quarantine", done.record.run_id, *place, "--reason", "outlier", "--limit", "1")
    assert [row["row"] for row in answer["rows"]] == [5]
    assert "1 of 2 shown" in seen
    folder = tmp_path / "pictures"
    ask("quarantine", done.record.run_id, *place, "--thumbnails", str(folder))
    assert {path.name[:8] for path in folder.iterdir()} == {"00000003", "00000006"}
    status, answer, _ = ask("quarantine", done.record.run_id, *place, "--thumbnails", str(folder))
    assert (status, answer["error"].endswith("the folder is not empty; name another")) == (2, True)
    status, answer, _ = ask("quarantine", done.record.run_id, *place, "--reason", "blurred")
    assert status == 2
    assert "there are: duplicate_of_test, outlier" in answer["error"]


def broken(begin: Begin, stage: str, *overrides: str) -> Execution:
    """A run that failed in this stage."""
    execution = begin(*overrides)
    for planned in execution.plan:
        if planned.name == stage:
            break
        execution.run_stage(planned.name)
    with pytest.raises(StageError) as caught:
        execution.run_stage(stage)
    execution.finish("failed", caught.value)
    return execution


def test_quarantine_tells_of_the_stage_that_found_too_many(ask: Ask, begin: Begin, tmp_path: Path) -> None:
    execution = broken(begin, "assign", "split.fraction=0.13")
    place, folder = ("--store", execution.store.uri), tmp_path / "pictures"
    status, answer, seen = ask("quarantine", execution.record.run_id, *place, "--thumbnails", str(folder))
    assert (status, [row["row"] for row in answer["rows"]], len(list(folder.iterdir()))) == (1, [3, 5, 6], 2)
    assert "assign failed, so there may be more: assign: 3 of 10 samples cannot be used" in answer["error"]
    assert "assign failed, so there may be more" in seen
    execution.store.delete(f"partial/{execution.record.stage('assign').fingerprint}")
    status, answer, seen = ask("quarantine", execution.record.run_id, *place, "--reason", "outlier")
    assert (status, answer["rows"]) == (1, [])
    assert "3 of 10 samples cannot be used" in answer["error"]
    assert "nothing is in quarantine" not in seen


def test_quarantine_is_complete_although_a_later_stage_failed(ask: Ask, begin: Begin) -> None:
    execution = broken(begin, "pretrain", "pretrain.fail=refuse")
    status, answer, _ = ask("quarantine", execution.record.run_id, "--store", execution.store.uri)
    assert (status, len(answer["rows"]), "error" in answer) == (0, 3, False)


def test_thumbnails_are_those_of_the_reason_whatever_is_shown(ask: Ask, done: Execution, tmp_path: Path) -> None:
    words = ("quarantine", done.record.run_id, "--store", done.store.uri, "--limit", "1", "--thumbnails")
    ask(*words, str(tmp_path / "all"))
    assert [path.name for path in sorted((tmp_path / "all").iterdir())] == [
        "00000003-assign-duplicate_of_test.jpg",
        "00000006-assign-outlier.jpg",
    ]
    ask(*words, str(tmp_path / "some"), "--reason", "outlier")
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["00000006-assign-outlier.jpg"]


def test_plan_tells_status_reason_and_cost(ask: Ask, recipe_file: Path, done: Execution) -> None:
    status, answer, seen = ask("plan", str(recipe_file), "--set", "pretrain.epochs=2")
    assert status == 0
    stages = {stage["name"]: stage for stage in answer["stages"]}
    assert stages["split"]["status"] == "cached"
    assert stages["pretrain"]["status"] == "run"
    assert stages["pretrain"]["reason"] == "config epochs 1 -> 2"
    assert "config epochs 1 -> 2" in seen
    assert "3 of 6 stages would run" in seen


def test_a_wrong_request_is_one_line_and_status_2(ask: Ask, recipe_file: Path) -> None:
    status, answer, seen = ask("plan", str(recipe_file), "--set", "pretrain.epoch=2")
    assert status == 2
    assert "pretrain.epoch: unknown key, did you mean 'epochs'?" in answer["error"]
    assert seen.count("\n") == 1


def test_plan_refuses_what_run_refuses(ask: Ask, recipe_file: Path, done: Execution) -> None:
    status, answer, _ = ask("plan", str(recipe_file), "--set", "pretrain.epochs=13")
    assert (status, answer["error"]) == (2, "pretrain.epochs: 13 is unlucky")


def test_a_missing_source_is_refused_before_anything_is_written(ask: Ask, recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data.txt").unlink()
    status, answer, _ = ask("plan", str(recipe_file))
    assert status == 1
    assert "data.txt" in answer["error"]
    assert not list(tmp_path.glob("store/runs/*"))


def test_runs_and_show(ask: Ask, done: Execution) -> None:
    uri = done.store.uri
    status, answer, seen = ask("runs", "--store", uri)
    assert status == 0
    assert [run["run_id"] for run in answer["runs"]] == [done.record.run_id]
    assert done.record.run_id in seen
    status, answer, seen = ask("show", done.record.run_id[:15], "--store", uri)
    assert (status, answer["state"]) == (0, "completed")
    assert answer["recipe"]["name"] == "tiny"
    assert "gain over random init" in seen
    assert answer["report"] in seen.replace("\n", "")
    assert ask("show", "nothing", "--store", uri)[0] == 2


def test_rerun_refuses_what_it_cannot_continue(ask: Ask, done: Execution, begin: Begin) -> None:
    uri = done.store.uri
    status, answer, _ = ask("rerun", "--store", uri)
    assert (status, answer["error"]) == (
        2,
        f"rerun: the store {uri} has no unfinished run (pretextflow runs lists all)",
    )
    running = begin("pretrain.epochs=3")
    status, answer, _ = ask("rerun", running.record.run_id, "--store", uri)
    assert status == 2
    assert "still running" in answer["error"]
    status, answer, _ = ask("rerun", done.record.run_id, "--from", "nowhere", "--store", uri)
    assert status == 2
    assert "--from nowhere" in answer["error"]


@pytest.mark.parametrize("form", ["prefix", "path", "run"])
def test_lineage_reaches_the_raw_files(ask: Ask, done: Execution, form: str) -> None:
    report = done.artifacts["report"]
    given = {"prefix": report.fingerprint[:16], "path": report.location, "run": done.record.run_id}[form]
    status, answer, seen = ask("lineage", given, "--store", done.store.uri)
    assert status == 0
    assert answer["artifact"] == report.fingerprint
    nodes = {node["stage"]: node for node in answer["nodes"]}
    assert set(nodes) == {stage.name for stage in done.record.stages}
    assert nodes["ingest"]["sources"] == [f"f{number}.png" for number in range(10)]
    assert nodes["pretrain"]["parents"] == {"split": done.artifacts["split"].fingerprint}
    assert "f0.png" in seen
    assert "(see above)" in seen


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("a/b.png", ["a/b.png"]),
        ("people.csv#12", ["people.csv"]),
        ("a/list.csv#12 -> ../b/c #1.png", ["a/list.csv", "b/c #1.png"]),
        ("a/x.tar#3:d/e.png", ["a/x.tar"]),
        ("x.npz#3:x_train", ["x.npz"]),
    ],
)
def test_the_raw_files_behind_a_row(source: str, files: list[str]) -> None:
    assert list(lineage._files(source)) == files


def test_lineage_of_nothing_is_refused(ask: Ask, done: Execution) -> None:
    assert ask("lineage", "ffffffffffff", "--store", done.store.uri)[0] == 2


def test_gc_says_what_it_frees(ask: Ask, done: Execution, tmp_path: Path) -> None:
    status, answer, seen = ask("gc", "--store", done.store.uri, "--keep-runs", "0", "--dry-run")
    assert status == 0
    assert len(answer["artifacts"]) == 6
    assert "would remove 6 artifacts, 1 run records" in seen
    assert done.artifacts["report"].path("report.html").exists()


@pytest.mark.parametrize("words", [("runs",), ("gc",), ("plan", "RECIPE")])
def test_looking_makes_no_store(ask: Ask, recipe_file: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    given = [str(recipe_file) if word == "RECIPE" else word for word in words]
    assert ask(*given, "--store", str(tmp_path / "elsewhere"))[0] == 0
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("words", [("runs",), ("gc",), ("plan", "RECIPE"), ("doctor",)])
def test_a_folder_that_is_no_store_is_refused(
    ask: Ask, recipe_file: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    given = [str(recipe_file) if word == "RECIPE" else word for word in words]
    status, answer, seen = ask(*given, "--store", str(tmp_path / "photos"))
    assert status == (1 if words == ("doctor",) else 2)
    assert "holds something else" in answer.get("error", seen)


def test_methods_lists_names_and_papers_by_family(ask: Ask) -> None:
    status, answer, seen = ask("methods")
    assert status == 0
    listed = [(method["family"], method["name"]) for method in answer["methods"]]
    assert listed == sorted(listed)
    assert {("contrastive", "moco"), ("redundancy reduction", "vicreg"), ("reconstruction", "dae")} <= set(listed)
    assert "family" in seen
    methods = {method["name"]: method for method in answer["methods"]}
    assert {"simclr", "dae", "scarf"} <= set(methods)
    assert "2002.05709" in methods["simclr"]["paper"]
    assert "temperature" in methods["simclr"]["config"]
    assert methods["mae"]["needs"] == ["a ViT"]
    assert "needs" in seen


def test_doctor_knows_versions_that_break_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"sqlalchemy": "2.1.0b2", "fastapi": "0.154.9"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name, "99"))
    found = {finding.check: finding for finding in doctor_checks._versions()}
    assert found["sqlalchemy"].level == "fail"
    assert found["sqlalchemy"].mend == "pip install 'sqlalchemy<2.1'"
    assert found["fastapi"].level == "ok"


def test_doctor_finds_a_stale_ray_address_and_names_the_cure(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setattr(doctor_checks, "_versions", lambda: iter(()))  # what is installed here is not the subject
    stale = tmp_path / "ray_current_cluster"
    stale.write_text("127.0.0.1:1")
    monkeypatch.setattr(doctor_checks, "ADDRESS_FILE", stale)
    status, answer, seen = ask("doctor", "--store", str(tmp_path / "new"))
    checks = {check["check"]: check for check in answer["checks"]}
    assert checks["ray address file"]["level"] == "warn"
    assert checks["ray address file"]["mend"] == f"rm {stale}"
    assert f"mend: rm {stale}" in seen
    assert (status, checks["store"]["level"]) == (0, "ok")
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    status, answer, _ = ask("doctor", "--store", str(tmp_path / "new"))
    assert status == 1
    assert {check["check"]: check for check in answer["checks"]}["ray address"]["mend"] == "unset RAY_ADDRESS"


def test_doctor_finds_a_server_that_does_not_answer(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    status, answer, _ = ask("doctor", "--store", str(tmp_path / "new"))
    assert status == 1
    assert {check["check"]: check for check in answer["checks"]}["prefect server"]["level"] == "fail"


def test_deploy_without_a_lasting_server_says_what_to_do(
    ask: Ask, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    status, answer, _ = ask("deploy", str(recipe_file), "--cron", "0 2 * * *")
    assert status == 2
    assert "pretextflow serve" in answer["error"]


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_orderly_exit_takes_the_hard_one_back(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    timers: list[Timer] = []
    true_exit = session.exit_within
    monkeypatch.setattr(session, "exit_within", lambda *args: timers.append(true_exit(*args)) or timers[-1])
    monkeypatch.setattr(session, "GRACE_SECONDS", 60)
    out = Out(True, False, make_console(stderr=True), make_console(stderr=True))
    with kept_handlers(), contextlib.ExitStack() as at_end:
        session._on_interrupt(out, begin(), at_end)
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert not timers[0].finished.is_set()
    timers[0].join(5)
    assert not timers[0].is_alive()


def test_a_hanging_exit_still_tells_how_to_continue(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    execution = begin()
    out = Out(True, False, make_console(stderr=True), make_console(stderr=True))
    said: list[Callable[[], None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            session, "exit_within", lambda seconds, last_words: said.append(last_words) or Timer(seconds, int)
        )
        with kept_handlers(), contextlib.ExitStack() as at_end:
            session._on_interrupt(out, execution, at_end)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    said[0]()
    said[0]()
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    assert json.loads(line)["state"] == "interrupted"
    assert f"pretextflow rerun {execution.record.run_id}" in printed.err
