"""The classical strategies give what scikit-learn gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC

from ssl_tasks.transfer import classical
from ssl_tasks.transfer.base import Strategy, Task
from ssl_tasks.transfer.strategies import gradient_boosting, linear_svm, mlp, random_forest, rbf_svm, ridge

# a network that stops after its steps is meant to
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def hard_task(seed: int = 0, classes: int = 3) -> Task:
    """Classes that overlap, so that the choice on val matters."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, 220)
    rows = random.normal(size=(220, 12)) + 1.2 * np.eye(classes, 12)[labels]
    return Task(rows[:60], labels[:60], rows[60:120], labels[60:120], rows[120:], classes, seed=seed)


DECIDING = [
    (ridge, "alpha", lambda value: RidgeClassifier(alpha=value), ridge.ALPHAS),
    # 12 features: all but the largest C are solved in the dual
    (linear_svm, "C", lambda value: LinearSVC(C=value, dual=value < 1, random_state=0), linear_svm.STRENGTHS),
    (rbf_svm, "C", lambda value: SVC(C=value, break_ties=True), rbf_svm.STRENGTHS),
]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("module", "name", "make", "candidates"), DECIDING, ids=["ridge", "linear_svm", "rbf_svm"])
def test_what_is_predicted_is_scikit_learns(module, name, make, candidates, classes) -> None:
    for seed in range(3):
        task = hard_task(seed, classes)
        models = {value: make(value).fit(task.train, task.labels) for value in candidates}
        found = module.fit(task)
        chosen = models[found.chosen[name]]
        best = max(model.score(task.val, task.val_labels) for model in models.values())
        assert chosen.score(task.val, task.val_labels) == best
        assert np.array_equal(found.scores.argmax(axis=1), chosen.predict(task.test))
        values = chosen.decision_function(task.test)
        values = np.stack([-values, values], axis=1) if classes == 2 else values
        assert found.scores == pytest.approx(softmax(values / found.chosen["temperature"], axis=1), abs=1e-12)


@pytest.mark.parametrize(("strength", "features", "dual"), [(0.1, 512, True), (0.1, 200, False), (0.1, 100, True)])
def test_both_solvers_of_a_linear_machine_end_at_the_same_place(strength: float, features: int, dual: bool) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 600)
    rows = random.normal(size=(600, features)) + np.eye(3, features)[labels]
    machine = linear_svm.machine(strength, rows.shape)
    assert machine.dual == dual
    ours, other = machine.fit(rows, labels), LinearSVC(C=strength, dual=not dual, random_state=0).fit(rows, labels)
    assert ours.decision_function(rows) == pytest.approx(other.decision_function(rows), abs=5e-3)


def test_a_search_ends_after_so_many_candidates_in_vain() -> None:
    task = hard_task()
    right = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.6, 5: 0.1, 6: 0.9}
    tried: list[int] = []

    def train(candidate: int) -> classical.Fitted:
        tried.append(candidate)
        count = round(right[candidate] * len(task.val_labels))
        said = np.where(np.arange(len(task.val_labels)) < count, task.val_labels, (task.val_labels + 1) % 3)
        return classical.Fitted(lambda rows: np.eye(3)[said])

    assert classical.choose(task, list(right), 1, train, patience=2)[0] == 3
    assert tried == [1, 2, 3, 4, 5]
    assert classical.choose(task, list(right), 1, train)[0] == 6


def test_a_forest_is_scikit_learns() -> None:
    task = hard_task(3)
    found = random_forest.fit(task)
    forests = {
        rows: RandomForestClassifier(100, min_samples_leaf=rows, random_state=3).fit(task.train, task.labels)
        for rows in random_forest.LEAVES
    }
    chosen = forests[int(found.chosen["leaf_rows"])]
    assert chosen.score(task.val, task.val_labels) == max(f.score(task.val, task.val_labels) for f in forests.values())
    assert np.array_equal(found.scores, chosen.predict_proba(task.test))


def test_boosted_trees_are_scikit_learns() -> None:
    """The first rounds of the longest fit are the fit of as many rounds."""
    task = hard_task(1)
    found = gradient_boosting.fit(task)
    fits = {
        rounds: HistGradientBoostingClassifier(max_iter=rounds, **gradient_boosting.SETTINGS).fit(
            task.train, task.labels
        )
        for rounds in gradient_boosting.ROUNDS
    }
    chosen = fits[int(found.chosen["rounds"])]
    assert chosen.score(task.val, task.val_labels) == max(f.score(task.val, task.val_labels) for f in fits.values())
    assert np.array_equal(found.scores, chosen.predict_proba(task.test))


def test_a_perceptron_is_scikit_learns() -> None:
    task = hard_task(2)
    found = mlp.fit(task)
    single = task.train.astype(np.float32)
    networks = {
        decay: MLPClassifier((128,), alpha=decay, batch_size=60, max_iter=200, random_state=2).fit(single, task.labels)
        for decay in mlp.DECAYS
    }
    chosen = networks[found.chosen["alpha"]]
    val = task.val.astype(np.float32)
    assert chosen.score(val, task.val_labels) == max(n.score(val, task.val_labels) for n in networks.values())
    assert np.array_equal(found.scores, chosen.predict_proba(task.test.astype(np.float32)))


@pytest.mark.parametrize(("count", "share"), [(60, 61 / 62), (0, 1 / 62)])
def test_a_perceptron_of_one_class_that_all_rows_have_or_none_gives_its_share(count: int, share: float) -> None:
    few = dataclasses.replace(hard_task(), task="multi_label", metric="macro_f1", num_classes=1)
    one = dataclasses.replace(few, labels=(np.arange(60) < count)[:, None] * 1, val_labels=few.val_labels[:, None] % 2)
    found = mlp.fit(one)
    assert found.scores == pytest.approx(np.full((100, 1), share))
    assert found.chosen["converged"] == 1.0


def test_a_perceptron_of_one_class_is_scikit_learns() -> None:
    given = hard_task(2)
    one = dataclasses.replace(
        given, task="multi_label", metric="macro_f1", num_classes=1,
        labels=given.labels[:, None] % 2, val=given.val[:0], val_labels=given.val_labels[:0, None],
    )  # fmt: skip
    network = MLPClassifier((128,), alpha=mlp.DEFAULT, batch_size=60, max_iter=200, random_state=2)
    network.fit(given.train.astype(np.float32), given.labels % 2)
    assert np.array_equal(mlp.fit(one).scores, network.predict_proba(given.test.astype(np.float32))[:, 1:])


@pytest.mark.parametrize("module", [ridge, linear_svm, rbf_svm, random_forest, gradient_boosting, mlp])
def test_choices_differ_between_tasks(module) -> None:
    def chosen(seed: int) -> dict[str, float]:
        return {k: v for k, v in module.fit(hard_task(seed)).chosen.items() if k not in ("temperature", "converged")}

    first = chosen(0)
    assert any(chosen(seed) != first for seed in range(1, 8))


@pytest.mark.parametrize(("rows", "epochs"), [(2, 200), (256 * 15, 200), (256 * 15 + 1, 187), (50_000, 15), (10**7, 1)])
def test_steps_of_a_perceptron_are_bounded(rows: int, epochs: int) -> None:
    assert mlp.num_epochs(rows) == epochs


def test_temperature_has_the_least_cross_entropy() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    values = 5 * (random.normal(size=(300, 4)) + np.eye(4)[labels])

    def naive(temperature: float) -> float:
        total = 0.0
        for row, label in zip(values, labels, strict=True):
            log_p = log_softmax(row / temperature)
            for number in range(4):
                total -= ((300 / 301) * (number == label) + (1 / 301) / 4) * log_p[number]
        return total

    found = classical.temperature(values, labels)
    assert naive(found) < min(naive(0.98 * found), naive(1.02 * found))
    assert 1.5 < found < 8.0  # the true one is that of unit noise: 5


def test_rows_that_are_all_right_do_not_ask_for_certainty() -> None:
    values = 10 * np.eye(3)[[0, 1, 2, 0]]
    warm = classical.temperature(values, np.array([0, 1, 2, 0]))
    probability = softmax(values / warm, axis=1)[0, 0]
    assert probability == pytest.approx(1 - (1 / 5) * 2 / 3, abs=1e-3)


def test_equal_candidates_leave_the_simplest() -> None:
    task = hard_task()
    same = classical.Fitted(lambda rows: np.full((len(rows), 3), 1 / 3))
    assert classical.choose(task, [3, 1, 2], 2, lambda value: same)[0] == 3


def test_val_rows_of_a_class_without_train_rows_warm_nothing() -> None:
    task = hard_task()
    seen = task.labels < 2
    less = dataclasses.replace(task, train=task.train[seen], labels=task.labels[seen])
    known = task.val_labels < 2
    only = dataclasses.replace(less, val=task.val[known], val_labels=task.val_labels[known])
    model = RidgeClassifier(alpha=10.0).fit(less.train, less.labels)
    found, expected = classical.from_decisions(model, less), classical.from_decisions(model, only)
    assert found.facts == expected.facts
    assert (found.scores(task.test)[:, 2] == 0).all()


@pytest.mark.parametrize("module", [rbf_svm, random_forest, gradient_boosting])
def test_slow_ones_say_so(module) -> None:
    strategy: Strategy = module.STRATEGY
    assert strategy.slow
