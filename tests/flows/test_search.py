"""A trial that is trained from rung to rung, what became of trials, the winner's recipe, and the command on digits."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.commands import app
from flows.compare import Trial, trials
from flows.execution import Listener
from flows.plan import make_plan
from flows.recipe import build_recipe, load_recipe
from flows.search import courses, rows, rung_steps, train_to, winner_yaml
from flows.spaces import Draw, draw, spaces
from flows.stored import open_to_read
from ssl_tasks.cluster.search import Reached
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store

ROOT = Path(__file__).parents[2]
RUNGS: dict[str, Any] = {"rungs": 2, "reduction": 3}


def test_rungs_stand_at_health_checks_and_each_is_a_share_of_the_next() -> None:
    assert rung_steps(list(range(15, 301, 15)), 3, 3) == (30, 105, 300)
    assert rung_steps([25, 50, 75, 100], 2, 2) == (50, 100)
    assert rung_steps([7], 1, 3) == (7,)
    with pytest.raises(RequestError, match=r"--rungs 3 .*after 10, 20, which is too few .*pretrain\.health_checks"):
        rung_steps([10, 20], 3, 3)


@pytest.fixture
def wanted(store: Store, small: dict[str, Any], tmp_path: Path) -> tuple[list[Draw], list[Trial]]:
    """Two trials on a recipe of eight steps that is looked at after 2, 4, 6 and 8."""
    small["pretrain"] |= {"epochs": 2, "max_steps": 8, "health_checks": 4}
    small["split"] = {"fractions": {"train": 0.7, "val": 0.2, "test": 0.1}}
    recipe = tmp_path / "small.yaml"
    recipe.write_text(json.dumps({"name": "small", **small}))
    space = tmp_path / "space.yaml"
    space.write_text("a: {pretrain: {method: {name: simclr, temperature: {uniform: [0.1, 0.5]}}}}")
    drawn = draw(spaces(None, space, 0.001), 2, seed=0)
    return drawn, trials(str(recipe), [each.candidate for each in drawn], [], store.uri, 1)


def test_a_trial_that_came_through_all_rungs_has_the_artifact_of_a_plain_run(
    wanted: tuple[list[Draw], list[Trial]], store: Store, tmp_path: Path, chain: Any, ray_session: None
) -> None:
    _, made = wanted
    found = courses(made, **RUNGS, metric="knn", listener=Listener())
    assert [course.steps for course in found] == [(2, 8), (2, 8)]
    fingerprint = found[1].planned.fingerprint
    first = train_to(found, "knn", None, 1, 0)
    assert store.lookup(fingerprint) is None
    names = store.list(f"partial/{fingerprint}")
    assert {"rung-00000002.json", "step-00000002.pt"} <= set(names)
    assert "step-00000008.pt" not in names
    assert train_to(found, "knn", None, 1, 0) == first
    assert store.list(f"partial/{fingerprint}") == names  # nothing was trained again

    last = train_to(found, "knn", None, 1, 1)
    artifact = store.lookup(fingerprint)
    assert artifact is not None
    assert artifact.measured["resumed_at"] == 2
    assert artifact.measured["knn"] == last
    assert store.list(f"partial/{fingerprint}") == []
    assert [train_to(found, "knn", None, 1, rung) for rung in (0, 1)] == [first, last]  # out of the artifact

    other = Store.open(str(tmp_path / "other"))
    sections = made[1].recipe.to_dict()
    plain = chain(other, {name: value for name, value in sections.items() if isinstance(value, dict)}, "pretrain")
    assert plain["pretrain"].measured["resumed_at"] is None
    assert plain["pretrain"].manifest.data_checksum == artifact.manifest.data_checksum

    # the winner's recipe is found in the store by `run`
    file = tmp_path / "best.yaml"
    file.write_text(winner_yaml(made[1].recipe, "why"))
    again = load_recipe(str(file))
    assert again == made[1].recipe
    status = {entry.name: entry.status for entry in make_plan(again, open_to_read(again.store))}
    assert (status["pretrain"], status["transfer"]) == ("cached", "run")


def test_knn_without_labels_on_val_is_refused_before_any_training(
    wanted: tuple[list[Draw], list[Trial]], tmp_path: Path
) -> None:
    _, made = wanted
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    source: Any = made[0].recipe
    for number, file in enumerate(sorted(Path(source.ingest.path).rglob("*.png"))):
        (folder / f"{number}.png").write_bytes(file.read_bytes())
    data = made[0].recipe.to_dict()
    data["ingest"] |= {"path": str(folder)}
    blind = [Trial(made[0].candidate, 0, build_recipe(data, where="test"), ())]
    with pytest.raises(RequestError, match=r"candidate a-1: --metric knn: val rows have no labels"):
        courses(blind, **RUNGS, metric="knn", listener=Listener())
    assert courses(blind, **RUNGS, metric="rankme", listener=Listener())[0].steps == (2, 8)


def test_what_became_of_each_trial(wanted: tuple[list[Draw], list[Trial]]) -> None:
    drawn, made = wanted
    found = courses(made, **RUNGS, metric="knn", listener=Listener())

    def states(*reached: Reached) -> list[Any]:
        return [(row.state, row.steps, row.value, row.error) for row in rows(drawn, made, found, reached)]

    assert states(
        Reached(0, 0, 0.5, None, True, False), Reached(1, 0, 0.4, None, False, False),
        Reached(0, 1, 0.6, None, False, False),
    ) == [("finished", 8, 0.6, None), ("stopped", 2, 0.4, None)]  # fmt: skip
    assert states(
        Reached(0, 0, 0.5, None, True, False), Reached(0, 1, float("nan"), "it broke", False, False)
    ) == [("failed", 2, 0.5, "it broke"), ("not begun", 0, None, None)]  # fmt: skip
    assert [state for state, *_ in states(
        Reached(0, 0, 0.5, None, False, True), Reached(1, 0, 0.5, None, True, False)
    )] == ["out of budget", "out of budget"]  # fmt: skip
    first = rows(drawn, made, found, [])[0]
    assert (first.trial, first.method, first.total_steps) == ("a-1", "simclr", 8)
    assert first.parameters == drawn[0].parameters


def command(tmp_path: Path, *words: str) -> list[str]:
    options = [
        "--store",
        str(tmp_path / "store"),
        "-o",
        str(tmp_path / "best.yaml"),
        "--page",
        str(tmp_path / "p"),
    ]
    settings = ("max_steps=9", "batch_size=64", "health_checks=9", "layout=contiguous", "compile=never")
    sets = [word for setting in settings for word in ("--set", f"pretrain.{setting}")]
    return [sys.executable, "-m", "flows.cli", "search", "digits", *options, *sets, *words]


@pytest.mark.timeout(900)  # several runs, a process each
def test_a_search_from_the_command_line_and_once_more(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(
        "bad: {pretrain: {method: {name: simclr}, optimizer: {name: sgd, lr: 1.0e+30}}}\n"
        "good: {pretrain: {method: {name: simclr, temperature: {uniform: [0.1, 0.5]}}}}\n"
    )
    words = command(tmp_path, "--candidates", str(file), "--trials", "2", "--rungs", "2", "--json")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["state"], answer["metric"]) == ("completed", "knn")
    states = {row["trial"]: row["state"] for row in answer["trials"]}
    assert (states["bad-1"], states["good-1"]) == ("failed", "finished")
    assert "Lower pretrain.optimizer.lr" in answer["trials"][-1]["error"]
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    winning = next(row for row in answer["trials"] if row["trial"] == answer["winner"])
    assert best["pretrain"]["method"] == {
        "name": "simclr", "temperature": winning["parameters"]["pretrain.method.temperature"],
    }  # fmt: skip
    assert answer["winner"] in (tmp_path / "p").read_text()
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path / "store" / "partial") != []  # of the trials that stopped; Tune's own is gone
    assert not [name for name in os.listdir(tmp_path / "store" / "partial") if name.startswith("search")]

    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=500)
    repeated = json.loads(again.stdout.splitlines()[-1])
    assert repeated == answer


def test_ctrl_c_ends_a_search_within_five_seconds(tmp_path: Path) -> None:
    words = command(tmp_path, "--methods", "simclr", "--trials", "1", "--set", "pretrain.max_steps=100000")
    marked = {**os.environ, "STARTED_BY": str(tmp_path)}  # which all that it starts inherits
    process = subprocess.Popen(words, cwd=ROOT, env=marked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("store/partial/*/step-*.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert "continue with the same command" in errors
    assert "Traceback" not in errors
    while (left := _marked(str(tmp_path))) and time.monotonic() - began < 30:
        time.sleep(0.1)
    assert not left


def _marked(text: str) -> list[str]:
    """Processes that have the text in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            seen = (path / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in seen:
            found.append(path.name)
    return found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "search: name the methods"),
        (["--methods", "nope"], "candidate nope-1: .*no method 'nope'"),
        (["--methods", "simclr", "-o", "/no/such/folder/x.yaml"], "--output: there is no folder"),
        (["--methods", "mae"], "candidate mae-1: .*backbone"),
    ],
)
def test_wrong_requests_end_with_2_before_anything_is_made(words: list[str], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, command(tmp_path, *words)[3:])
    assert done.exit_code == 2
    assert re.search(message, done.stderr)
    assert not (tmp_path / "store").exists()
