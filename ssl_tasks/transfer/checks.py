"""Refuses, before any work, what the strategies cannot do with the network and the options they are given."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.base import Blueprint


def check(names: Sequence[str], blueprint: Blueprint) -> None:
    """Ask every strategy of `names`.

    Raises:
        RequestError: of the first that refuses; names the key.
    """
    for name in names:
        found = strategy(name)
        if found.check:
            found.check(blueprint)


def needed(names: Sequence[str]) -> bool:
    """Whether one of them has anything to ask."""
    return any(strategy(name).check for name in names)
