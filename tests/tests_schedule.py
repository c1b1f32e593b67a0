"""Which of pytest-xdist's workers runs what, for `pytest -n 2`: files stay whole, and what starts Ray or Prefect stays
together."""

from __future__ import annotations

from typing import Any

import pytest

SEVERAL_PROCESSES = (
    "tests/ssl_tasks/cluster/",
    "tests/ssl_tasks/store/test_s3.py",
    "tests/flows/test_compare.py",
    "tests/flows/test_flow.py",
    "tests/flows/test_search.py",
    "tests/flows/test_server.py",
)
"""Tests that run on Ray or ask a Prefect server: one of each for all, and no two of these tests at a time."""


def starts_processes(nodeid: str) -> bool:
    return nodeid.startswith(SEVERAL_PROCESSES)


def longest_first(items: list[pytest.Item]) -> None:
    """Those with processes take half of the time: whoever has them must begin with them."""
    items.sort(key=lambda item: not starts_processes(item.nodeid))


def scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker takes one file after another, for the sake of what its tests share, or all tests with processes."""
    from xdist.scheduler import LoadScopeScheduling  # known to be there where a scheduler is asked for

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "processes" if starts_processes(nodeid) else nodeid.split("::", 1)[0]

    config.option.loadscopereorder = False  # in the order of `longest_first`
    return ByFile(config, log)
