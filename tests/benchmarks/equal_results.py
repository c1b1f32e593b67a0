"""Loss curves over 50 steps for 1, 2 and 4 workers, by method and precision, as a table.

    python tests/benchmarks/equal_results.py [STEPS] [CASE ...]       some minutes; status 1 where one differs too much

The real training loop over gloo, fed by `make_views` in each process; samples and views are compared too, bit for bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
WORLDS = (1, 2, 4)


def curve(name: str, steps: int, world: int) -> list[float]:
    """The losses of rank 0 among `world` processes."""
    with tempfile.TemporaryDirectory() as folder:
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        }
        command = [sys.executable, "-W", "ignore::FutureWarning", __file__, "--rank", name, str(steps)]
        ranks = [
            subprocess.Popen(
                [*command, str(rank), str(world), folder],
                stdout=subprocess.PIPE, text=True, env=env,
            )
            for rank in range(world)
        ]  # fmt: skip
        answers = [process.communicate()[0] for process in ranks]
        if any(process.returncode for process in ranks):
            sys.exit(f"{name}: a rank of {world} failed")
    found: list[float] = json.loads(answers[0].splitlines()[-1])
    return found


def as_rank(name: str, steps: int, rank: int, world: int, folder: str) -> None:
    """One rank: prints its losses."""
    from tests_equal import losses
    from torch import distributed

    if world > 1:
        store = distributed.FileStore(f"{folder}/rendezvous", world)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    print(json.dumps(losses(name, steps)))


def views_differ(name: str, steps: int) -> int:
    """Number of steps whose rows or views differ between 1, 2 and 4 workers."""
    import numpy as np
    from tests_equal import CASES
    from tests_loop import make_job

    from ssl_tasks.training.views import make_views

    job, bad = make_job(**CASES[name].options), 0
    for step in range(steps):
        whole = make_views(job, step, 0, 1)
        for world in WORLDS[1:]:
            parts = [make_views(job, step, rank, world) for rank in range(world)]
            same = all(np.array_equal(np.concatenate([p[key] for p in parts]), whole[key]) for key in whole)
            bad += not same
    return bad


def main(steps: int, wanted: list[str]) -> int:
    """Print a line for each case as it is done."""
    from tests_equal import CASES
    from tests_loop import STORE

    os.environ.setdefault(STORE, tempfile.mkdtemp())
    print(f"{'case':24} {'tolerance':>9} {'2 workers':>10} {'4 workers':>10}   loss first to last  views that differ")
    worst = 0
    for name, case in CASES.items():
        if wanted and name not in wanted:
            continue
        alone = curve(name, steps, 1)
        apart = [max(abs(a - b) for a, b in zip(alone, curve(name, steps, world), strict=True)) for world in WORLDS[1:]]
        differ = views_differ(name, steps)
        failed = max(apart) > case.tolerance or differ > 0
        worst |= failed
        cells = " ".join(f"{value:10.1e}" for value in apart)
        course = f"{alone[0]:.4f} to {alone[-1]:.4f}"
        print(f"{name:24} {case.tolerance:9.0e} {cells}   {course:18}  {differ}{'  FAILED' * failed}", flush=True)
    return worst


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        as_rank(sys.argv[2], *map(int, sys.argv[3:6]), sys.argv[6])
    else:
        sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 50, sys.argv[2:]))
