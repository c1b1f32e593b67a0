"""What is said of two runs, and on the page; with planted embeddings, of which the second carries less signal."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import commit, planted

from ssl_tasks.artifact import Artifact
from ssl_tasks.materialize import materialize
from ssl_tasks.report import difference, difference_page
from ssl_tasks.report.difference import Side
from ssl_tasks.schema import QUARANTINE
from ssl_tasks.stages import transfer
from ssl_tasks.store import Output, Store

CONFIG = {"strategies": ["knn"], "label_fractions": [0.3, 1.0], "seeds": 5, "bootstrap": 200, "scratch": {"steps": 1}}
EVIL = "<script>alert('x')</script>"


def side(name: str, made: Mapping[str, Artifact], method: str = "scarf", **pretrain: Any) -> Side:
    recipe = {
        "pretrain": {"method": {"name": method, **pretrain}, "batch_size": 8},
        "transfer": {"bootstrap": 200, "seed": 0},
    }
    return Side(name, recipe, {stage: artifact.measured for stage, artifact in made.items()}, made)


def evaluated(made: dict[str, Artifact]) -> dict[str, Artifact]:
    config = transfer.TransferConfig.model_validate(CONFIG)
    parents = {name: made[name] for name in transfer.STAGE.inputs}
    fingerprint = transfer.STAGE.fingerprint(config, {name: parent.fingerprint for name, parent in parents.items()})
    store = made["embed"].store
    return {**made, "transfer": materialize(store, transfer.STAGE, config, parents, fingerprint=fingerprint).artifact}


def without_signal(made: dict[str, Artifact]) -> dict[str, Artifact]:
    """The same data with an encoder that gives the untrained network's embeddings."""
    pretrain, embed = made["pretrain"], made["embed"]
    table = embed.table("embeddings/random_init.parquet")

    def trained(out: Output) -> None:
        out.json("encoder.json", pretrain.json("encoder.json"))
        for name in ("metrics.parquet", "health.parquet"):
            out.table(name, pretrain.table(name))

    def embedded(out: Output) -> None:
        for name in embed.names("embeddings/"):
            out.table(name, table)

    other = commit(pretrain.store, "pretrain of another", trained, pretrain.rows, [made["augment"]])
    return {**made, "pretrain": other, "embed": commit(embed.store, "embed of another", embedded, embed.rows)}


@pytest.fixture
def both(store: Store) -> tuple[Side, Side]:
    made = planted(store, labels=(EVIL, "dog", "owl"))
    return side("a", evaluated(without_signal(made))), side("b", evaluated(made))


def test_the_encoder_with_signal_is_better(both: tuple[Side, Side]) -> None:
    found = difference.transfer(*both)
    assert found["headline"].startswith("The new run is better: with 30% of the labels")
    assert found["notes"] == []
    assert found["rows"]["common"] == found["rows"]["old"] == found["rows"]["new"]
    assert [(line["strategy"], line["label_fraction"]) for line in found["lines"]] == [("knn", 0.3), ("knn", 1.0)]
    for line in found["lines"]:
        inner = line["difference"]
        assert inner["new"] == pytest.approx(line["new"]["pretrained"])
        assert inner["old"] == pytest.approx(line["old"]["pretrained"])
        assert inner["difference"] == pytest.approx(inner["new"] - inner["old"])
        assert 0 < inner["low"] < inner["difference"] < inner["high"]


def test_few_seeds_tell_no_runs_apart(both: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_tasks.report.judging.FEW_SEEDS", 6)
    found = difference.transfer(*both)
    assert found["headline"].startswith("Too few seeds in common (5; at least ")
    assert difference_page.outcome(found) == ""
    assert {difference_page.transfer_row(line)["judgement"] for line in found["lines"]} == {"undecided"}


def test_the_other_way_round_the_signs_turn(both: tuple[Side, Side]) -> None:
    there, back = difference.transfer(*both), difference.transfer(both[1], both[0])
    assert back["headline"].startswith("The new run is worse")
    for line, other in zip(there["lines"], back["lines"], strict=True):
        assert other["difference"]["difference"] == pytest.approx(-line["difference"]["difference"])
        assert other["difference"]["low"] == pytest.approx(-line["difference"]["high"])
    assert back["changes"]["fixed"] == there["changes"]["broken"]


def test_one_run_with_itself_is_the_same(both: tuple[Side, Side]) -> None:
    found = difference.transfer(both[1], both[1])
    assert found["headline"] == "Both runs have the same encoder and the same transfer."
    assert difference.data(both[1], both[1])["same"]


def other_samples(made: Mapping[str, Artifact], store: Store, keep: int) -> Artifact:
    """The split with other samples in all rows but the first `keep`."""
    table = made["split"].table("splits.parquet")
    names = [name if row < keep else f"other {name}" for row, name in enumerate(table["sample_id"].to_pylist())]
    table = table.set_column(1, table.schema.field(1), pa.array(names))
    return commit(store, "split", lambda out: out.table("splits.parquet", table), len(names), measured={"splits": {}})


@pytest.mark.parametrize("keep", [0, 30, 200])
def test_different_test_rows_are_compared_only_where_enough_are_common(
    both: tuple[Side, Side], tmp_path: Path, keep: int
) -> None:
    old, new = both
    changed = {**old.artifacts, "split": other_samples(old.artifacts, Store.open(str(tmp_path / "other")), keep)}
    found = difference.transfer(side("a", changed), new)
    table = new.artifacts["split"].table("splits.parquet").slice(0, keep)
    common = table["split"].to_pylist().count("test")
    assert found["rows"]["common"] == common
    if keep < 200:
        assert all(line["difference"] is None for line in found["lines"])
        assert found["headline"].startswith("The runs were tested on different rows")
        assert found["lines"][0]["old"]["pretrained"] == old.metrics["transfer"]["summary"][0]["pretrained"]
    else:
        assert all(line["difference"] for line in found["lines"])
        assert any(f"on the {common} that both have" in note for note in found["notes"])
        assert any("train rows differ" in note for note in found["notes"])
    samples = difference.data(side("a", changed), new)["samples"]
    assert samples == {
        "both": keep, "old_only": 300 - keep, "new_only": 300 - keep, "other_split": 0, "other_label": 0
    }  # fmt: skip


def test_reasons_of_quarantine_stand_beside_each_other(both: tuple[Side, Side], tmp_path: Path) -> None:
    row = {"row": 1, "sample_id": "s", "source": "f", "stage": "clean", "severity": "rejected", "detail": "d"}
    rows = [{**row, "reason": "unreadable"}, {**row, "reason": "unreadable"}, {**row, "reason": "too_small"}]
    table = pa.Table.from_pylist(rows, schema=QUARANTINE)
    store = Store.open(str(tmp_path / "other"))
    clean = commit(store, "clean", lambda out: out.table("quarantine.parquet", table), 300)
    found = difference.data(both[0], side("b", {**both[1].artifacts, "clean": clean}))
    lines = {line["what"]: (line["old"], line["new"]) for line in found["lines"]}
    assert lines["rejected: unreadable"] == (None, 2)
    assert lines["rejected: too small"] == (None, 1)
    assert lines["rows read"] == (300, 300)


class Text(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def page(old: Side, new: Side, recipe: list[dict[str, Any]] | None = None) -> tuple[str, str]:
    stages = [
        {"name": "split", "same": True, "old": None, "new": None, "why": ""},
        {"name": "embed", "same": False, "old": {"status": "ran", "seconds": 2.0}, "new": None, "why": EVIL},
    ]
    found = {
        "old": {"run_id": old.run_id},
        "new": {"run_id": new.run_id},
        "recipe": recipe or [],
        "stages": stages,
        "data": difference.data(old, new),
        "training": difference.training(old, new),
        "transfer": difference.transfer(old, new),
    }
    html = difference_page.render(found, old, new)
    read = Text(html)
    assert "script" not in read.tags
    return html, " ".join(read.text.split())


def test_names_and_labels_are_shown_as_text(both: tuple[Side, Side]) -> None:
    html, text = page(*both, [{"key": "ingest.path", "old": EVIL, "new": None, "changes_result": False}])
    assert EVIL not in html
    assert text.count(EVIL) >= 3  # recipe, reason, and the class among what changed most
    assert "does not change the result" in text
    assert "unset" in text


def test_the_page_has_both_runs_in_each_chart(both: tuple[Side, Side]) -> None:
    html, text = page(*both)
    assert html.count('<svg viewBox="0 0 420') == 3 + 2  # loss, rate, gradient norm; deviation, RankMe
    assert html.count('<polyline class="line random"') == html.count('<polyline class="line pretrained"') == 5
    assert "no common scale" not in text


def test_losses_of_two_methods_are_not_drawn_over_each_other(both: tuple[Side, Side]) -> None:
    html, text = page(both[0], side("b", both[1].artifacts, "simclr"))
    assert html.count('<svg viewBox="0 0 420') == 1 + 2  # learning rate; health
    assert "Losses and gradients of scarf and simclr have no common scale" in text


def test_options_that_change_a_loss_are_named(both: tuple[Side, Side]) -> None:
    _, text = page(both[0], side("b", both[1].artifacts, temperature=0.3))
    assert "The methods differ in temperature" in text


def test_over_rows_where_batches_differ() -> None:
    from ssl_tasks.report.charts import overlaid

    table = pa.table({"step": np.arange(6), "loss": np.arange(6.0)})
    (figure,) = overlaid(table, table, (8, 4))
    assert "Rows seen" in figure.svg
    assert ">40<" in figure.svg  # five steps of 8 rows
    (figure,) = overlaid(table, table, (8, 8))
    assert "Step" in figure.svg
    assert overlaid(table, table, (8, 8), ["loss"]) == []
