"""Recipes that share a cluster: a queue of training workers at the Prefect server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import turns
from flows.recipe import load_recipe
from ssl_tasks.errors import RequestError


def recipe(*sets: str) -> Any:
    return load_recipe("digits", sets)


@pytest.mark.parametrize(("workers", "share"), [("3", 3), ("[2, 8]", 8)])
def test_a_share_is_the_most_workers(workers: str, share: int) -> None:
    assert turns.share(recipe(f"pretrain.num_workers={workers}")) == share


def test_a_queue_that_would_never_let_it_train_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = {"small": SimpleNamespace(limit=2), "large": SimpleNamespace(limit=4)}
    monkeypatch.setattr(turns, "_limit", queues.get)
    turns.check(recipe("pretrain.num_workers=4"))
    turns.check(recipe("pretrain.num_workers=4", "queue=large"))
    with pytest.raises(RequestError, match=r"queue: small lets 2 workers train at a time, .* asks for 4"):
        turns.check(recipe("pretrain.num_workers=4", "queue=small"))
    with pytest.raises(RequestError, match=r"no concurrency limit 'other'; make it with `prefect gcl create other"):
        turns.check(recipe("queue=other"))


def training(tmp_path: Path) -> int:
    """Number of trainings that are at work."""
    return len(list(tmp_path.glob("store/partial/*/progress.json")))


def test_two_runs_take_turns(command: Callable[..., Any], api: Any, recipe_file: Path, tmp_path: Path) -> None:
    api("v2/concurrency_limits/", {"name": "trainings", "limit": 1})
    words = ("run", str(recipe_file), "--json", "--set", "queue=trainings", "--set")
    first = command(*words, "pretrain.seconds=6")
    deadline = time.monotonic() + 60
    while not training(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    second = command(*words, "pretrain.epochs=2")
    at_once = 0
    while first.poll() is None:
        at_once = max(at_once, training(tmp_path))
        time.sleep(0.1)
    (_, said), (out, waited) = first.communicate(timeout=60), second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), said + waited
    assert "waits for 1 of the 1 workers of the queue trainings" in waited
    assert "waits" not in said
    assert at_once == 1
    stages = json.loads(out.splitlines()[-1])["stages"]
    assert {stage["name"]: stage["status"] for stage in stages}["pretrain"] == "ran"
