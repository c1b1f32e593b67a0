"""A training that cannot go on is ended, and whether it is worth another try. No Ray is started."""

import time
from unittest.mock import Mock, patch

import pytest

from ssl_tasks.cluster import train
from ssl_tasks.cluster.connect import Connection
from ssl_tasks.errors import StageError, TryAgainError
from ssl_tasks.store import Store


@pytest.mark.parametrize(
    ("minutes", "dead", "said"),
    [
        (0.01, "", r"no progress for 0\.01 minutes \(pretrain\.timeout_minutes\)"),
        (0.0, "raylet", r"the local Ray has died \(raylet\)"),
    ],
)
def test_a_training_that_cannot_go_on_is_ended(store: Store, minutes: float, dead: str, said: str) -> None:
    job = Mock(config=Mock(timeout_minutes=minutes), partial="partial/x", out=Mock(store=store, attempt="a"))

    def fit() -> None:
        time.sleep(30)

    with pytest.raises(TryAgainError, match=said):
        train._fit(job, Mock(fit=fit), Mock(dead=lambda: dead))


def test_an_error_of_ray_after_its_death_is_worth_another_try(store: Store) -> None:
    job = Mock(config=Mock(timeout_minutes=0), partial="partial/x", out=Mock(store=store, attempt="a"))
    fit = Mock(side_effect=RuntimeError("actor died"))
    with pytest.raises(TryAgainError, match="actor died"):
        train._fit(job, Mock(fit=fit), Mock(dead=lambda: "raylet"))
    with pytest.raises(StageError, match="actor died") as refused:
        train._fit(job, Mock(fit=fit), Mock(dead=lambda: ""))
    assert not isinstance(refused.value, TryAgainError)


def test_a_process_of_ray_that_died_is_named() -> None:
    nodes = {"raylet": [("log_monitor", Mock()), ("raylet", Mock())], "": [("log_monitor", Mock())]}
    for said, ended in nodes.items():
        with patch("ray._private.worker._global_node", Mock(dead_processes=lambda ended=ended: ended)):
            assert Connection(embedded=True).dead() == said
            assert Connection(embedded=False).dead() == ""  # not ours to judge
