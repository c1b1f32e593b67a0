"""Faults at random instants of real runs; after each the run must end with the artifacts of one that nobody disturbed.

    python tests/faults/suite.py WORK_FOLDER [TIMES [SEED [FAULTS]]]         # 2 times each: an hour
    python tests/faults/suite.py WORK_FOLDER 0                               # the table of all that WORK_FOLDER has

Prints a line for each injection and then a table in Markdown of all injections that the folder knows, so that the
suite can be run in parts. A run that a fault has ended is continued by `pretextflow rerun`, three times at most. Exit
status 1 where a run could not be continued or hung, an artifact differs, Ctrl-C took longer than 5 s, or a process or a
placement group was left behind. What this machine lacks for a fault is said, and the fault is not injected.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import FAULTS, Fault, trains
from places import PLACES, Place, missing
from tests_runs import STEPS, Run, checksums, resumed_at, step_now, step_of, write_recipe

from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store

MOST_RERUNS = 3
MOST_MISSES = 3
"""A process that ends just before it is killed was none that a fault has struck: then once more."""
MINUTES_OF_A_RUN = 5
FOUND_FILE = "injections.jsonl"
COMPARED_WITH = {"poison": "unreadable"}
"""By place, another one than `folder` whose undisturbed run has the same artifacts, but for `NAMES_REASONS`."""
NAMES_REASONS = ("ingest", "clean", "report")
LOOK_SECONDS = 0.25


@dataclass
class Injection:
    """What came of one."""

    fault: str
    seed: int
    after_seconds: float
    struck: bool = True
    stages: int = 0
    step: int = 0
    """Finished stages, and steps of the training, when the fault struck."""
    by_itself: bool = False
    hung: bool = False
    reruns: int = 0
    recovered: bool = False
    lost_steps: int = 0
    seconds: float = 0.0
    """Longest time from the fault on without a new stage or step: starting again and steps made twice included."""
    seconds_to_end: float = 0.0
    load: float = 0.0
    """Of the machine when the fault struck: processes that want a core, averaged over a minute."""
    exit_seconds: float = 0.0
    """After Ctrl-C, until nothing holds the run's output any more."""
    late_seconds: float = 0.0
    """Longer than it may take to exit after Ctrl-C."""
    left: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    said: str = ""
    """The last words of a run that did not go well."""

    @property
    def whole(self) -> bool:
        return self.recovered and not (self.hung or self.left or self.differing)

    @property
    def good(self) -> bool:
        return self.whole and not self.late_seconds


@dataclass
class Undisturbed:
    """A run that nobody disturbs: its artifacts, and how long which fault could have struck it."""

    checksums: dict[str, str]
    windows: dict[str, float]


class Watch(threading.Thread):
    """Looks for the longest time without a new stage or step, and for the lowest step of the stage under way."""

    def __init__(self, store: str, stages: int, step: int) -> None:
        super().__init__(daemon=True)
        self.store, self.stages, self.lowest = store, stages, step
        self.began, self.standstill, self.done = time.monotonic(), 0.0, threading.Event()

    def run(self) -> None:
        """In its thread."""
        best, since = (self.stages, self.lowest), self.began
        while not self.done.wait(LOOK_SECONDS):
            try:
                found = len(checksums(self.store)), step_of(self.store)
            except (OSError, RequestError):  # a store that is away
                continue
            if found[0] == self.stages:
                self.lowest = min(self.lowest, found[1])
            if found > best:
                now = time.monotonic()
                best, since, self.standstill = found, now, max(self.standstill, now - since)


def inject(name: str, place: Place, seed: int, chance: random.Random, undisturbed: Undisturbed) -> Injection:
    """Disturb one run, continue it, and look at what is there."""
    fault, store = FAULTS[name], place.store
    run = place.run("run", str(place.recipe))
    found = Injection(name, seed, _wait(run, fault, undisturbed.windows[name], chance))
    found.stages, found.step = len(checksums(store)), step_now(store)
    reported, found.load = step_of(store), round(os.getloadavg()[0], 1)
    watch = Watch(store, found.stages, reported)
    watch.start()
    try:
        fault.strike(run, place, chance)
    except (LookupError, ProcessLookupError):
        found.struck = False  # it ended just before
    found.by_itself = found.recovered = _ends_well(run, found)
    if fault.exit_seconds is not None and found.struck:
        found.exit_seconds = time.monotonic() - watch.began
        found.late_seconds = max(0.0, found.exit_seconds - fault.exit_seconds)
    while not found.recovered and found.reruns < MOST_RERUNS and not found.hung:
        fault.heal(place)
        again = place.run("rerun") if _has_record(place) else place.run("run", str(place.recipe))
        found.reruns += 1
        found.recovered = _ends_well(again, found)
        found.left += tuple(again.left_behind())
    watch.done.set()
    watch.join()
    found.seconds, found.seconds_to_end = watch.standstill, time.monotonic() - watch.began
    fault.heal(place)
    found.left += (*run.left_behind(), *place.left())
    made = checksums(store)
    found.differing = tuple(stage for stage, sum_ in undisturbed.checksums.items() if made.get(stage) != sum_)
    if found.reruns or watch.lowest < reported:
        found.lost_steps = max(0, found.step - (resumed_at(store) or 0))
    return found


def _has_record(place: Place) -> bool:
    """Whether the run got so far as to have an id; before, there is nothing to be continued."""
    return any(name.endswith(".json") for name in Store(place.store).list("runs"))


def _ends_well(run: Run, found: Injection) -> bool:
    """Whether it exits with 0 within its time."""
    if run.process.returncode is None:
        try:
            run.wait(MINUTES_OF_A_RUN)
        except subprocess.TimeoutExpired:
            run.kill_group()
            found.hung = True
    if run.process.returncode != 0:
        found.said = f"exit {run.process.returncode}: " + getattr(run, "errors", b"").decode(errors="replace")[-300:]
    return run.process.returncode == 0


def _wait(run: Run, fault: Fault, window: float, chance: random.Random) -> float:
    """Until a random instant at which the fault can strike; seconds since the start."""
    began = time.monotonic()
    while run.process.poll() is None and not fault.ready(run):
        time.sleep(0.05)
    share, since = chance.random(), time.monotonic()

    def is_over() -> bool:
        if fault.ready is trains:  # a number of steps is the same on a machine that is busy
            return step_now(run.store) >= share * STEPS
        return time.monotonic() >= since + share * window

    while not is_over() and run.process.poll() is None:
        time.sleep(0.02)
    return round(time.monotonic() - began, 2)


def undisturbed_run(work: Path, recipe: Path, place_name: str) -> Undisturbed:
    """What `WORK_FOLDER` has of it from an earlier call, or from a run now."""
    folder = work / f"undisturbed-{place_name}"
    kept = folder / "undisturbed.json"
    if kept.exists():
        return Undisturbed(**json.loads(kept.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with PLACES[place_name](folder, recipe) as place:
        run = place.run("run", str(place.recipe))
        spans: dict[str, list[float]] = {}
        watch = threading.Thread(target=_look, args=(run, spans))
        watch.start()
        run.finish()
        watch.join()
        left_out = NAMES_REASONS if place_name != "folder" else ()
        made = {stage: sum_ for stage, sum_ in checksums(place.store).items() if stage not in left_out}
    windows = {name: 0.8 * (times[-1] - times[0]) for name, times in spans.items()}
    kept.write_text(json.dumps({"checksums": made, "windows": windows}, indent=1))
    return Undisturbed(made, windows)


def _look(run: Run, spans: dict[str, list[float]]) -> None:
    while run.process.poll() is None:
        for name, fault in FAULTS.items():
            if fault.ready(run):
                spans.setdefault(name, []).append(time.monotonic())
        time.sleep(LOOK_SECONDS)


def table(found: list[Injection]) -> str:
    """A line for each fault."""
    heads = ["fault", "injected", "recovered by itself", "by rerun", "most steps lost", "seconds to recover", "most"]
    heads += ["to exit, at most", "load"]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for name, fault in FAULTS.items():
        of = [one for one in found if one.fault == name and one.struck]
        if of:
            by_itself = sum(one.whole and one.by_itself for one in of)
            by_rerun = sum(one.whole and not one.by_itself for one in of)
            seconds, loads = [one.seconds for one in of], [one.load for one in of]
            to_exit = f"{max(one.exit_seconds for one in of):.1f}" if fault.exit_seconds is not None else ""
            cells: tuple[Any, ...] = (fault.title, len(of), by_itself, by_rerun, max(one.lost_steps for one in of))
            cells += (f"{statistics.median(seconds):.0f}", f"{max(seconds):.0f}", to_exit)
            cells += (f"{min(loads):.0f} to {max(loads):.0f}",)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(work: Path, times: int = 2, seed: int = 0, wanted: str = "") -> int:
    """Inject and print; the exit status."""
    work.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}", flush=True)
    recipe, known = write_recipe(work), work / FOUND_FILE
    bad = 0
    for name in (wanted.split(",") if wanted else FAULTS) if times else ():
        fault = FAULTS[name]
        if missing(fault.place):
            print(f"{name}: needs {missing(fault.place)}, did not run")
            continue
        whole = undisturbed_run(work, recipe, "folder")
        like = undisturbed_run(work, recipe, COMPARED_WITH[fault.place]) if fault.place in COMPARED_WITH else whole
        for number in range(times):
            folder = work / f"{name}-{number}"
            chance = random.Random(f"{seed} {name} {number}")
            for _ in range(MOST_MISSES):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                with PLACES[fault.place](folder, recipe) as place:
                    one = inject(name, place, seed, chance, Undisturbed(like.checksums, whole.windows))
                if one.struck or not one.good:
                    break
            with open(known, "a") as file:
                print(json.dumps(asdict(one)), file=file)
            print(json.dumps(asdict(one)), flush=True)
            bad += not one.good
            if one.good:
                shutil.rmtree(folder)
    found = [Injection(**json.loads(line)) for line in known.read_text().splitlines()] if known.exists() else []
    print(table(found))
    return 1 if bad else 0


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    times, seed = (int(rest[place]) if len(rest) > place else default for place, default in enumerate((2, 0)))
    sys.exit(main(Path(folder).absolute(), times, seed, rest[2] if len(rest) > 2 else ""))
