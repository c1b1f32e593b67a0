"""Candidates and their refusals, and a comparison from the command line in which one method fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.compare import Candidate, candidates, trials
from ssl_tasks.errors import RequestError

ROOT = Path(__file__).parents[2]


def test_methods_and_a_file_give_candidates_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("hot: {pretrain: {epochs: 3, method: {name: simclr, temperature: 0.5}}, augment: {policies: {}}}\n")
    assert candidates("byol, moco", file) == [
        Candidate("byol", ("pretrain.method.name=byol",)),
        Candidate("moco", ("pretrain.method.name=moco",)),
        Candidate(
            "hot",
            (
                "pretrain.epochs=3",
                'pretrain.method.name="simclr"',
                "pretrain.method.temperature=0.5",
                "augment.policies={}",
            ),
        ),
    ]


@pytest.mark.parametrize(
    ("methods", "text", "message"),
    [
        (None, None, r"compare: name the methods, as in --methods simclr,byol"),
        (" , ", None, r"compare: name the methods"),
        ("byol,moco,byol", None, r"compare: byol is asked for twice"),
        ("byol", "byol: {pretrain: {epochs: 2}}", r"compare: byol is asked for twice"),
        (None, "- byol", r"some\.yaml: a file of candidates gives each name the sections"),
        (None, "byol: 3", r"some\.yaml: a file of candidates gives each name the sections"),
        (None, "a: [", r"some\.yaml: while parsing"),
    ],
)
def test_wrong_candidates_are_refused(methods: str | None, text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RequestError, match=message):
        candidates(methods, file if text is not None else None)


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nothing\.yaml"):
        candidates(None, tmp_path / "nothing.yaml")


def test_every_candidate_is_tried_with_every_seed_from_the_recipes_on(tmp_path: Path) -> None:
    made = trials("digits", candidates("byol,moco", None), ["seed=7", "pretrain.epochs=2"], str(tmp_path), 2)
    assert [(trial.candidate.name, trial.seed) for trial in made] == [
        ("byol", 7), ("byol", 8), ("moco", 7), ("moco", 8),
    ]  # fmt: skip
    section = made[3].recipe.pretrain  # type: ignore[attr-defined]  # a section
    assert (section.method.name, section.epochs, section.seed) == ("moco", 2, 8)
    assert made[3].arguments[-2:] == ("--store", made[3].recipe.store)


def test_a_candidate_whose_recipe_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"candidate nope: .*no method 'nope'"):
        trials("digits", candidates("byol,nope", None), [], str(tmp_path), 1)


def test_a_method_that_fails_ends_its_own_run_and_not_the_comparison(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(
        "good: {pretrain: {method: {name: simclr}}}\n"
        "bad: {pretrain: {method: {name: simclr}, optimizer: {name: sgd, lr: 1.0e+30}}}\n"
    )
    command = [sys.executable, "-m", "flows.cli", "compare", "digits", "--candidates", str(file), "--json"]
    command += ["--store", str(tmp_path / "store"), "-o", str(tmp_path / "page.html")]
    for setting in ("max_steps=3", "batch_size=64", "health_checks=1"):
        command += ["--set", f"pretrain.{setting}"]
    for setting in ("strategies=[knn]", "seeds=1", "label_fractions=[0.1]", "scratch.steps=1"):
        command += ["--set", f"transfer.{setting}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    good, bad = answer["lines"]
    assert (good["candidate"], bad["candidate"]) == ("good", "bad")
    assert good["scores"][0]["strategy"] == "knn"
    assert good["measures"]["uniformity"] < 0
    assert good["measures"]["alignment"] > 0
    assert good["measures"]["peak_memory_bytes"] > 1e8
    assert "loss is nan" in bad["errors"][0] or "loss is inf" in bad["errors"][0]
    assert "good" in (tmp_path / "page.html").read_text()
    assert "[2/2] bad, seed 0: failed" in done.stderr
