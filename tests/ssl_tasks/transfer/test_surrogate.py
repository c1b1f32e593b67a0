from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import tests_digits as digits
from sklearn.tree import DecisionTreeClassifier

from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.probed import fit_probe
from ssl_tasks.transfer.strategies import surrogate


def test_the_tree_is_scikit_learns_on_the_probes_answers() -> None:
    task = digits.task(digits.MLP, surrogate={"max_leaves": 30})
    found = surrogate.fit(task)
    assert task.context is not None
    assert task.context.features is not None
    pixels = digits.digits()[0].flatten(1).numpy()
    answers = fit_probe(task, task.context).scores(task.context.features).argmax(axis=1)
    tree = DecisionTreeClassifier(max_leaf_nodes=30, random_state=0)
    tree.fit(pixels[task.context.train], answers[task.context.train])
    assert np.array_equal(found.scores.argmax(axis=1), tree.predict(pixels[task.test]))
    assert found.chosen["fidelity"] == (tree.predict(pixels[task.test]) == answers[task.test]).mean()
    assert found.chosen["leaves"] == 30
    assert found.chosen["fidelity"] > 0.6


def test_scores_are_the_leafs_shares_with_one_row_spread_over_all() -> None:
    found = surrogate.fit(digits.task(digits.MLP, surrogate={"max_leaves": 2}))
    assert len(np.unique(found.scores.round(12), axis=0)) == 2
    assert found.scores.min() > 0
    assert found.scores.sum(axis=1) == pytest.approx(np.ones(len(found.scores)))


def test_more_leaves_are_more_faithful() -> None:
    few, many = (surrogate.fit(digits.task(digits.MLP, surrogate={"max_leaves": leaves})) for leaves in (3, 60))
    assert many.chosen["fidelity"] > few.chosen["fidelity"] + 0.2


def test_rules_name_values_and_classes() -> None:
    task = digits.task(digits.MLP, surrogate={"max_leaves": 12})
    text = surrogate.fit(task).text
    assert text.count("class: digit") == 12
    assert re.search(r"pixel row [0-7] column [0-7] <=", text)
    deep = surrogate.fit(digits.task(digits.MLP, surrogate={"max_leaves": 300})).text
    assert "truncated" not in deep
    assert task.context is not None
    named = dataclasses.replace(task.context, inputs=[f"pixel {place // 8},{place % 8}" for place in range(64)])
    assert "pixel 7,4 <=" in surrogate.fit(dataclasses.replace(task, context=named)).text


def test_rows_are_capped_by_the_setting() -> None:
    task = digits.task(digits.MLP, surrogate={"max_rows": 50})
    seen: list[int] = []
    assert task.context is not None
    read = task.context.payload

    def payload(positions: np.ndarray) -> object:
        seen.append(len(positions))
        return read(positions)

    surrogate.fit(dataclasses.replace(task, context=dataclasses.replace(task.context, payload=payload)))
    assert seen == [50, len(task.test), 1]  # the last tells the shape, which names the values


@pytest.mark.parametrize("wrong", [{"max_leaves": 1}, {"max_rows": 1}])
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.model_validate({"surrogate": wrong})
