"""Where fits run: side by side on threads of this process, or wherever another runner of the same protocol puts them.

with threads(workers=2) as runner:
    rows = runner.share(rows)                       # once for all fits that read them
    collect = [runner.submit(fit, rows, seed) for seed in range(5)]
    results = [wait() for wait in collect]
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Runner(Protocol):
    """Runs functions that write nothing, each on one thread, so that the number of them at a time changes no bit."""

    def share(self, value: Any) -> Any:
        """A handle of `value`, to be given to `submit` in its place: what many fits read is stored once."""
        ...

    def submit(self, fit: Callable[..., T | str], *args: Any) -> Callable[[], T | str]:
        """Start `fit` on the arguments; what is returned waits for it.

        Returns:
            A function that gives what `fit` returned, or text, where the machine failed under this fit alone. It raises
            what `fit` raised.
        """
        ...


class _Threads:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool

    def share(self, value: Any) -> Any:
        return value

    def submit(self, fit: Callable[..., T | str], *args: Any) -> Callable[[], T | str]:
        return self.pool.submit(fit, *args).result


@contextmanager
def threads(workers: int, stop: threading.Event | None = None) -> Iterator[Runner]:
    """Run fits on threads of this process.

    Args:
        workers: how many side by side; 0 for one per core.
        stop: set at the end, before the fits that still run are waited for.
    """
    import torch

    before = torch.get_num_threads()
    with quietly_alone():
        pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, initializer=one_thread)
        try:
            yield _Threads(pool)
        finally:
            if stop:
                stop.set()
            pool.shutdown(cancel_futures=True)  # a failure or Ctrl-C waits for the running fits only
            torch.set_num_threads(before)


@contextmanager
def quietly_alone() -> Iterator[None]:
    """BLAS on one thread, and no word about fits that did not converge: that stands in what a fit chose."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def one_thread() -> None:
    """Hold the calling thread to itself in torch and OpenMP, where the limit is each thread's own."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1, user_api="openmp")
