"""A training that cannot go on is ended from outside, and why is said.

Ray waits without end: for a node that nobody starts again, for CPUs of workers or of the feed that never come free
(ray#41603), for a task that never returns. So the time is counted in which nothing moves: no step, no first batch, no
start of workers. While workers wait for what other work on the cluster holds, it counts against
`pretrain.queue_minutes`; a turn in a queue of Prefect's comes before all this.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ssl_tasks.cluster import look
from ssl_tasks.cluster.connect import Connection
from ssl_tasks.cluster.room import Demand, fits, lacks, room
from ssl_tasks.errors import TryAgainError
from ssl_tasks.store.output import PROGRESS_FILE
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import FAILURE_FILE, STARTS, Job, read_own

FAILURE_GRACE_SECONDS = 5.0
"""For the other ranks to end by themselves after one has failed."""
ANSWER_SECONDS = 60.0
GROUP_LOOKS, LOOK_SECONDS = 5, 1.0
"""Ray Train gives its place in the cluster's line up once a minute and takes another at once: one look may miss it."""


class _GivenUp(KeyboardInterrupt):
    """Ends `fit` from outside. Of what a signal's handler raises, `ray.get` lets nothing else end it, and then raises a
    plain KeyboardInterrupt; anything else it swallows and waits on."""


@contextlib.contextmanager
def watch(job: Job, ray_connection: Connection, use_gpu: bool, let_go: Callable[[], None]) -> Iterator[None]:
    """End the block when nothing moves for too long, when others wait for a rank that has failed, or when Ray is dead.

    Args:
        let_go: ends what the block has left in a Ray that lives.

    Raises:
        TryAgainError: no progress, or no Ray. Outside of the main thread nothing is watched: signals arrive there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = _Over()
    before = signal.signal(signal.SIGUSR2, over.end_fit)
    arguments = (job, ray_connection, use_gpu, over)
    threading.Thread(target=_look, args=arguments, daemon=True, name="progress-watch").start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.given_up:
            raise
        if not ray_connection.dead():
            let_go()
        if over.why:
            said = f"pretrain: {over.why}; `pretextflow rerun` continues from the last checkpoint"
            raise TryAgainError(said) from None
    finally:
        over.done.set()
        with over.signalling:  # none may come once it would end the process
            signal.signal(signal.SIGUSR2, before)


class _Over:
    """Whether the block is over, and why it is ended."""

    def __init__(self) -> None:
        self.done, self.signalling, self.why = threading.Event(), threading.Lock(), ""
        self.given_up = False

    def end_fit(self, _number: int, _frame: Any) -> None:
        """Where the signal arrives."""
        if not self.done.is_set():
            self.given_up = True
            raise _GivenUp

    def end(self) -> None:
        """Send it."""
        with self.signalling:
            if not self.done.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)


def _look(job: Job, ray_connection: Connection, use_gpu: bool, over: _Over) -> None:
    """What is wrong with training, beyond the failure of a rank, becomes the reason why it is over."""
    config = job.config.model_copy(update={"use_gpu": use_gpu})  # `auto` would do without those of a lost node
    still, failed_at = Standstill(config, lambda starts: ask(config, starts)), None
    while not over.done.wait(1.0):
        with contextlib.suppress(OSError):
            still.see(job.out.store.read_json(f"{job.partial}/{PROGRESS_FILE}"))
            if failed_at is None and read_own(job, FAILURE_FILE):
                failed_at = time.monotonic()
        dead = ray_connection.dead()
        over.why = f"the local Ray has died ({dead})" if dead else still.too_long()
        if over.why or (failed_at is not None and time.monotonic() - failed_at > FAILURE_GRACE_SECONDS):
            over.end()
            return


@dataclass(frozen=True)
class Cause:
    """Why nothing moves."""

    said: str
    others: bool = False
    """Whether workers wait for what other work on the cluster holds."""


class Standstill:
    """How long nothing has moved, and whether that is too long."""

    def __init__(
        self, config: PretrainConfig, ask: Callable[[bool], Cause], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config, self.ask, self.clock = config, ask, clock
        self.seen: dict[str, Any] = {}
        self.since, self.queued = clock(), 0.0

    def see(self, progress: dict[str, Any] | None) -> None:
        """Take note of a training's progress; that workers are still about to start is none."""
        progress = progress or {}
        if progress != self.seen and not (self._starts(progress) and self._starts(self.seen)):
            self.since, self.queued = self.clock(), 0.0
        self.seen = progress

    def too_long(self) -> str:
        """What to say of it; "" where it is not too long. Ray is asked only when `timeout_minutes` are over."""
        limit, still = 60 * self.config.timeout_minutes, self.clock() - self.since
        if not limit or still <= limit:
            return ""
        cause = self.ask(self._starts(self.seen))
        if not cause.others:
            minutes = f"no progress for {self.config.timeout_minutes:g} minutes (pretrain.timeout_minutes)"
            return f"{minutes} at step {self.seen.get('step', 0)}: {cause.said}"
        self.queued, self.since = self.queued + still, self.clock()
        if not self.config.queue_minutes or self.queued <= 60 * self.config.queue_minutes:
            return ""
        return f"{cause.said}, for {self.config.queue_minutes:g} minutes (pretrain.queue_minutes)"

    @staticmethod
    def _starts(progress: dict[str, Any]) -> bool:
        return bool(progress.get(STARTS))


def ask(config: PretrainConfig, starts: bool) -> Cause:
    """Ask Ray what a training waits for, and not for ever.

    Args:
        config: with `use_gpu` decided.
        starts: whether its workers are about to start.
    """
    found: list[Cause] = []

    def find() -> None:
        with contextlib.suppress(Exception):  # Ray may be going away: that it does not answer says enough
            found.append(_starting(config) if starts else _feeding())

    thread = threading.Thread(target=find, daemon=True, name="cause")
    thread.start()
    thread.join(ANSWER_SECONDS)
    return found[0] if found else Cause("Ray does not answer")


def _starting(config: PretrainConfig) -> Cause:
    import ray

    nodes = look.table()
    demand = Demand.of(config, use_gpu=bool(config.use_gpu))
    if not fits(nodes, demand):
        return Cause(f"workers cannot start: {room(nodes, config)}")
    if not _in_line():
        return Cause("workers do not start, although the cluster has room for them: see their logs on its nodes")
    lacking = lacks(ray.available_resources(), demand) or "a place"
    return Cause(f"workers wait for {lacking}, which other work on the cluster uses", others=True)


def _in_line() -> bool:
    """Whether workers of any training wait for a place in the cluster; not those that have one."""
    import ray

    for number in range(GROUP_LOOKS):
        if number:
            time.sleep(LOOK_SECONDS)
        if any(group["state"] in ("PENDING", "RESCHEDULING") for group in ray.util.placement_group_table().values()):
            return True
    return False


def _feeding() -> Cause:
    import ray

    if ray.available_resources().get("CPU", 0) < 1:
        mend = "train with fewer workers, add CPUs, or let runs take turns (queue)"
        return Cause(f"no CPU of the cluster is free for the feed, which may wait for one; {mend}")
    return Cause("its workers live, but no batch or no step is finished: does every node read the store?")
