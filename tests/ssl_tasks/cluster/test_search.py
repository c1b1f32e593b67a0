"""Successive halving on a real Ray Tune: who goes on, what the budget ends, and a trial that fails."""

import math
import os
import signal
import threading
from pathlib import Path

import pytest

from ssl_tasks.cluster.search import Reached, _Watch, halve

pytestmark = pytest.mark.usefixtures("ray_session")

VALUES = [[0.30, 0.40, 0.50], [0.20, 0.90, 0.90], [0.40, 0.35, 0.60], [0.10, 0.20, 0.30], [0.50, 0.60, 0.55]]
STEPS = [(10, 30, 90)] * 5


def value(trial: int, rung: int) -> float:
    return VALUES[trial][rung]


def failing(trial: int, rung: int) -> float:
    if (trial, rung) == (0, 1):
        raise ValueError("no\nluck")
    return VALUES[trial][rung]


def dying(trial: int, rung: int) -> float:
    if trial == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return VALUES[trial][rung]


def told_by(run, tmp_path: Path, **options) -> list[Reached]:
    reached: list[Reached] = []
    halve(run, STEPS, reached.append, store=str(tmp_path / "tune"), **options)
    return reached


def test_a_trial_goes_on_where_it_is_among_the_best_third_of_those_before_it(tmp_path: Path) -> None:
    began: list[int] = []
    reached: list[Reached] = []
    lock = threading.RLock()  # as a console holds one: Tune cannot write it into its files

    def told(event: Reached) -> None:
        with lock:
            reached.append(event)

    halve(value, STEPS, told, began.append, store=str(tmp_path / "tune"))
    assert began == [0, 1, 2, 3, 4]
    assert [(each.trial, each.rung, each.goes_on) for each in reached] == [
        (0, 0, True), (0, 1, True), (0, 2, False),  # the first has nobody to be compared with
        (1, 0, False),
        (2, 0, True), (2, 1, False),  # 0.35 is below the 0.40 that stands at this rung
        (3, 0, False),
        (4, 0, True), (4, 1, True), (4, 2, False),
    ]  # fmt: skip
    assert [each.value for each in reached if each.trial == 4] == VALUES[4]
    assert not any(each.error or each.out_of_budget for each in reached)


def test_a_budget_ends_a_trial_whose_next_rung_is_too_long_and_then_the_search(tmp_path: Path) -> None:
    reached = told_by(value, tmp_path, budget=109)
    assert [(each.trial, each.rung, each.goes_on, each.out_of_budget) for each in reached] == [
        (0, 0, True, False), (0, 1, True, False), (0, 2, False, False),  # 90 steps
        (1, 0, False, True),  # 9 are left: for no rung at all
    ]  # fmt: skip


def test_a_trial_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    reached = told_by(failing, tmp_path)
    first = [each for each in reached if each.trial == 0]
    assert [(each.rung, each.error, each.goes_on) for each in first] == [
        (0, None, True), (1, "ValueError: no luck", False),
    ]  # fmt: skip
    assert math.isnan(first[1].value)
    assert {each.trial for each in reached} == {0, 1, 2, 3, 4}
    assert reached[-1].rung == 2


def test_a_trial_whose_process_is_killed_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    reached = told_by(dying, tmp_path)
    assert (reached[0].trial, reached[0].error) == (0, "the trial's process ended")
    assert [each.trial for each in reached if each.rung == 2] == [1]  # 0.9 at the rung before stops the others


def test_what_a_budget_leaves_is_counted_by_finished_rungs() -> None:
    watch = _Watch([(10, 30), (5, 45)], lambda reached: None, 50)
    assert not watch("a", {"trial": 0, "rung": 0})  # 40 left, 20 needed
    assert watch("b", {"trial": 1, "rung": 0})  # 35 left, 40 needed
    assert watch.cut == {1}
    assert not watch("a", {"trial": 0, "rung": 1})  # 15 left; nothing comes after
    assert watch("c", {"trial": 0, "rung": 0, "error": "x"})
    assert watch.left == 15
    assert not watch.stop_all()
    watch.left = 4
    assert watch.stop_all()
