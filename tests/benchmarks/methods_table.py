"""Every method on the digits, a small CIFAR-10 and captioned pictures: the tables of ssl_tasks/methods/README.md.

    python tests/benchmarks/methods_table.py WORK_FOLDER [digits|cifar10|captioned|all] [NUM_SEEDS]

Prints Markdown, after hours on two cores. A row is one candidate of methods_digits.yaml, methods_cifar10.yaml or
methods_captioned.yaml: NUM_SEEDS pretrainings, five draws of labels each. Two runs go side by side, one thread each, so
that rows/s is of one core beside a busy one. Stopped and called again, it goes on where it was. CIFAR-10 is the archive
of PRETEXTFLOW_TEST_DATA (by default ../shared/data beside the checkout): the first 500 train and 200 test files of each
class, by name. The captioned pictures are those of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

from ssl_tasks.report.comparison import table
from ssl_tasks.report.ranking import Line, Score

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PER_CLASS = {"train": 500, "test": 200}
NUM_PICTURES = 2500
NO_BASELINE = ["--set", "transfer.scratch.steps=1", "--set", "transfer.scratch.learning_rates=[0.003]"]
"""Training from scratch knows nothing of the method, and takes longer than everything else of transfer."""


def subset(work: Path) -> Path:
    """The folder of the chosen files, unpacked once."""
    target = work / "cifar10_5000"
    if not target.exists():
        archive = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or ROOT.parent / "shared" / "data") / "cifar10.tar.gz"
        with tarfile.open(archive) as packed:
            seen: Counter[tuple[str, ...]] = Counter()
            chosen = []
            for member in sorted(packed.getmembers(), key=lambda member: member.name):
                split, *label = Path(member.name).parts[1:-1] or [""]
                seen[split, *label] += 1
                if member.isfile() and seen[split, *label] <= PER_CLASS.get(split, 0):
                    chosen.append(member)
            in_place = sorted(chosen, key=lambda member: member.offset)  # an archive is read forwards
            packed.extractall(work / "unpacking", in_place, filter="data")
        (work / "unpacking" / "cifar10").rename(target)
    return target


def pictures(work: Path) -> Path:
    """The list of pictures with captions, drawn once."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tests_captioned import captioned

    folder = work / "captioned"
    return folder / "list.csv" if (folder / "list.csv").exists() else captioned(folder, NUM_PICTURES)


def compare(work: Path, recipe: str, candidates: str, settings: list[str], seeds: int) -> list[Line]:
    """Every candidate's line, also where some candidates failed: those have none."""
    command = [sys.executable, "-m", "flows.cli", "compare", recipe, "--candidates", str(HERE / candidates), "--json"]
    command += ["--store", str(work / "store"), "-o", str(work / f"{Path(candidates).stem}.html"), *settings]
    command += ["--jobs", "2", "--seeds", str(seeds)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return [Line(**{**line, "scores": [Score(**score) for score in line["scores"]]}) for line in answer["lines"]]


def markdown(lines: list[Line]) -> str:
    """The table, and below it what failed."""
    names, rows = table(lines, intervals=True)
    cells = [names, ["---"] * len(names), *([f"`{row[0]}`", *row[1:]] for row in rows)]
    failed = [f"`{line.candidate}`: {error}" for line in lines for error in line.errors]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in cells), "", *failed])


def main(work: Path, which: str = "all", seeds: int = 3) -> None:
    """Compare and print."""
    work.mkdir(parents=True, exist_ok=True)
    if which in ("digits", "all"):
        settings = [*NO_BASELINE, "--set", "pretrain.threads=1"]
        print(markdown(compare(work, "digits", "methods_digits.yaml", settings, seeds)), flush=True)
    if which in ("cifar10", "all"):
        settings = ["--set", f"ingest.path={subset(work)}"]
        recipe = str(HERE / "cifar10_5000.yaml")
        print(markdown(compare(work, recipe, "methods_cifar10.yaml", settings, seeds)), flush=True)
    if which in ("captioned", "all"):
        settings = ["--set", f"ingest.path={pictures(work)}"]
        recipe = str(HERE / "captioned.yaml")
        print(markdown(compare(work, recipe, "methods_captioned.yaml", settings, seeds)), flush=True)


if __name__ == "__main__":
    arguments = dict(zip(("which", "seeds"), sys.argv[2:], strict=False))
    main(Path(sys.argv[1]).absolute(), arguments.get("which", "all"), int(arguments.get("seeds", 3)))
