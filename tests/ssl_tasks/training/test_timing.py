from __future__ import annotations

from ssl_tasks.training.timing import Clock


def test_seconds_are_added_up_by_part_and_by_step() -> None:
    times = iter([0.0, 1.0, 1.0, 3.5, 4.0, 4.25, 5.0, 6.0, 6.0, 7.0])
    clock = Clock(now=lambda: next(times))
    with clock("feed"):
        pass
    with clock("compute"):
        pass
    with clock("feed"):
        pass
    clock.lap(7)
    with clock("compute"):
        pass
    clock.lap(8)
    with clock("checkpoint"):
        pass
    assert clock.seconds == {"feed": 1.25, "compute": 3.5, "health": 0.0, "checkpoint": 1.0}
    assert clock.steps == {
        "step": [7, 8], "feed": [1.25, 0.0], "compute": [2.5, 1.0], "health": [0.0, 0.0], "checkpoint": [0.0, 0.0]
    }  # fmt: skip
