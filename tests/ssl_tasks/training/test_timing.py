from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ssl_tasks.training import timing
from ssl_tasks.training.timing import EXCHANGE, PARTS, Clock, LastGradient, Stopwatch


def test_seconds_are_added_up_by_part_and_by_step() -> None:
    times = iter([0.0, 1.0, 1.0, 3.5, 4.0, 4.25, 5.0, 6.0, 6.0, 7.0])
    clock = Clock(now=lambda: next(times))
    with clock("feed"):
        pass
    with clock("compute"):
        pass
    with clock("feed"):
        pass
    clock.beside([0.5, 0.75])
    clock.lap(7)
    with clock("compute"):
        pass
    clock.lap(8)
    with clock("checkpoint"):
        pass
    assert clock.seconds == dict.fromkeys(PARTS, 0.0) | {"feed": 1.25, "compute": 3.5, "checkpoint": 1.0}
    assert clock.steps == {
        **{name: [0.0, 0.0] for name in PARTS},
        "step": [7, 8],
        "feed": [1.25, 0.0],
        "compute": [2.5, 1.0],
        "feed_read": [0.5, 0.5],
        "feed_augment": [0.75, 0.75],
    }


def test_what_a_stopwatch_counted_inside_is_no_time_of_the_part() -> None:
    times = iter([0.0, 1.0, 3.0, 10.0])
    watch = Stopwatch(now=lambda: next(times))
    clock = Clock(now=lambda: next(times))
    with clock("compute", {"communication": watch}), watch:
        pass
    assert (clock.seconds["compute"], clock.seconds["communication"]) == (8.0, 2.0)


def test_what_follows_the_last_gradient_is_exchanging(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    model = nn.Linear(3, 1)
    watch = LastGradient(model)
    before = EXCHANGE.seconds
    with watch():
        now[0] += 1.0
        model(torch.ones(2, 3)).sum().backward()
        now[0] += 0.25  # as DDP, which waits for its last bucket
    assert EXCHANGE.seconds - before == pytest.approx(0.25)
    before = EXCHANGE.seconds
    with watch():
        now[0] += 0.25
        model(torch.ones(2, 3)).sum().backward()
    assert EXCHANGE.seconds == before
