import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ssl_tasks.transfer.base import Task
from ssl_tasks.transfer.strategies import knn, linear_probe


def hard_task(seed: int = 0, metric: str = "accuracy") -> Task:
    """Classes that overlap, so that the choice on val matters."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 220)
    rows = random.normal(size=(220, 12)) + 1.2 * np.eye(3, 12)[labels]
    return Task(rows[:60], labels[:60], rows[60:120], labels[60:120], rows[120:], 3, seed=0, metric=metric)


@pytest.mark.parametrize("seed", range(3))
def test_linear_probe_is_scikit_learns(seed: int) -> None:
    task = hard_task(seed)
    models = {c: LogisticRegression(C=c, max_iter=1000).fit(task.train, task.labels) for c in linear_probe.STRENGTHS}
    best = max(model.score(task.val, task.val_labels) for model in models.values())
    found = linear_probe.fit(task)
    chosen = models[found.chosen["C"]]
    assert chosen.score(task.val, task.val_labels) == best
    assert np.array_equal(found.scores, chosen.predict_proba(task.test))


def test_choices_differ_between_tasks() -> None:
    assert len({linear_probe.fit(hard_task(seed)).chosen["C"] for seed in range(8)}) > 1
    assert len({knn.fit(hard_task(seed)).chosen["k"] for seed in range(8)}) > 1


def test_standardize_is_scikit_learns_and_bears_constants() -> None:
    rows = np.random.default_rng(0).normal(3, 5, (50, 4))
    rows[:, 2] = 7.0
    found = linear_probe.standardize(rows)(rows)
    assert found == pytest.approx(StandardScaler().fit_transform(rows), abs=1e-12)
    assert (found[:, 2] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_knn_is_scikit_learns(seed: int) -> None:
    task = hard_task(seed)
    unit = knn.unit_length(task.train)
    prepared = Task(unit(task.train), task.labels, unit(task.val), task.val_labels, unit(task.test), 3, seed=0)
    found = knn.fit(prepared)
    model = KNeighborsClassifier(int(found.chosen["k"]), metric="cosine", algorithm="brute")
    model.fit(task.train, task.labels)
    assert np.array_equal(found.scores.argmax(axis=1), model.predict(task.test))
    accuracies = [
        KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        .fit(task.train, task.labels)
        .score(task.val, task.val_labels)
        for k in knn.NEIGHBOURS
    ]
    assert model.score(task.val, task.val_labels) == max(accuracies)


def test_knn_in_blocks_is_knn_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = knn.fit(hard_task()).scores
    monkeypatch.setattr(knn, "CELLS", 7 * 60)
    assert np.array_equal(knn.fit(hard_task()).scores, whole)


def test_equal_similarity_goes_by_order() -> None:
    similarity = np.array([[0.5, 0.9, 0.5, 0.9, 0.1]])
    assert knn._nearest(similarity, 4).tolist() == [[1, 3, 0, 2]]
    assert knn._nearest(similarity, 5).tolist() == [[1, 3, 0, 2, 4]]
