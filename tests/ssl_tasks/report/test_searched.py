"""Which trial wins, and how a search is told."""

from typing import Any

import pytest

from ssl_tasks.report.searched import Row, headline, ranked, render, table, winner

DRAWN = {"pretrain.optimizer.lr": 0.003, "pretrain.method.temperature": 0.2}


def row(trial: str, rung: int, value: float | None, state: Any, error: str | None = None) -> Row:
    steps = (0, 10, 30, 90)[rung + 1]
    return Row(trial, "simclr", DRAWN, rung, steps, 90, value, state, error)


ROWS = [
    row("early", 0, 0.9, "stopped"),
    row("broken", 1, 0.95, "failed", "pretrain: the loss is nan at step 40"),
    row("second", 2, 0.6, "finished"),
    row("first", 2, 0.7, "finished"),
    row("late", 1, 0.65, "out of budget"),
    row("never", -1, None, "not begun"),
]


def test_who_came_furthest_comes_first_and_a_better_value_at_an_earlier_rung_does_not_count() -> None:
    assert [each.trial for each in ranked(ROWS)] == ["first", "second", "late", "early", "never", "broken"]
    best = winner(ROWS)
    assert best is not None
    assert best.trial == "first"


@pytest.mark.parametrize("rows", [[], ROWS[1:2], ROWS[5:]])
def test_without_a_result_nobody_wins(rows: list[Row]) -> None:
    assert winner(rows) is None
    assert headline(rows, "knn") == "No trial has a result."


def test_the_table_and_the_sentence_give_method_parameters_steps_and_state() -> None:
    names, cells = table(ROWS, "knn")
    assert names == ["trial", "method", "parameters", "steps", "kNN on val", "state"]
    assert cells[0] == ["first", "simclr", "lr=0.003 temperature=0.2", "90/90", "70.0%", "finished"]
    assert cells[-1][3:] == ["30/90", "95.0%", "failed: pretrain: the loss is nan at step 40"]
    assert cells[-2][3:] == ["0/90", "-", "not begun"]
    assert table(ROWS, "rankme")[1][0][4] == "0.7"
    sentence = headline(ROWS, "knn")
    assert sentence.startswith("Best of 6: first (lr=0.003 temperature=0.2), kNN on val 70.0% after 90 of 90 steps.")
    assert "took 250 steps where all trials in full take 540" in sentence


def test_the_page_escapes_names_and_says_what_the_metric_is_worth() -> None:
    page = render([row("<b>", 2, 0.7, "finished")], recipe="r<i>", metric="knn", rungs=3, reduction=4)
    assert "<b>" not in page
    assert "<strong>&lt;b&gt;</strong>" in page
    assert "r&lt;i&gt;" in page
    assert "best 1/4" in page
    assert "test rows were" in page
    assert "compares settings of one method better" in " ".join(
        render(ROWS, recipe="r", metric="rankme", rungs=3, reduction=3).split()
    )
