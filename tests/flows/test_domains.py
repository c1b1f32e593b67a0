"""Domains are asked for as soon as the data is read, and their rows as soon as it is split."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from flows.preflight import CHECKS
from flows.preflight.labels import require_domain_rows, require_domains
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.transfer import TransferConfig


def recipe(**transfer: Any) -> Any:
    return SimpleNamespace(transfer=TransferConfig.model_validate(transfer))


def artifact(domains: list[str | None], labels: list[str | None], splits: list[str]) -> Any:
    table = pa.table({"domain": domains, "label": labels, "split": splits})
    return SimpleNamespace(table=lambda name, columns: table.select(columns))


GOOD = artifact(["a", "b"] * 12, ["x", "x", "y", "y"] * 6, ["train"] * 12 + ["test"] * 12)


def test_both_are_asked_of_a_transfer_that_is_to_run() -> None:
    asked = {(entry.after, entry.check) for entry in CHECKS if entry.stage == "transfer"}
    assert {("ingest", require_domains), ("split", require_domain_rows)} <= asked


def test_data_without_the_domain_is_refused_after_ingest() -> None:
    require_domains(recipe(domains={"target": "b"}), GOOD)
    with pytest.raises(RequestError, match=r"transfer.domains: the data has no domain 'c'; there are 'a', 'b'"):
        require_domains(recipe(domains={"target": "c"}), GOOD)


def test_different_label_sets_are_refused_after_ingest() -> None:
    other = artifact(["a", "a", "b", "b"], ["x", "y", "x", "z"], ["train"] * 4)
    with pytest.raises(RequestError, match=r"the label sets of the domains differ: 'a' has 'y', and 'b' has not"):
        require_domains(recipe(domains={"leave_one_out": True}), other)


def test_domains_with_too_few_rows_are_refused_after_split() -> None:
    require_domain_rows(recipe(domains={"target": "b"}), GOOD)
    few = artifact(["a", "b"] * 12, ["x", "x", "y", "y"] * 6, ["train"] * 6 + ["test"] * 18)
    with pytest.raises(RequestError, match=r"'a': 3 train rows are too few"):
        require_domain_rows(recipe(domains={"target": "b"}), few)


@pytest.mark.parametrize("transfer", [{}, {"strategies": [], "domains": {"target": "c"}}])
def test_nothing_is_asked_where_no_domain_matters(transfer: dict[str, Any]) -> None:
    for require in (require_domains, require_domain_rows):
        require(recipe(**transfer), SimpleNamespace())
    require_domains(SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]  # a recipe without transfer
