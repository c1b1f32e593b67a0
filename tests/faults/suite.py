"""Faults at random instants of real runs; after each the run must end with the artifacts of one that nobody disturbed.

    python tests/faults/suite.py WORK_FOLDER [TIMES [SEED [FAULTS]]]         # 3 times each: an hour and more

Prints a table in Markdown and, before it, a line for each injection. A run that a fault has ended is continued by
`pretextflow rerun`, three times at most. Exit status 1 where a run could not be continued, an artifact differs, or a
process was left behind. The faults of a store need root, for a file system of their own, and are named where they did
not run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import FAULTS, Fault
from tests_runs import Run, checksums, resumed_at, step_of, write_recipe

MOST_RERUNS = 3
DISK = "size=256m"


@dataclass
class Injection:
    """What came of one."""

    fault: str
    after_seconds: float
    struck: bool = True
    step: int = 0
    """Of the training, when the fault struck."""
    by_itself: bool = False
    reruns: int = 0
    recovered: bool = False
    lost_steps: int = 0
    seconds: float = 0.0
    """From the fault until all was done."""
    left: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.recovered and not self.left and not self.differing


def inject(name: str, store: Path, whole: float, chance: random.Random, undisturbed: dict[str, str]) -> Injection:
    """Disturb one run, continue it, and look at what is there.

    Args:
        whole: seconds of a run that nobody disturbs.
    """
    fault = FAULTS[name]
    run = Run(store, "run", str(store.parent / "faults.yaml"))
    found = Injection(name, _wait(run, fault, whole, chance))
    found.step = step_of(store)
    try:
        fault.strike(run, chance)
    except (LookupError, ProcessLookupError):
        found.struck = False  # it ended just before
    began = time.monotonic()
    found.by_itself = found.recovered = run.process.returncode is None and run.wait() == 0
    while not found.recovered and found.reruns < MOST_RERUNS:
        fault.heal(store)
        again = Run(store, "rerun")
        found.reruns += 1
        found.recovered = again.wait() == 0
        found.left += tuple(again.left_behind())
    found.seconds = time.monotonic() - began
    fault.heal(store)
    found.left += tuple(run.left_behind())
    made = checksums(store)
    found.differing = tuple(stage for stage in undisturbed if made.get(stage) != undisturbed[stage])
    resumed = resumed_at(store)
    found.lost_steps = max(0, found.step - (resumed or 0)) if found.reruns or resumed is not None else 0
    return found


def _wait(run: Run, fault: Fault, whole: float, chance: random.Random) -> float:
    """Until a random instant at which the fault can strike; seconds since the start."""
    began = time.monotonic()
    while run.process.poll() is None and not fault.ready(run):
        time.sleep(0.05)
    left = whole - (time.monotonic() - began)
    deadline = time.monotonic() + chance.random() * max(1.0, 0.9 * left)
    while time.monotonic() < deadline and run.process.poll() is None:
        time.sleep(0.01)
    return round(time.monotonic() - began, 2)


def table(found: list[Injection]) -> str:
    """A line for each fault."""
    heads = ("fault", "injected", "went on by itself", "recovered by rerun", "steps lost", "seconds to the end")
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for name, fault in FAULTS.items():
        of = [one for one in found if one.fault == name and one.struck]
        if of:
            by_itself = sum(one.by_itself for one in of)
            by_rerun = sum(one.good and not one.by_itself for one in of)
            lost, seconds = max(one.lost_steps for one in of), statistics.median(one.seconds for one in of)
            cells = (fault.title, len(of), by_itself, f"{by_rerun} of {len(of) - by_itself}", lost, f"{seconds:.0f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(work: Path, times: int = 3, seed: int = 0, wanted: str = "") -> int:
    """Inject and print; the exit status."""
    work.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}")
    chance, recipe = random.Random(seed), write_recipe(work)
    began = time.monotonic()
    Run(work / "whole", "run", str(recipe)).finish()
    whole, undisturbed = time.monotonic() - began, checksums(work / "whole")
    found: list[Injection] = []
    for name in wanted.split(",") if wanted else FAULTS:
        if FAULTS[name].small_disk and os.geteuid() != 0:
            print(f"{name}: needs root, did not run")
            continue
        for number in range(times):
            store = work / f"{name}-{number}"
            _prepare(store, FAULTS[name])
            found.append(inject(name, store, whole, chance, undisturbed))
            print(json.dumps(asdict(found[-1])), flush=True)
            _remove(store, FAULTS[name])
    print(table(found))
    return 0 if all(one.good for one in found) else 1


def _prepare(store: Path, fault: Fault) -> None:
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    if fault.small_disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(store)], check=True)


def _remove(store: Path, fault: Fault) -> None:
    if fault.small_disk:
        subprocess.run(["umount", "--lazy", str(store)], check=True)
    shutil.rmtree(store)


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    times, seed = (int(rest[place]) if len(rest) > place else default for place, default in enumerate((3, 0)))
    sys.exit(main(Path(folder).absolute(), times, seed, rest[2] if len(rest) > 2 else ""))
