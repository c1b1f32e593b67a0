"""A readable surrogate: a small decision tree on the input itself, fitted to what the encoder's probe predicts.

Craven and Shavlik, "Extracting Tree-Structured Representations of Trained Networks" (NeurIPS 1995): the tree learns the
model's answers for all train rows, labelled or not. Its `fidelity` is the share of test rows where it says the same;
the rules are kept as text. scikit-learn's `DecisionTreeClassifier` does the fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_tasks.norms import evenly
from ssl_tasks.transfer.base import Context, FloatArray, IntArray, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.tuning import context_of
from ssl_tasks.transfer.probed import fit_probe

BLOCK = 4096


def fit(task: Task) -> Prediction:
    """Fit the probe to the labels and the tree to the probe, and score the test positions with the tree."""
    from sklearn.tree import DecisionTreeClassifier

    context = context_of(task)
    assert context.features is not None
    options, probe = context.options.surrogate, fit_probe(task, context)
    rows = evenly(context.train, options.max_rows)
    told = probe.scores(context.features[rows]).argmax(axis=1)
    tree = DecisionTreeClassifier(max_leaf_nodes=options.max_leaves, random_state=0)
    tree.fit(_inputs(context, rows), told)
    scores = np.full((len(task.test), task.num_classes), 1.0 / task.num_classes)
    test, size = _inputs(context, task.test), tree.tree_.n_node_samples
    of_leaf = size[tree.apply(test)].astype(np.float64)[:, None]
    scores[:, tree.classes_] += tree.predict_proba(test) * of_leaf  # and one row spread over all classes
    scores /= of_leaf + 1.0
    same = scores.argmax(axis=1) == probe.scores(context.features[task.test]).argmax(axis=1)
    facts = {"C": probe.strength, "fidelity": float(same.mean()), "leaves": float(tree.get_n_leaves())}
    return Prediction(scores, facts, _rules(tree, context, test.shape[1]))


def _inputs(context: Context, positions: IntArray) -> FloatArray:
    """(N, values) as stored, in the data's own units, NaN where a value is missing: rules speak of these."""
    parts = [
        context.payload(positions[start : start + BLOCK]).flatten(1).float().cpu().numpy()
        for start in range(0, len(positions), BLOCK)
    ]
    return np.concatenate(parts)


def _rules(tree: Any, context: Context, width: int) -> str:
    from sklearn.tree import export_text

    names = list(context.inputs) if len(context.inputs) == width else _places(context, width)
    classes = [context.classes[number] if context.classes else str(number) for number in tree.classes_]
    # by itself it leaves out what is deeper than 10
    rules: str = export_text(tree, feature_names=names, class_names=classes, max_depth=max(1, tree.get_depth()))
    return rules


def _places(context: Context, width: int) -> list[str]:
    """Names of values that have none: where a pixel stands, counted from 0 at the upper left, or a number."""
    shape = context.payload(context.train[:1]).shape[1:]
    if len(shape) != 3:
        return [f"value {place}" for place in range(width)]
    places = (np.unravel_index(place, shape) for place in range(width))
    of = "" if shape[0] == 1 else "channel {} of "
    return [f"{of.format(channel)}pixel row {row} column {column}" for channel, row, column in places]


STRATEGY = Strategy("surrogate", "a decision tree that imitates the linear probe", fit, needs="payload", version=2)
