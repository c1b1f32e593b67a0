"""Fits as Ray tasks: the bits of threads, a process that dies, what is refused, and that nothing is left."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_tasks.artifact import Artifact
from ssl_tasks.cluster import fits
from ssl_tasks.cluster.fits import ray_fits
from ssl_tasks.errors import RequestError, StageError, TryAgainError
from ssl_tasks.materialize import materialize
from ssl_tasks.stages.transfer import STAGE, TransferConfig
from ssl_tasks.store import Store

pytestmark = pytest.mark.usefixtures("ray_session")

SMALL: dict[str, Any] = {
    "strategies": ["linear_probe", "mlp"],
    "label_fractions": [0.1, 1.0],
    "seeds": 2,
    "bootstrap": 100,
    "raw_input": False,
    "scratch": {"steps": 4, "learning_rates": [0.003, 0.01]},
}


def transfer(made: dict[str, Artifact], **config: Any) -> Artifact:
    parsed = TransferConfig.model_validate({**SMALL, **config})
    parents = {name: made[name] for name in STAGE.inputs}
    fingerprint = STAGE.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    return materialize(made["ingest"].store, STAGE, parsed, parents, fingerprint=fingerprint, force=True).artifact


def test_tasks_give_the_bits_of_threads(store: Store) -> None:
    """The baseline from scratch trains on samples: its context is made anew from the artifacts in Ray's processes."""
    from tests_planted import planted  # here, because Ray's processes import this file and know nothing of that one

    made = planted(store)
    on_threads, on_ray = transfer(made, run_on="threads"), transfer(made, run_on="ray")
    assert on_ray.fingerprint == on_threads.fingerprint
    assert on_ray.manifest.data_checksum == on_threads.manifest.data_checksum
    assert on_ray.table("failures.parquet").num_rows == 0


def dies(folder: Path, times: int) -> str:
    """Ends its process the first few times it is called."""
    so_far = len(list(folder.iterdir()))
    (folder / str(so_far)).touch()
    if so_far < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_fit_whose_process_dies_is_tried_once_more_and_then_has_failed(tmp_path: Path) -> None:
    once, always = tmp_path / "once", tmp_path / "always"
    for folder in (once, always):
        folder.mkdir()
    with ray_fits() as runner:
        waits = [runner.submit(dies, once, 1), runner.submit(dies, always, 99), runner.submit(str.upper, "other")]
        answers = [wait() for wait in waits]
    assert answers == ["done", "WorkerCrashedError: the process of the fit ended, twice", "OTHER"]
    assert [len(list(folder.iterdir())) for folder in (once, always)] == [2, 2]


def refuses(error: Exception) -> str:
    raise error


@pytest.mark.parametrize("error", [MemoryError("full"), RequestError("your key"), ValueError("no such\nmatrix")])
def test_what_a_fit_raises_is_raised_as_it_was(error: Exception) -> None:
    with ray_fits() as runner, pytest.raises(type(error)) as found:
        runner.submit(refuses, error)()
    assert type(found.value) is type(error)
    assert str(found.value) == str(error)


class Unknown:
    """As a module that the nodes do not have."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuses, (ModuleNotFoundError("No module named 'mine'"),)


def test_what_ray_cannot_read_ends_the_stage_in_one_line() -> None:
    with ray_fits() as runner, pytest.raises(StageError, match=r"No module named 'mine'; every node needs the same"):
        runner.submit(str, Unknown())()


def sees(rows: np.ndarray) -> tuple[int, int, bool, float]:
    return os.getpid(), rows.ctypes.data, rows.flags.writeable, float(rows.sum())


def test_shared_rows_are_mapped_and_not_copied() -> None:
    with ray_fits(cpus_per_fit=4) as runner:
        rows = runner.share(np.ones((1000, 100)))
        answers = [runner.submit(sees, rows)() for _ in range(4)]
    assert {answer[2:] for answer in answers} == {(False, 1e5)}
    assert len({answer[:2] for answer in answers}) == len({answer[0] for answer in answers})  # one place in a process


def lasts(folder: Path) -> str:
    (folder / str(os.getpid())).touch()
    time.sleep(600)
    return "done"


def test_an_interruption_ends_fits_that_run_and_those_that_wait(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path)
    began = time.monotonic()
    running = [int(path.name) for path in tmp_path.iterdir()]
    assert len(running) == 2  # eight CPUs are declared
    while any(Path(f"/proc/{pid}").exists() for pid in running):
        assert time.monotonic() - began < 30, "a cancelled fit still runs"
        time.sleep(0.1)
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == 2  # none of those that waited has begun


def test_fits_do_not_wait_for_ever_for_a_node_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(fits, "LOST_SECONDS", 0.3)
    lost = "the largest node of the Ray cluster has 0"
    with ray_fits() as runner:
        wait = runner.submit(lasts, tmp_path)
        answers = iter(["", lost, ""])  # it came back in time
        monkeypatch.setattr(fits, "_lacking", lambda cpus, gpus: next(answers, lost))
        with pytest.raises(TryAgainError, match=rf"^{lost}, for 0\.005 minutes"):
            wait()
    assert next(answers, None) is None


def _interrupted(folder: Path) -> None:
    with ray_fits(cpus_per_fit=4) as runner:
        waits = [runner.submit(lasts, folder) for _ in range(6)]
        threading.Thread(target=_interrupt, args=(folder, 2)).start()
        waits[0]()


def _interrupt(folder: Path, running: int) -> None:
    while len(list(folder.iterdir())) < running:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"cpus_per_fit": 99}, r"transfer\.cpus_per_fit: a fit asks for 99 CPU, and the largest node .* has 8"),
        ({"gpus_per_fit": 0.5}, r"transfer\.gpus_per_fit: a fit asks for 0\.5 GPU, and the largest node .* has 0"),
    ],
)
def test_more_than_any_node_has_is_refused(wanted: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message), ray_fits(**wanted):
        pass
