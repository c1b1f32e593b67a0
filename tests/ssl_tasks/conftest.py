"""Fixtures shared by the tests of ssl_tasks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ONE_RANK = Path(__file__).parent / "training" / "one_rank.py"


class TwoRanks:
    """Two processes (or `world`) of one gloo group, started when first asked: importing torch takes seconds in each."""

    def __init__(self, folder: Callable[[], Path], world: int = 2) -> None:
        self.folder, self.world = folder, world
        self.processes: list[subprocess.Popen[str]] = []

    def run(self, file: Path, function: str) -> list[Any]:
        import torch

        if not self.processes:
            self._start()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{file}\t{function}\n")
            process.stdin.flush()
        answers = [process.stdout.readline().strip() for process in self.processes if process.stdout is not None]
        if not all(answers):
            errors = self.stop()
            pytest.fail(f"{function} failed in a rank:\n{errors}")
        return [torch.load(answer, weights_only=True) for answer in answers]

    def _start(self) -> None:
        folder = self.folder()
        path = os.pathsep.join(entry for entry in sys.path if entry)
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
        for rank in range(self.world):
            with open(folder / f"{rank}.log", "w") as log:
                command = [sys.executable, str(ONE_RANK), str(rank), str(self.world), str(folder)]
                pipe = subprocess.PIPE
                self.processes.append(
                    subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=log, text=True)
                )
        self.logs = [folder / f"{rank}.log" for rank in range(self.world)]

    def stop(self) -> str:
        """End all and give what they wrote to standard error."""
        for process in self.processes:
            process.kill()
            process.communicate()
        errors = "\n".join(log.read_text() for log in self.logs) if self.processes else ""
        self.processes = []
        return errors


@pytest.fixture(scope="session", autouse=True)
def shared_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ranks find the data that their test has made, or another one before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEXTFLOW_TEST_ARTIFACTS", str(tmp_path_factory.mktemp("artifacts")))
        yield


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoRanks]:
    ranks = TwoRanks(lambda: tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.stop()


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoRanks]:
    """Four, for one module alone: each holds half a gigabyte."""
    ranks = TwoRanks(lambda: tmp_path_factory.mktemp("four"), world=4)
    yield ranks
    ranks.stop()


@pytest.fixture
def run_ranks(two_ranks: TwoRanks, request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], list[Any]]:
    """`run_ranks(function)`: what a module-level function of the test's file returns in each of two ranks."""
    return lambda function: two_ranks.run(request.path, function.__name__)
