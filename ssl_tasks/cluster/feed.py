"""The feed: each rank runs its own slice of the plan through Ray Data, one row a step in, one batch a step out.

Ray Train's `streaming_split` gives blocks to whichever rank has fewest rows, which would undo the plan. Plain
tasks and not an actor pool: the first batch came after 8 s in place of 16.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.policy import PLAIN
from ssl_tasks.training.job import Job

MAX_BLOCKS = 512
MAX_BLOCK_BYTES = 32 << 20
BLOCK_STEPS = 16
"""Steps of a task, where they are small: its start and its result cost the training process 10 to 20 ms."""
MAX_TASKS = 1024
"""Tasks that are laid out at once, about a millisecond each. More than `MAX_BLOCKS` are made where steps are too large
to share a task: half a million of 256 photographs would take minutes before the first."""
BUFFER_BYTES = 512 << 20


def start_feed(job: Job, rank: int, world: int, first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
    """Start making the views of steps `first` to `last` (exclusive) at once, in the background.

    Returns:
        The arrays of `make_views` for each step, in order.
    """
    ready: queue.Queue[dict[str, np.ndarray] | BaseException] = queue.Queue(maxsize=2)
    threading.Thread(target=_pull, args=(ready, job, rank, world, first, last), daemon=True, name="feed").start()
    return _in_order(ready, first, last)


def _in_order(ready: queue.Queue[Any], first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
    for step in range(first, last):
        made = ready.get()
        if isinstance(made, BaseException):
            raise made
        # blocks may be merged and split on the way, so every step carries its number
        assert int(made.pop("step")) == step, f"the feed gave another step than {step}"
        yield made


def _pull(ready: queue.Queue[Any], job: Job, rank: int, world: int, first: int, last: int) -> None:
    from ssl_tasks.cluster.idle import Rest

    Rest.is_ahead = ready.full
    try:
        sizes = block_sizes(last - first, _step_bytes(job, world), job.config.feed_workers)
        for tasks in (sizes[begin : begin + MAX_TASKS] for begin in range(0, len(sizes), MAX_TASKS)):
            for block in _dataset(job, rank, world, first, tasks).iter_batches(batch_size=None, prefetch_batches=2):
                for row in range(len(block["step"])):
                    ready.put({name: values[row] for name, values in block.items()})
            first += sum(tasks)
    except BaseException as error:  # raised again where the batch is waited for
        ready.put(error)


def _dataset(job: Job, rank: int, world: int, first: int, sizes: list[int]) -> Any:
    """Ray Data of the steps from `first`, of so many in each task."""
    import ray.data

    from ssl_tasks.cluster.idle import Rest

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # an INFO page per execution
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    if Rest not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Rest)
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        cpu=job.config.feed_workers, object_store_memory=BUFFER_BYTES
    )

    def load(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        from ssl_tasks.training.timing import READ, VIEWS, tell_feed
        from ssl_tasks.training.views import make_views

        torch.set_num_threads(1)
        before = READ.seconds, VIEWS.seconds
        made = tell_feed(before, make_views(job, int(batch["step"][0]), rank, world))
        return {**batch, **{name: values[None] for name, values in made.items()}}

    # Not `ray.data.range` or `from_arrow`, whose tasks, one a block, all run before the first view is made.
    parts = np.split(np.arange(first, first + sum(sizes)), np.cumsum(sizes)[:-1])
    dataset = ray.data.from_blocks([pa.table({"step": part}) for part in parts])
    return dataset.map_batches(load, batch_size=1, num_cpus=1, concurrency=job.config.feed_workers)


def block_sizes(steps: int, step_bytes: int, workers: int) -> list[int]:
    """Steps of each task: one at first, then twice as many; while a task is made, those before it are trained on."""
    most = min(max(BLOCK_STEPS, -(-steps // MAX_BLOCKS)), max(1, MAX_BLOCK_BYTES // step_bytes))
    sizes: list[int] = []
    while steps > 0:
        size = min(most, 2 ** min(len(sizes) // (2 * workers), 30), steps)
        sizes.append(size)
        steps -= size
    return sizes


def _step_bytes(job: Job, world: int) -> int:
    shape, itemsize = job.shards.shape, job.shards.payloads[0].itemsize
    values = math.prod(shape) if job.config.augment_on == "device" else sum(_view_values(job, shape))
    return values * itemsize * job.config.batch_size // world


def _view_values(job: Job, stored: tuple[int, ...]) -> Iterator[int]:
    """Of one row, in each view."""
    for name in job.view_names:
        size = None if name == PLAIN else job.views.policy(name).size
        yield math.prod(stored) if size is None else size * size * stored[-1]
