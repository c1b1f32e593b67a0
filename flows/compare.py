"""Run one recipe with several methods, each as a run of its own, and gather what they measured.

Runs are processes: a method that collapses or exhausts the memory ends its own run and not the comparison. They share
the data stages through the store, and one Prefect server.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from flows.interrupt import GRACE_SECONDS, PARENT
from flows.plan import make_plan
from flows.preflight import check_request
from flows.recipe import Recipe, load_recipe, require_pretraining
from flows.server import python_path
from flows.stored import open_to_read
from ssl_tasks.config import StrictLoader
from ssl_tasks.errors import RequestError
from ssl_tasks.report.ranking import Outcome

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Candidate:
    """A name, and what its recipe does otherwise than the given one."""

    name: str
    overrides: tuple[str, ...]
    """As for --set."""


def candidates(methods: str | None, file: Path | None, *, command: str = "compare") -> list[Candidate]:
    """What to compare: `a,b,c` as methods with their defaults, and those of a file.

    Raises:
        RequestError: nothing is asked for, a name comes twice, or the file is none of candidates.
    """
    names = [name.strip() for name in (methods or "").split(",") if name.strip()]
    found = [Candidate(name, (f"pretrain.method.name={name}",)) for name in names]
    found += _from_file(file) if file else []
    if not found:
        raise RequestError(f"{command}: name the methods, as in --methods simclr,byol, or a file of --candidates")
    counted = [candidate.name for candidate in found]
    twice = sorted({name for name in counted if counted.count(name) > 1})
    if twice:
        raise RequestError(f"{command}: {', '.join(twice)} is asked for twice; give each candidate a name of its own")
    return found


def _from_file(file: Path) -> list[Candidate]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RequestError(f"{file}: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not all(isinstance(changes, dict) for changes in data.values()):
        raise RequestError(
            f"{file}: a file of candidates gives each name the sections that it changes, as in "
            "`mae: {pretrain: {backbone: test_vit, method: {name: mae}}}`"
        )
    return [Candidate(str(name), tuple(_flat(changes))) for name, changes in data.items()]


def _flat(changes: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in changes.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(value)}"


@dataclass(frozen=True)
class Trial:
    """One run to be made."""

    candidate: Candidate
    seed: int
    recipe: Recipe
    arguments: tuple[str, ...]
    """Of `pretextflow run`."""


def trials(
    recipe: str, chosen: Sequence[Candidate], overrides: Sequence[str], store: str | None, seeds: int
) -> list[Trial]:
    """Every candidate with every pretraining seed, from the recipe's own on; each one is checked.

    Raises:
        RequestError: names the candidate whose recipe is wrong.
    """
    require_pretraining(load_recipe(recipe, overrides, store=store), "compare")
    made = []
    for candidate in chosen:
        settings = (*overrides, *candidate.overrides)
        with naming(candidate):
            first = load_recipe(recipe, settings, store=store).pretrain.seed  # type: ignore[attr-defined]  # a section
            for seed in range(first, first + seeds):
                own = (*settings, f"pretrain.seed={seed}")
                checked = load_recipe(recipe, own, store=store)
                options = tuple(itertools.chain.from_iterable(("--set", setting) for setting in own))
                made.append(Trial(candidate, seed, checked, (recipe, *options, "--store", checked.store)))
    return made


def check(wanted: Sequence[Trial]) -> None:
    """Refuse what no stage that is to run could do, once for each candidate: seeds make no difference.

    Raises:
        RequestError: names the candidate.
    """
    for trial in {trial.candidate: trial for trial in wanted}.values():
        with naming(trial.candidate):
            entries = make_plan(trial.recipe, open_to_read(trial.recipe.store))
            check_request(trial.recipe, [entry for entry in entries if entry.status != "cached"])


@contextlib.contextmanager
def naming(candidate: Candidate) -> Iterator[None]:
    """Around what may refuse a candidate's recipe: the message starts with its name."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"candidate {candidate.name}: {error}") from error


@dataclass
class Runner:
    """Runs trials, some at a time, and ends what it started."""

    jobs: int
    told: Callable[[Trial, dict[str, Any]], None]
    """Called with each trial's answer, in the order they end."""
    running: dict[int, tuple[subprocess.Popen[str], IO[str]]] = field(default_factory=dict)
    """By the trial's place: the process, and the file that it writes its answer to."""

    def run(self, wanted: Sequence[Trial]) -> list[Outcome]:
        """All outcomes, in the order of `wanted`; call it on the main thread, with which the processes end."""
        answers: dict[int, dict[str, Any]] = {}
        waiting = list(range(len(wanted)))
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.jobs:
                    place = waiting.pop(0)
                    self.running[place] = self._start(wanted[place])
                for place in [place for place, (process, _) in self.running.items() if process.poll() is not None]:
                    answers[place] = _answer(*self.running.pop(place))
                    self.told(wanted[place], answers[place])
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
        return [_outcome(trial, answers[place]) for place, trial in enumerate(wanted)]

    def _start(self, trial: Trial) -> tuple[subprocess.Popen[str], IO[str]]:
        command = [sys.executable, "-m", "flows.cli", "run", *trial.arguments, "--json"]
        written = tempfile.TemporaryFile("w+", prefix="pretextflow-compare-")  # noqa: SIM115 - closed by _answer
        # alone a run may show its progress; several would write over each other
        errors = None if self.jobs == 1 else subprocess.DEVNULL
        # a session of its own: a terminal's Ctrl-C is for the comparison, which passes it on
        process = subprocess.Popen(
            command, env=_environment(), stdout=written, stderr=errors, text=True, start_new_session=True
        )
        return process, written

    def _stop(self) -> None:
        """End what still runs, as Ctrl-C would."""
        deadline = time.monotonic() + 0.9 * GRACE_SECONDS
        for process, _ in self.running.values():
            process.send_signal(signal.SIGINT)
        for process, written in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            written.close()
        self.running.clear()


def _answer(process: subprocess.Popen[str], written: IO[str]) -> dict[str, Any]:
    with written:
        written.seek(0)
        lines = written.read().splitlines()
    if not lines:
        return {"state": "failed", "error": f"the run's process ended with {process.returncode} and left no answer"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": python_path(), PARENT: str(os.getpid())}


def _outcome(trial: Trial, answer: Mapping[str, Any]) -> Outcome:
    pretrain: Any = getattr(trial.recipe, "pretrain", None)
    return Outcome(
        candidate=trial.candidate.name,
        method=pretrain.method.name,
        backbone=pretrain.backbone,
        seed=trial.seed,
        batch_size=pretrain.batch_size,
        state=str(answer.get("state")),
        error=answer.get("error"),
        metrics=answer.get("metrics") or {},
        report=answer.get("report"),
    )
