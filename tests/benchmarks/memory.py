"""How the memory of a whole run grows with its rows, by stage and by kind of process. Prints JSON.

    python tests/benchmarks/memory.py images|table WORK [NUM_ROWS ...]    # 50000 1000000; 3 GB in WORK

Parquet files are made, of different JPEG images of 8 x 8 pixels or of eight columns of numbers, with as many labelled
rows (2,000, of two classes) whatever the number of rows, and `pretextflow run` goes from ingest to the report by
`memory_images.yaml` or `memory_table.yaml`: near duplicates of images, 100 steps of SimCLR (SCARF), embeddings of all
rows, a linear probe and kNN beside all baselines. Meanwhile the private memory of every process of the run is looked at
ten times a second: what it has for itself (Private_Dirty of smaps_rollup), without the clean pages of mapped files. A
process is known by a variable of its environment, and stages by the times in their manifests. The aim: from 50,000 to
1,000,000 rows no process grows by more than 10% and 64 bytes a row.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE_ROWS, LABELLED, SIDE, COLUMNS = 50_000, 2_000, 8, 8
LOOK_SECONDS = 0.1
MARK = "PRETEXTFLOW_MEMORY_BENCHMARK"
SHARE, BYTES_A_ROW = 0.10, 64
KINDS = (
    (r"flows\.cli", "driver"),
    (r"cluster/reaper", "watch over Ray"),
    (r"^ray::.*TrainWorker|^ray::_RayTrainWorker", "Ray: train worker"),
    (r"^ray::.*(Map|Read|load|IDLE)", "Ray: feed worker"),
    (r"^ray::", "Ray: other actors"),
    (r"raylet/raylet", "Ray: raylet and object store"),
    (r"gcs_server", "Ray: GCS"),
    (r"ray", "Ray: agents"),
    (r"prefect|uvicorn", "Prefect server"),
)
"""By the command line, the first that fits. A worker of Ray is idle before and after its tasks."""

Peaks = dict[tuple[str, str], float]
"""Megabytes by stage and kind of process."""


def make_data(kind: str, folder: Path, num_rows: int) -> None:
    """Write Parquet files, every `num_rows / LABELLED`-th row with a label."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    every = num_rows // LABELLED
    for first in range(0, num_rows, FILE_ROWS):
        rows = np.arange(first, min(first + FILE_ROWS, num_rows))
        random = np.random.Generator(np.random.Philox(key=first))
        is_left = rows // every % 2 == 0
        columns = images(random, is_left) if kind == "images" else numbers(random, is_left)
        names = pa.array(np.where(is_left, "left", "right"), pa.string())
        labels = pa.array(names.to_pylist(), pa.string(), mask=rows % every != 0)
        table = pa.table({**columns, "label": labels})
        pq.write_table(table, folder / f"{first:08d}.parquet", compression="none", row_group_size=2_000)


def images(random: Any, is_left: Any) -> dict[str, Any]:
    """Noise with one half darker."""
    import numpy as np
    import pyarrow as pa
    import simplejpeg

    pixels = random.integers(0, 256, (len(is_left), SIDE, SIDE, 3), dtype=np.uint8)
    pixels[is_left, :, SIDE // 2 :] //= 2  # much darker ones would be near duplicates of each other
    pixels[~is_left, :, : SIDE // 2] //= 2
    return {"image": pa.array([simplejpeg.encode_jpeg(image, quality=95) for image in pixels], pa.large_binary())}


def numbers(random: Any, is_left: Any) -> dict[str, Any]:
    """Columns of which the first tells the classes apart."""
    values = random.normal(size=(len(is_left), COLUMNS)).round(4)
    values[:, 0] += is_left
    return {f"x{number}": column for number, column in enumerate(values.T)}


class Looker:
    """Samples of the private memory of all processes with a mark in their environment."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.samples: list[tuple[float, str, int]] = []
        """Time, kind of process, bytes of the largest of that kind."""
        self._ours: dict[tuple[str, str], bool] = {}

    def look(self) -> None:
        """Take a sample of each kind."""
        now, largest = time.time(), dict[str, int]()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has ended
                if self._is_ours(pid):
                    kind = self._kind(pid)
                    largest[kind] = max(largest.get(kind, 0), _private(pid))
        self.samples += [(now, kind, size) for kind, size in largest.items()]

    def _is_ours(self, pid: str) -> bool:
        born = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        key = pid, born
        if not self._ours.get(key):  # looked at again: between fork and exec it has its parent's environment
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            self._ours[key] = f"{MARK}={self.mark}".encode() in environment
        return self._ours[key]

    def _kind(self, pid: str) -> str:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        return next((kind for pattern, kind in KINDS if re.search(pattern, command)), f"other: {command[:60]}")


def _private(pid: str) -> int:
    """Bytes that are a process's own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Private_Dirty:\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def run(kind: str, work: Path, num_rows: int) -> dict[str, Any]:
    """A run and what its processes held at most, in each stage."""
    folder, store = work / f"rows-{num_rows}", work / f"store-{num_rows}"
    if not folder.exists():
        make_data(kind, folder, num_rows)
    looker = Looker(f"{os.getpid()} {num_rows}")  # others may measure beside this
    env = {**os.environ, "PREFECT_HOME": str(work / "prefect"), "PYTHONPATH": str(ROOT), MARK: looker.mark}
    env["XDG_CACHE_HOME"] = str(work / "cache")
    command = [sys.executable, "-m", "flows.cli", "run", str(Path(__file__).with_name(f"memory_{kind}.yaml")), "--json"]
    command += ["--store", str(store), "--set", f"ingest.path={folder}"]
    began = time.time()
    with open(work / f"run-{num_rows}.log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            looker.look()
            time.sleep(LOOK_SECONDS)
    assert process.returncode == 0, f"the run ended with {process.returncode}; see {log.name}"
    stages = sorted(_stages(store, began), key=lambda stage: stage[1])
    return {"rows": num_rows, "seconds": {name: round(end - start, 1) for name, start, end in stages}} | {
        "megabytes": _by_stage(looker.samples, stages)
    }


def _stages(store: Path, began: float) -> Iterator[tuple[str, float, float]]:
    """Name, start and end of the stages that ran."""
    for path in glob.glob(f"{store}/objects/*/manifest.json"):
        manifest = json.loads(Path(path).read_text())
        if manifest["started"] >= began:
            yield manifest["stage"], manifest["started"], manifest["started"] + manifest["seconds"]


def _by_stage(samples: list[tuple[float, str, int]], stages: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Peaks; between stages a process may still hold what the last one has left."""
    found: dict[str, dict[str, float]] = {name: {} for name, *_ in stages}
    for now, kind, size in samples:
        stage = next((name for name, start, end in stages if start <= now <= end), "between stages")
        peaks = found.setdefault(stage, {})
        peaks[kind] = max(peaks.get(kind, 0.0), round(size / 1e6, 1))
    return found


def growth(less: dict[str, Any], more: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What each process has more in each stage, and by how much that is beyond the aim."""
    rows = more["rows"] - less["rows"]
    for stage, peaks in more["megabytes"].items():
        for kind, peak in peaks.items():
            before = less["megabytes"].get(stage, {}).get(kind)
            if before is None:  # it was not seen there
                continue
            yield {
                "stage": stage,
                "process": kind,
                "megabytes": [before, peak],
                "bytes_a_row": round(1e6 * (peak - before) / rows, 1),
                "within": peak <= (1 + SHARE) * before + BYTES_A_ROW * rows / 1e6,
            }


def main(kind: str, work: Path, counts: list[int]) -> None:
    """Measure and print."""
    found = []
    for count in counts:
        found.append(run(kind, work, count))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        for name in (f"rows-{count}", f"store-{count}"):
            shutil.rmtree(work / name)
    grown = [line for less, more in itertools.pairwise(found) for line in growth(less, more)]
    print(json.dumps({"kind": kind, "cores": os.cpu_count(), "measured": found, "growth": grown}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(count) for count in sys.argv[3:]] or [50_000, 1_000_000])
