"""What each node has seen of Ray's spilling comes together and is said. That a node sees it stands in test_look.py."""

from unittest.mock import Mock

import pytest

from ssl_tasks.cluster import spill
from ssl_tasks.store import Store


def test_the_most_of_each_node_is_added_up_and_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Mock(partial="partial/x", out=Mock(store=store))
    store.write_json("partial/x/progress.json", {"step": 1})
    held = iter([0, 5_000_000_000, 3_000_000_000, 1_200_000_000])
    monkeypatch.setattr(spill, "spilled_here", lambda: next(held))
    first, second = spill.SpillWatch(job, 0), spill.SpillWatch(job, 1)
    first.look()
    assert store.list("partial/x") == ["progress.json"]  # nothing is written while nothing is spilled
    for watch in (first, first, second):
        watch.look()
    assert spill.most_spilled(job) == 6_200_000_000
    (said,) = spill.warning(6_200_000_000)
    assert "up to 6.2 GB" in said
    spill.clear(job)
    assert store.list("partial/x") == ["progress.json"]
    assert spill.most_spilled(job) == 0
    assert spill.warning(0) == []
