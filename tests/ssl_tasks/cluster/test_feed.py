"""The feed gives the plan's steps in their order; how it is laid out: by the bytes that a step really ships."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssl_tasks import methods
from ssl_tasks.cluster import feed, idle
from ssl_tasks.cluster.feed import BLOCK_STEPS, MAX_BLOCK_BYTES, MAX_BLOCKS, _step_bytes, block_sizes
from ssl_tasks.policy import Views
from ssl_tasks.store import Output, Store
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import Job
from ssl_tasks.training.views import make_views


def job(names: tuple[str, ...], where: str, dtype: Any) -> Any:
    views = Views.model_validate(
        {"policies": {"augment": {}, "large": {"size": 40}, "local": {"size": 8}}, "modality": "image", "seed": 0}
    )
    shards = SimpleNamespace(shape=(16, 20, 3), payloads=[np.empty((1, 16, 20, 3), dtype)])
    return SimpleNamespace(
        config=SimpleNamespace(batch_size=64, augment_on=where), shards=shards, view_names=names, views=views
    )


@pytest.mark.parametrize("most", [2, 1024])
def test_every_step_comes_once_and_in_order_however_many_tasks_are_laid_out_at_once(
    store: Store,
    small_recipe: dict[str, Any],
    chain: Any,
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    made = chain(store, small_recipe, until="augment")
    config = PretrainConfig(**{**small_recipe["pretrain"], "method": {"name": "simclr"}, "feed_workers": 1})
    policies = methods.view_policies(config.method.options(), config.modality)
    out = Output(store.uri, "b" * 64, "a", "pretrain")
    work = Job(config, out, made["normalize"], made["split"], made["augment"], policies)
    monkeypatch.setattr(feed, "MAX_TASKS", most)
    steps = list(feed.start_feed(work, 0, 1, 1, 7))  # tasks of 1, 1, 2 and 2 steps
    assert len(steps) == 6
    for number, step in enumerate(steps, start=1):
        expected = make_views(work, number, 0, 1)
        assert step.keys() - expected.keys() == {"feed_seconds"}
        for name, values in expected.items():
            np.testing.assert_array_equal(step[name], values)


@pytest.mark.parametrize(
    ("names", "where", "values"),
    [
        (("augment", "augment"), "workers", 2 * 960),
        (("plain", "unknown"), "workers", 2 * 960),
        (("augment", "local", "local", "large"), "workers", 960 + 2 * 192 + 4800),
        (("augment", "local", "local", "large"), "device", 960),
    ],
)
@pytest.mark.parametrize(("dtype", "itemsize"), [(np.uint8, 1), (np.float32, 4)])
def test_a_step_ships_its_views_or_the_rows_once(
    names: tuple[str, ...], where: str, values: int, dtype: Any, itemsize: int
) -> None:
    assert _step_bytes(job(names, where, dtype), world=2) == 32 * values * itemsize


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("step_bytes", [1, MAX_BLOCK_BYTES // 4, MAX_BLOCK_BYTES, 10 * MAX_BLOCK_BYTES])
@pytest.mark.parametrize("steps", [1, 2, 7, 240, 100_000])
def test_tasks_hold_more_and_more_steps_and_never_too_many_bytes(steps: int, step_bytes: int, workers: int) -> None:
    sizes = block_sizes(steps, step_bytes, workers)
    assert sum(sizes) == steps
    assert min(sizes) >= 1
    assert max(sizes) * step_bytes <= max(MAX_BLOCK_BYTES, step_bytes)
    # each worker has two tasks of a size, so that what is ready lasts while the next one is made
    before = [0, *itertools.accumulate(sizes)]
    assert all(size <= max(1, done // workers) for size, done in zip(sizes, before, strict=False))
    if step_bytes == 1:
        assert max(sizes) <= max(BLOCK_STEPS, -(-steps // MAX_BLOCKS))
        assert len(sizes) <= steps // BLOCK_STEPS + 10 * workers


@pytest.mark.parametrize(("tasks", "seconds"), [([], idle.IDLE_SECONDS), (["one"], idle.BUSY_SECONDS)])
def test_the_scheduling_loop_rests_after_each_round(
    monkeypatch: pytest.MonkeyPatch, tasks: list[str], seconds: float
) -> None:
    rested: list[float] = []
    monkeypatch.setattr(idle.time, "sleep", rested.append)
    operators = [SimpleNamespace(get_active_tasks=lambda some=some: some) for some in ([], tasks)]
    idle.Rest().on_execution_step(SimpleNamespace(_topology=operators))
    assert rested == [seconds]
