"""The faults that suite.py injects, each a function of a live run and of the place where it is.

Every one says what must be there before it can strike (`ready`) and undoes what a rerun must not meet (`heal`).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from places import Place, move_clock
from tests_runs import Run, checksums, step_of

TRAINING, FEED, RAYLET, HEAD, SERVER = (
    "ray::RayTrainWorker",
    "ray::MapBatches",
    "/raylet ",
    "gcs_server",
    "prefect_child",
)
FILLING = "filling"
EXIT_SECONDS = 5.0
"""After Ctrl-C."""
AN_HOUR = 3600

Strike = Callable[[Run, Place, random.Random], None]


def _nothing(place: Place) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    title: str
    strike: Strike
    ready: Callable[[Run], bool] = lambda run: True
    """It waits until this is so, and then for a random time of as long as it is so in a run that nobody disturbs."""
    heal: Callable[[Place], None] = _nothing
    """Before the run is continued."""
    place: str = "folder"
    exit_seconds: float | None = None
    """It must have ended so soon."""


def has(title: str) -> Callable[[Run], bool]:
    """Whether there is such a process."""
    return lambda run: bool(run.processes(title))


def trains(run: Run) -> bool:
    """Whether steps are made."""
    return step_of(run.store) > 0


def _begins(run: Run) -> bool:
    return not checksums(run.store)


def _makes_data(run: Run) -> bool:
    done = checksums(run.store)
    return bool(done) and "augment" not in done


def _starts_ray(run: Run) -> bool:
    done = checksums(run.store)
    return "augment" in done and "pretrain" not in done and not trains(run)


def _transfers(run: Run) -> bool:
    done = checksums(run.store)
    return "embed" in done and "report" not in done


def _checkpoints(run: Run) -> list[Path]:
    return sorted(Path(run.store).glob("partial/*/step-*.pt"))


def kill(title: str) -> Strike:
    """SIGKILL for a process of the run."""
    return lambda run, place, chance: _must(run.kill(title))


def _must(struck: bool) -> None:
    if not struck:
        raise LookupError("the process had ended")


def _driver(run: Run, place: Place, chance: random.Random) -> None:
    os.kill(run.process.pid, signal.SIGKILL)


def _group(run: Run, place: Place, chance: random.Random) -> None:
    os.killpg(run.process.pid, signal.SIGKILL)


def _interrupt(run: Run, place: Place, chance: random.Random) -> None:
    os.killpg(run.process.pid, signal.SIGINT)


def _truncated_checkpoint(run: Run, place: Place, chance: random.Random) -> None:
    """The newest checkpoint loses its second half while its training is killed."""
    found = _checkpoints(run)
    _must(bool(found))
    run.kill_group()
    newest = _checkpoints(run)[-1]
    os.truncate(newest, newest.stat().st_size // 2)


def _exhausted_feed(run: Run, place: Place, chance: random.Random) -> None:
    """A worker that makes views gets no more memory."""
    for pid in run.processes(FEED)[:1] or [0]:
        _must(bool(pid))
        subprocess.run(["prlimit", f"--pid={pid}", f"--as={64 << 20}"], check=True)


def _second_run(run: Run, place: Place, chance: random.Random) -> None:
    """The same recipe once more, at once; both must end well."""
    place.run("run", str(place.recipe)).finish()


def _full_disk(run: Run, place: Place, chance: random.Random) -> None:
    free = shutil.disk_usage(run.store).free
    with open(Path(run.store) / FILLING, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - (64 << 10)))


def _empty_disk(place: Place) -> None:
    (Path(place.store) / FILLING).unlink(missing_ok=True)


def _remount(store: str, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", store], check=True, capture_output=True)


def _read_only(run: Run, place: Place, chance: random.Random) -> None:
    """Files that are open for writing keep the kernel from it: those of a moment ago are waited for."""
    for _ in range(200):
        with contextlib.suppress(subprocess.CalledProcessError):
            return _remount(place.store, "ro")
        time.sleep(0.01)
    raise LookupError("the store was always being written to")


def _slow_store(run: Run, place: Place, chance: random.Random) -> None:
    """Each piece that goes to the store waits, from now on."""
    assert place.relay is not None
    place.relay.delay = chance.uniform(0.05, 0.2)


def _lost_store(run: Run, place: Place, chance: random.Random) -> None:
    assert place.relay is not None
    place.relay.refuses = True
    time.sleep(chance.uniform(3, 20))
    place.relay.refuses = False


def moved_clock(seconds: int) -> Strike:
    """The time of day jumps by so much for all processes of the run."""
    return lambda run, place, chance: move_clock(place.folder, seconds)


def _poison(run: Run, place: Place, chance: random.Random) -> None:
    """It is in the data: nothing more is to be done, and the run must have died of it."""
    run.process.wait(120)
    _must(run.process.returncode == -signal.SIGABRT)


def _killed_node(run: Run, place: Place, chance: random.Random) -> None:
    place.nodes.order("kill_node")
    time.sleep(chance.uniform(0, 10))
    place.nodes.order("add_node")


def _restarted_head(run: Run, place: Place, chance: random.Random) -> None:
    place.nodes.order("kill_head")
    time.sleep(chance.uniform(0, 10))
    place.nodes.order("start_head")


def _lost_head(run: Run, place: Place, chance: random.Random) -> None:
    place.nodes.order("kill_head")


def _new_cluster(place: Place) -> None:
    place.nodes.stop()
    place.nodes.start()


def _cut(run: Run, place: Place, chance: random.Random) -> None:
    """The worker's host is cut off for longer than the head waits for a node, or for less."""
    link = f"pf{run.process.pid}-w"
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    time.sleep(chance.choice([3.0, 90.0]))
    subprocess.run(["ip", "link", "set", link, "up"], check=False)  # it is gone where the run has ended meanwhile


FAULTS = {
    "worker": Fault("training worker killed", kill(TRAINING), trains),
    "feed": Fault("worker that makes views killed", kill(FEED), has(FEED)),
    "memory": Fault("memory exhausted in a worker that makes views", _exhausted_feed, has(FEED)),
    "raylet": Fault("local Ray's raylet killed", kill(RAYLET), has(RAYLET)),
    "head": Fault("local Ray's head (GCS) killed", kill(HEAD), has(HEAD)),
    "driver": Fault("driver killed", _driver),
    "group": Fault("driver and all its group killed", _group),
    "server": Fault("Prefect server killed", kill(SERVER), has(SERVER)),
    "checkpoint": Fault(
        "checkpoint truncated, training killed", _truncated_checkpoint, lambda run: bool(_checkpoints(run))
    ),
    "twice": Fault("the same recipe run twice at once", _second_run),
    "full": Fault("store full", _full_disk, heal=_empty_disk, place="small_disk"),
    "read_only": Fault(
        "store refuses to be written to",
        _read_only,
        heal=lambda place: _remount(place.store, "rw"),
        place="small_disk",
    ),
    "slow_store": Fault("object storage slow", _slow_store, place="object_storage"),
    "lost_store": Fault("object storage away for 3 to 20 s", _lost_store, place="object_storage"),
    "clock_on": Fault("clock moved an hour on", moved_clock(AN_HOUR), place="own_clock"),
    "clock_back": Fault("clock moved an hour back", moved_clock(-AN_HOUR), place="own_clock"),
    "poison": Fault("image that crashes the decoder", _poison, place="poison"),
    "ctrl_c_start": Fault("Ctrl-C before the first artifact", _interrupt, _begins, exit_seconds=EXIT_SECONDS),
    "ctrl_c_data": Fault("Ctrl-C in data stages", _interrupt, _makes_data, exit_seconds=EXIT_SECONDS),
    "ctrl_c_ray": Fault("Ctrl-C while Ray starts", _interrupt, _starts_ray, exit_seconds=EXIT_SECONDS),
    "ctrl_c_training": Fault("Ctrl-C in training", _interrupt, trains, exit_seconds=EXIT_SECONDS),
    "ctrl_c_transfer": Fault("Ctrl-C in transfer", _interrupt, _transfers, exit_seconds=EXIT_SECONDS),
    "node": Fault("node killed, another added up to 10 s later", _killed_node, trains, place="nodes"),
    "nodes_driver": Fault("driver of a shared cluster killed", _driver, trains, place="nodes"),
    "head_back": Fault("head killed, back within 10 s, with Redis", _restarted_head, trains, place="nodes_with_redis"),
    "head_lost": Fault("head killed, a new cluster for the rerun", _lost_head, trains, _new_cluster, "nodes"),
    "network": Fault("network between two hosts cut for 3 or 90 s", _cut, trains, place="hosts"),
}
