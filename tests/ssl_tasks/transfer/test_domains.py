"""Labels from some domains, test rows from another: which rows a fit sees, what is refused, and what is written."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import planted, split_table

from flows.preflight.labels import require_domain_rows, require_usable_labels
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.materialize import materialize
from ssl_tasks.stages.transfer import STAGE, TransferConfig
from ssl_tasks.store import Store
from ssl_tasks.transfer import kinds, shifted, strategy
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.domains import check, pairs, shifts
from ssl_tasks.transfer.fits import Fit
from ssl_tasks.transfer.options import DomainsConfig
from ssl_tasks.transfer.tables import DOMAINS
from ssl_tasks.transfer.targets import CLASSIFICATION

NAMES = ("a", "b", "c")
SMALL: dict[str, Any] = {
    "strategies": ["linear_probe", "coral", "knn"],
    "label_fractions": [0.5, 1.0],
    "seeds": 2,
    "bootstrap": 100,
    "scratch": {"steps": 4, "learning_rates": [0.01]},
    "raw_input": False,
}


def spread(store: Store, **changes: Any) -> dict[str, Artifact]:
    """`planted`, whose rows belong to the domains a, b and c in turn."""
    return planted(store, domains=[NAMES[number % 3] for number in range(300)], **changes)


def transfer(made: dict[str, Artifact], **config: Any) -> Artifact:
    parsed = TransferConfig.model_validate({**SMALL, **config})
    parents = {name: made[name] for name in STAGE.inputs}
    fingerprint = STAGE.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    return materialize(made["ingest"].store, STAGE, parsed, parents, fingerprint=fingerprint, force=True).artifact


def table(domains: list[str | None], labels: list[str | None], splits: list[str]) -> pa.Table:
    given = split_table(labels, splits)
    return given.set_column(given.column_names.index("domain"), "domain", pa.array(domains, pa.string()))


def test_every_domain_is_the_target_once_and_all_rows_are_told(store: Store) -> None:
    made = spread(store)
    found = transfer(made, domains={"leave_one_out": True})
    rows = found.table("domains.parquet")
    assert rows.schema.equals(DOMAINS)
    for name in ("linear_probe", "coral", "from_scratch"):
        cells = {
            (row["target"], row["label_fraction"], row["seed"])
            for row in rows.to_pylist()
            if (row["strategy"], row["name"]) == (name, "accuracy") and row["method"] != "random_init"
        }
        assert cells == {(target, fraction, seed) for target in NAMES for fraction in (0.5, 1.0) for seed in (0, 1)}
    lines = found.measured["domains"]
    assert [line["target"] for line in lines if (line["strategy"], line["label_fraction"]) == ("coral", 1.0)] == [
        *NAMES
    ]
    for line in lines:
        assert line["sources"] == [name for name in NAMES if name != line["target"]]
        if line["strategy"] == "coral":
            assert {
                "value",
                "source",
                "mmd_before",
                "mmd_after",
                "a_distance_before",
                "a_distance_after",
            } <= line.keys()
    # each test row is scored once a fit, and what is said of all is the mean over rows
    splits = made["split"].table("splits.parquet").to_pylist()
    test = {row["row"]: row["domain"] for row in splits if row["split"] == "test"}
    predictions = [
        row
        for row in found.table("predictions.parquet").to_pylist()
        if (row["strategy"], row["method"], row["label_fraction"], row["seed"]) == ("knn", "scarf", 1.0, 0)
    ]
    assert [row["row"] for row in predictions] == sorted(test)
    right: dict[str, list[bool]] = {name: [] for name in NAMES}
    for row in predictions:
        right[test[row["row"]]].append(row["label"] == row["predicted"])
    of_targets = {
        row["target"]: row["value"]
        for row in rows.to_pylist()
        if (row["strategy"], row["method"], row["label_fraction"], row["seed"], row["name"])
        == ("knn", "scarf", 1.0, 0, "accuracy")
    }
    assert of_targets == pytest.approx({name: np.mean(values) for name, values in right.items()})
    (pooled,) = [
        line
        for line in found.measured["summary"]
        if (line["strategy"], line["num_labels"]) == ("knn", max_labels(found))
    ]
    assert pooled["pretrained"] == pytest.approx(np.mean([value for values in right.values() for value in values]))
    coral = [line for line in found.measured["summary"] if line["strategy"] == "coral"]
    assert all(line["counterpart"] == "linear_probe" for line in coral)


def max_labels(found: Artifact) -> int:
    return max(int(line["num_labels"]) for line in found.measured["summary"])


def test_a_target_is_scored_by_labels_of_the_sources_alone(store: Store) -> None:
    made = spread(store)
    found = transfer(made, strategies=["knn"], domains={"source": ["a"], "target": "b"})
    splits = made["split"].table("splits.parquet").to_pylist()
    test = [row["row"] for row in splits if (row["split"], row["domain"]) == ("test", "b")]
    assert sorted(set(found.table("predictions.parquet")["row"].to_pylist())) == test
    labelled = [row for row in splits if (row["split"], row["domain"]) == ("train", "a")]
    assert max_labels(found) == len(labelled)
    assert found.measured["labelled"]["test"] == len(test)


@pytest.mark.parametrize("asked", [{"target": "b"}, {"source": ["a"], "target": "b"}])
def test_labels_of_the_target_change_no_fit(store: Store, asked: dict[str, Any]) -> None:
    """Those of train and val rows do nothing at all; those of test rows change what is right, and no prediction."""
    made = spread(store)

    def predicted(changed: str) -> tuple[Any, ...]:
        splits = made["split"].table("splits.parquet").to_pylist()
        turned = {"cat": "dog", "dog": "owl", "owl": "cat"}
        for row in splits:
            if row["domain"] == "b" and row["split"] in changed:
                row["label"] = turned[row["label"]]
        other = dict(made)
        schema = made["split"].table("splits.parquet").schema
        other["split"] = _Changed(made["split"], pa.Table.from_pylist(splits, schema))  # type: ignore[assignment]
        given = transfer(other, domains=asked, strategies=["linear_probe", "coral", "ridge"])
        columns = given.table("predictions.parquet")
        return columns["predicted"].to_pylist(), columns["confidence"].to_pylist(), given.table("choices.parquet")

    before, confidence, choices = predicted("none")
    same, also, chosen = predicted("train val")
    assert (before, confidence) == (same, also)
    assert choices.equals(chosen)
    turned, again, _ = predicted("test")
    assert (before, confidence) == (turned, again)


def test_labels_of_a_domain_that_takes_no_part_are_not_judged(store: Store) -> None:
    """A class of it has one row, which could not stand in train and in test."""
    made = spread(store)
    table = made["split"].table("splits.parquet")
    rows = table.to_pylist()
    next(row for row in rows if (row["domain"], row["split"]) == ("c", "train"))["label"] = "once"
    split: Any = _Changed(made["split"], pa.Table.from_pylist(rows, table.schema))
    asked: dict[str, Any] = {"strategies": ["knn"], "domains": {"source": ["a"], "target": "b"}}
    recipe: Any = SimpleNamespace(transfer=TransferConfig.model_validate(asked))
    require_usable_labels(recipe, split)
    require_domain_rows(recipe, split)
    before, after = transfer(made, **asked), transfer({**made, "split": split}, **asked)
    assert [line["pretrained"] for line in before.measured["summary"]] == [
        line["pretrained"] for line in after.measured["summary"]
    ]
    with pytest.raises(RequestError, match="'once' has one label only"):
        require_usable_labels(SimpleNamespace(transfer=TransferConfig()), split)  # type: ignore[arg-type]


class _Changed:
    """A split artifact with other labels."""

    def __init__(self, inner: Artifact, splits: pa.Table) -> None:
        self.inner, self.splits = inner, splits

    def table(self, name: str, columns: Any = None) -> pa.Table:
        return self.splits if columns is None else self.splits.select(columns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_what_a_shift_holds() -> None:
    rows = [
        (domain, label, split)
        for domain in ("a", "b", None)
        for split in ("train", "val", "test")
        for label in ("x", "y", "x", "y", None)
    ]
    splits = table(*(list(column) for column in zip(*rows, strict=True)))
    labels = np.array([-1 if label is None else "xy".index(label) for _, label, _ in rows])
    of_split = splits["split"].to_numpy()
    test = np.flatnonzero((of_split == "test") & (labels >= 0))
    train, val = np.flatnonzero(of_split == "train"), np.flatnonzero((of_split == "val") & (labels >= 0))
    whole = Labelled(splits, ["x", "y"], labels, train, val, test, np.arange(len(test)))
    (shift,) = shifts(whole, DomainsConfig(target="b"))
    seen = shift.data
    assert (shift.target, shift.sources) == ("b", ["a"])
    assert [rows[place][0] for place in seen.train] == ["a"] * 5 + ["b"] * 5
    assert {rows[place][0] for place in seen.val} == {"a"}
    assert {rows[place][0] for place in seen.test} == {"b"}
    assert {rows[place][0] for place in seen.source_test} == {"a"}
    assert seen.groups.tolist() == [0, 1, 2, 3]
    known = [rows[place][::2] for place in np.flatnonzero(seen.labels >= 0)]
    assert set(known) == {("a", "train"), ("a", "val"), ("a", "test"), ("b", "test")}
    in_table = {rows[place][::2] for place, label in enumerate(seen.splits["label"].to_pylist()) if label is not None}
    assert in_table == set(known) - {("a", "test")}
    for measured, of_train in zip(shift.domains.held_out, (shift.domains.source, shift.domains.target), strict=True):
        assert np.array_equal(measured, of_train)  # val has too few rows
    assert shift.domains.of_source.tolist() == list(range(15))


GOOD = [
    (domain, label, split)
    for domain in ("a", "b")
    for split in ("train", "test")
    for label in ("x", "y")
    for _ in range(4)
]


def without(domain: str, split: str) -> list[tuple[Any, ...]]:
    return [row for row in GOOD if row[::2] != (domain, split)]


def columns(rows: list[tuple[Any, ...]]) -> pa.Table:
    return table(*(list(column) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize(
    ("rows", "asked", "message"),
    [
        ([(None, *row[1:]) for row in GOOD], {"target": "a"}, "transfer.domains: the data has no domains; .*folders"),
        ([("a", *row[1:]) for row in GOOD], {"leave_one_out": True}, "one domain only, 'a'"),
        (GOOD, {"target": "c"}, "the data has no domain 'c'; there are 'a', 'b'"),
        (GOOD, {"source": ["z"], "target": "a"}, "the data has no domain 'z'"),
        ([*GOOD, ("b", "z", "train")], {"leave_one_out": True}, "label sets .*: 'b' has 'z', and 'a' has not"),
        ([*GOOD, ("a", "z", "train")], {"target": "b"}, "label sets .*: 'a' has 'z', and 'b' has not"),
        ([row if row[0] == "a" else ("b", None, row[2]) for row in GOOD], {"target": "b"}, "domain 'b' has no labels"),
        (without("b", "train"), {"target": "b"}, "'b': 0 train rows are too few"),
        (without("b", "test"), {"target": "b"}, "with target 'b' and source 'a': .*no test row"),
        ([*without("a", "train"), *[("a", "x", "train")] * 4], {"target": "b"}, "labels of one class only"),
    ],
)
def test_what_is_refused(rows: list[tuple[Any, ...]], asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check(columns(rows), DomainsConfig.model_validate(asked))


def test_a_budget_is_held_to_the_labels_of_the_sources() -> None:
    check(columns(GOOD), DomainsConfig(target="b"), [4])
    with pytest.raises(RequestError, match=r"transfer.labels_per_class: 5 is larger than the 4"):
        check(columns(GOOD), DomainsConfig(target="b"), [5])


def test_other_domains_may_have_other_labels_where_they_are_not_used() -> None:
    assert pairs(columns([*GOOD, ("c", "z", "train")]), DomainsConfig(source=("a",), target="b")) == [(["a"], "b")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"domains": {"source": ["a"]}}, "source is given and target is not"),
        ({"domains": {"source": ["a"], "target": "a"}}, "'a' is source and target"),
        ({"domains": {"target": "a", "leave_one_out": True}}, "leave out source and target"),
        ({"domains": {"sources": ["a"]}}, "domains.sources"),
        ({"adapt": {"dann": -1.0}}, "adapt.dann"),
        ({"domains": {"target": "a"}, "task": "regression"}, "domains: task=regression is not measured across domains"),
        *(
            (
                {"strategies": [name]},
                rf"{name} adapts to a domain without labels; name it in transfer.domains.target",
            )
            for name in ("coral", "deep_coral", "mmd", "dann", "adabn")
        ),
    ],
)
def test_wrong_keys_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransferConfig.model_validate(wrong)


def test_new_keys_at_their_defaults_change_no_fingerprint() -> None:
    assert semantic(TransferConfig()) == {}
    given = {"strategies": ["coral"], "domains": {"target": "b"}}
    assert semantic(TransferConfig.model_validate(given)) == {"strategies": ["coral"], "domains": {"target": "b"}}


def test_a_fit_that_fails_for_one_target_leaves_no_pooled_fit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_tasks.transfer import evaluate

    inner = strategy("knn")
    seen: list[int] = []

    def fit(task: Any) -> Any:
        seen.append(1)
        if len(seen) == 1:
            raise ValueError("singular")
        return inner.fit(task)

    broken, real = dataclasses.replace(inner, fit=fit), strategy
    monkeypatch.setattr(evaluate, "strategy", lambda name: broken if name == "knn" else real(name))
    found = transfer(
        spread(store), strategies=["linear_probe", "knn"], label_fractions=[1.0], seeds=1, workers=1,
        domains={"leave_one_out": True},
    )  # fmt: skip
    (failure,) = found.table("failures.parquet").to_pylist()
    assert failure["error"] == "target a: ValueError: singular"
    # of each of three targets two strategies on two networks, from scratch and the majority
    assert found.measured["warnings"][0].startswith("1 of 18 fits failed")
    assert {line["strategy"] for line in found.measured["summary"]} == {"linear_probe"}
    assert {line["target"] for line in found.measured["domains"] if line["strategy"] == "knn"} == {"b", "c"}


def test_pooled_metrics_are_those_of_all_rows() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 30)
    scores = random.dirichlet(np.ones(3), 30)
    parts = [np.arange(0, 30, 2), np.arange(1, 30, 2)]
    fits = []
    for rows in parts:
        predicted = scores[rows].argmax(axis=1)
        values = kinds.of(CLASSIFICATION).score(labels[rows], scores[rows])
        chosen = {"C": 1.0 + rows[0], "odd" if rows[0] else "even": 0.0}
        answers = (predicted, scores[rows, predicted], scores[rows, labels[rows]])
        fits.append(Fit("knn", "m", 0.1 + rows[0], 4, 0, 10 + rows[0], *answers, values, chosen, seconds=1.0))

    class Data:
        test = np.arange(30)
        classes = NAMES

    Data.labels = labels  # type: ignore[attr-defined]
    place = np.argsort(np.concatenate(parts))
    shift: Any = dataclasses.make_dataclass("Shift", ["target"])
    (pooled,) = shifted.pool([(shift("a"), fits[:1]), (shift("b"), fits[1:])], Data, place)  # type: ignore[arg-type]
    assert pooled.values == pytest.approx(kinds.of(CLASSIFICATION).score(labels, scores))
    assert pooled.predicted.tolist() == scores.argmax(axis=1).tolist()
    assert pooled.label_fraction == pytest.approx(0.6)
    assert (pooled.num_labels, pooled.seconds) == (10, 2.0)
    assert pooled.chosen == {"C": 1.5}
