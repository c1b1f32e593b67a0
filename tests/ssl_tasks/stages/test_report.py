from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import commit, planted
from tests_stored import normalized

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.materialize import materialize
from ssl_tasks.report.verdict import decide
from ssl_tasks.schema import DUPLICATES, QUARANTINE, ROWS, align
from ssl_tasks.stages import report, transfer
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output, Store

SMALL = {
    "label_fractions": [0.3, 1.0],
    "seeds": 5,
    "bootstrap": 100,
    "scratch": {"steps": 2, "learning_rates": [0.001]},
}
EVIL = "<script>alert('x')</script>"


def run(made: dict[str, Artifact], stage: Stage, **config: Any) -> Artifact:
    parsed = stage.config.model_validate(config)
    parents = {name: made[name] for name in stage.inputs}
    fingerprint = stage.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    made[stage.name] = materialize(made["ingest"].store, stage, parsed, parents, fingerprint=fingerprint).artifact
    return made[stage.name]


def made_report(store: Store, transfer_config: dict[str, Any] | None = None, **planting: Any) -> tuple[Artifact, str]:
    made = planted(store, **planting)
    run(made, transfer.STAGE, **(transfer_config or SMALL))
    found = run(made, report.STAGE)
    return found, found.path("report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Checks that every element is closed, and collects addresses and visible text."""

    VOID = ("meta", "img", "br", "line", "circle", "polyline")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_planted_signal_gives_the_verdict_that_it_helped(store: Store) -> None:
    converged = {"steps": 500, "learning_rates": [0.01], "weight_decay": 0.0}
    found, html = made_report(store, {**SMALL, "scratch": converged})
    assert found.measured["outcome"] == "helped"
    answer, figures = found.measured["verdict"].split(": ", 1)
    assert f"{answer}. {figures[:1].upper()}{figures[1:]}" in " ".join(Page(html).text.split())
    verdict = found.json("verdict.json")
    assert verdict["outcome"] == "helped"
    assert verdict["sentence"].startswith("Pretraining helped: with 30% of the labels")
    assert len(verdict["lines"]) == 4


def test_a_baseline_that_was_stopped_early_is_no_measure(store: Store) -> None:
    found, html = made_report(store)
    assert found.measured["outcome"] == "partly"
    assert "had not converged within transfer.scratch.steps" in " ".join(Page(html).text.split())


def test_equal_embeddings_give_no_evidence(store: Store) -> None:
    found, _ = made_report(store, equal=True)
    assert found.measured["outcome"] == "no_gain"
    assert found.measured["verdict"].startswith("No evidence that pretraining helped")


def test_no_signal_anywhere_is_not_called_help(store: Store) -> None:
    found, _ = made_report(store, signal=0.0)
    assert found.measured["outcome"] in ("no_gain", "undecided")


def test_page_stands_alone(store: Store) -> None:
    _, html = made_report(store)
    page = Page(html)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"@import|url\((?!data:)", html)


def test_page_says_what_ran_and_from_what(store: Store) -> None:
    found, html = made_report(store)
    text = Page(html).text
    for name in report.INPUTS:
        manifest = found.store.manifest(found.manifest.parents[name])
        assert manifest.fingerprint in text
        assert name in text
    assert "/data/raw" in text
    assert "1.5 s" in text
    assert "2.14.1" in text
    assert "2.5" in text  # what a naive split would have leaked
    assert html.count('<svg class="dag"') == 1
    assert html.count('<svg class="bars"') == 1 + 1  # classes, stages
    assert html.count('<svg viewBox="0 0 420') == 2 + 2 + 3 + 2  # strategies, calibration, losses, health (without kNN)


def test_a_page_of_pictures_stands_alone(tmp_path: Path) -> None:
    made = planted(Store.open(str(tmp_path / "planted")), rows=1000)
    other = Store.open(str(tmp_path / "other"))
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8)
    rows = made["ingest"].table("rows.parquet").drop_columns(["source", "label"])
    rows = rows.append_column("source", pa.array([EVIL] * 1000)).append_column("label", pa.array([EVIL] * 1000))
    pairs = pa.Table.from_pylist([{"row": 1, "other": 2, "kind": "near", "similarity": 0.9}], DUPLICATES)

    def cleaned(out: Output) -> None:
        out.table("duplicates.parquet", pairs)
        out.table("quarantine.parquet", QUARANTINE.empty_table())

    inputs = {
        **made,
        "normalize": normalized(other, pixels),
        "ingest": commit(other, "ingest", lambda out: out.table("rows.parquet", align(rows, ROWS)), 1000),
        "clean": commit(other, "clean", cleaned, 1000),
    }
    run(made, transfer.STAGE, strategies=[])
    inputs["transfer"] = made["transfer"]
    verdict = decide([], margin=0.01, test_groups=0, method="scarf")
    html = report.render(report.ReportConfig(), inputs, verdict, made["pretrain"].json("encoder.json"), "")
    page = Page(html)
    assert len(html) < 3_000_000
    assert "script" not in page.tags
    assert page.text.count(EVIL) == 4  # source and label of two duplicates
    assert all(address.startswith(("data:image/jpeg;base64,", "#picture-")) for address in page.addresses)
    shown = [address for address in page.addresses if address.startswith("#")]
    assert sorted(shown) == sorted(f"#picture-{number}" for number in range(300) for _ in range(2))
    assert all(html.count(f'id="picture-{number}"') == 1 for number in range(300))
    assert len(page.addresses) - len(shown) == 300 + 8 * 6 + 2


def test_what_comes_with_the_data_is_escaped(store: Store) -> None:
    row = {"row": 1, "sample_id": "s1", "source": EVIL, "stage": "clean", "reason": EVIL, "detail": EVIL}
    _, html = made_report(store, labels=(EVIL, "dog", "owl"), quarantined=[row])
    assert EVIL not in html
    page = Page(html)
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 4  # shown as text: class, source, reason, detail


def test_quarantine_is_counted_by_reason_with_examples(store: Store) -> None:
    rows = [
        {
            "row": n,
            "sample_id": f"s{n}",
            "source": f"bad/{n}.png",
            "stage": "clean",
            "reason": "unreadable",
            "detail": "x",
        }
        for n in range(5)
    ]
    _, html = made_report(store, quarantined=rows)
    text = Page(html).text
    assert "unreadable" in text
    assert "bad/2.png" in text
    assert "bad/3.png" not in text


def test_errors_are_shown_by_class(store: Store) -> None:
    _, html = made_report(store)
    text = " ".join(Page(html).text.split())
    assert html.count('<svg class="matrix"') == 2
    assert "Where it errs" in text
    assert "With 30% of the labels" in text
    assert "cat called cat: " in text
    assert "By class" in text
    assert "By domain" not in text


def test_confidence_is_held_against_accuracy(store: Store) -> None:
    _, html = made_report(store)
    text = " ".join(Page(html).text.split())
    assert text.count(": expected calibration error ") == 4  # a caption and a heading for each budget


def test_neighbours_are_named(store: Store) -> None:
    _, html = made_report(store)
    assert html.count('<div class="strip">') == 8
    assert re.search(r"\d+ of 40 have its class", " ".join(Page(html).text.split()))


def test_without_labels_the_page_says_so(store: Store) -> None:
    found, html = made_report(store, {"strategies": []}, labels=None)
    assert found.measured["outcome"] == "not_measured"
    text = Page(html).text
    assert "Not measured" in text
    assert "Transfer" not in text
    assert "Where it errs" not in text
    assert "confidence" not in text.lower()
    assert "coloured by split" in text
    assert "Nearest neighbours" in text
    assert "have its class" not in text
    assert found.json("verdict.json")["lines"] == []


def test_verdict_is_data_and_the_page_is_not(store: Store) -> None:
    found, _ = made_report(store)
    files = found.manifest.files
    assert files["report.html"].rendering
    assert not files["verdict.json"].rendering


@pytest.mark.parametrize("accuracy", [0.5, 1.0])
def test_a_baseline_that_did_not_converge_is_called_weak(accuracy: float) -> None:
    from ssl_tasks.report.sections import scratch_note

    note = scratch_note({"steps": 100, "train_accuracy": {"0.1": 1.0, "1": accuracy}})
    assert ("weak baseline" in note) == (accuracy < 1)


def test_umap_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    report.check(report.ReportConfig())
    with pytest.raises(RequestError, match=r"report\.map: umap is not installed; pip install 'pretextflow\[umap\]'"):
        report.check(report.ReportConfig(map="umap"))


def test_domains_have_a_table_and_sentences_of_their_own(store: Store) -> None:
    given = {**SMALL, "strategies": ["linear_probe", "coral"], "domains": {"target": "cam <1>"}}
    found, html = made_report(store, given, domains=["cam <1>", "b"] * 150)
    details = found.json("verdict.json")["details"]
    assert "Labels are of b and test rows of cam <1>, of which no label was used." in details
    assert sum("aligned by CORAL reached" in detail for detail in details) == 2  # one for each label budget
    text = Page(html).text
    assert "From domain to domain" in text
    assert "a linear probe aligned by CORAL".removeprefix("a ") in text
    _, without = made_report(Store.open(f"{store.uri}-other"))
    assert "From domain to domain" not in without
