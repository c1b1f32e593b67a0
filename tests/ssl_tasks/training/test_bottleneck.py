"""The part that holds a step up is named, from planted seconds."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_tasks.training.bottleneck import find, in_words
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.timing import BESIDE, PARTS

STEPS = 12


def steps(**seconds: float) -> dict[str, list[float]]:
    """Equal steps after two that took as long as a start does."""
    planted = {name: [seconds.get(name, 0.0)] * STEPS for name in (*PARTS, *BESIDE)}
    planted["feed"][:2] = [9.0, 2.0]
    return {"step": [float(step) for step in range(STEPS)], **planted}


def said(seconds: dict[str, float], **options: Any) -> tuple[str, str]:
    found = find(steps(**seconds), PretrainConfig.model_validate(options))
    assert found is not None
    assert sum(found.shares.values()) == pytest.approx(1)
    return found.part, found.sentence


def test_a_slow_feed_is_told_how_many_cpus_it_lacks() -> None:
    part, sentence = said({"feed": 0.3, "compute": 0.1, "feed_read": 0.01, "feed_augment": 0.38})
    assert part == "feed"
    assert sentence == (
        "the feed is slower than the model: 75% of a step is waiting for data (a task of the feed makes a batch in "
        "0.39 s, the model takes 0.1 s for it). Add 3 CPU for each worker with pretrain.feed_workers=4, or lower the "
        "views' number or size (augment), or with a GPU set pretrain.augment_on=device"
    )


def test_a_slow_disk_is_told_from_slow_views() -> None:
    _, sentence = said({"feed": 0.3, "compute": 0.1, "feed_read": 0.38, "feed_augment": 0.01})
    assert "faster disk" in sentence
    assert "augment_on" not in sentence


def test_a_feed_that_is_fast_and_still_late() -> None:
    part, sentence = said({"feed": 0.1, "compute": 0.3, "feed_augment": 0.05})
    assert part == "feed"
    assert "busy with something else" in sentence
    assert "feed_workers=" not in sentence


@pytest.mark.parametrize(
    ("seconds", "part", "words"),
    [
        (
            {"compute": 0.9, "feed": 0.05, "communication": 0.05},
            "compute",
            "the model itself is what takes the time (90%",
        ),
        ({"compute": 0.5, "communication": 0.5}, "communication", "4 workers spend 50% of a step on exchanging"),
        ({"compute": 0.7, "transfer": 0.3}, "transfer", "pretrain.augment_on=device"),
        ({"compute": 0.5, "augment": 0.5}, "augment", "pretrain.augment_on=workers"),
        ({"compute": 0.9, "checkpoint": 0.1}, "checkpoint", "checkpoint_every_steps (now 200)"),
        ({"compute": 0.7, "health": 0.3}, "health", "pretrain.health_checks (now 20)"),
        ({"compute": 0.4, "communication": 0.25, "feed": 0.35}, "feed", "waiting for data"),
    ],
)
def test_the_largest_part_that_is_worth_a_change(seconds: dict[str, float], part: str, words: str) -> None:
    found, sentence = said(seconds, num_workers=4)
    assert found == part
    assert words in sentence


def test_a_start_is_no_bottleneck_and_few_steps_say_nothing() -> None:
    found = find(steps(compute=0.2), PretrainConfig())
    assert found is not None
    assert (found.part, found.shares["feed"]) == ("compute", 0)
    assert find({name: values[:6] for name, values in steps(compute=0.2).items()}, PretrainConfig()) is None


def test_in_words() -> None:
    found = find(steps(feed=0.3, compute=0.1, feed_read=0.002, feed_augment=0.4), PretrainConfig())
    assert found is not None
    sentence, shares, feed = in_words(found.to_dict())
    assert sentence.startswith("The feed is slower")
    assert shares == "Of a step of 0.4 s: waiting for data 75%, computing 25%"
    assert feed == "Beside it a task of the feed takes 2 ms to read a batch and 0.4 s to make its views"
    assert in_words(None) == []
