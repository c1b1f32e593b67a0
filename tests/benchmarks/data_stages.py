"""How long the way from many small JPEG files to a split takes, and how much memory. Prints one JSON object.

    python tests/benchmarks/data_stages.py [NUM_FILES ...]        # 5000 50000 200000

CIFAR-10 is unpacked from `$PRETEXTFLOW_TEST_DATA/cifar10.tar.gz` (`../shared/data` beside the checkout where that is
not set); beyond its 50,000 train images stand the same turned and mirrored, which are other pictures and no
duplicates. Each number of files is measured in a process of its own: a first listing, a second one, then the stages
ingest, clean (near duplicates included), assign, normalize and split with all that a run does for them. Memory is
what the process has for itself (USS), sampled while these run, without clean pages: those of torch's libraries, 200
MB, count as private only as long as nobody else on the machine has them mapped.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ARCHIVE = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or ROOT.parent / "shared" / "data") / "cifar10.tar.gz"
SAMPLE_SECONDS = 0.02


def private_bytes() -> int:
    """Private memory of this process that is its own, in bytes."""
    with open("/proc/self/smaps_rollup") as stream:
        (size,) = (int(line.split()[1]) for line in stream if line.startswith("Private_Dirty:"))
    return 1024 * size


class Peak:
    """The most private memory while a `with` block runs."""

    def __enter__(self) -> Peak:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, private_bytes())

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(folder: str, store_uri: str) -> dict[str, Any]:
    """List `folder` twice and run the data stages on it, in this process."""
    from ssl_tasks import modalities
    from ssl_tasks.materialize import materialize
    from ssl_tasks.stages import assign, clean, ingest, normalize, split
    from ssl_tasks.store import Store

    modalities.modality("image")  # torch's import is no part of it
    store = Store.open(store_uri)
    config = ingest.IngestConfig(path=folder)
    seconds: dict[str, float] = {}
    made: dict[str, Any] = {}
    with Peak() as peak:
        for name in ("listing_cold", "listing_warm"):
            began = time.monotonic()
            source = ingest.source(config)
            seconds[name] = time.monotonic() - began
        fingerprints: dict[str, str] = {}
        for stage in (ingest.STAGE, clean.STAGE, assign.STAGE, normalize.STAGE, split.STAGE):
            began = time.monotonic()
            settings = config if stage is ingest.STAGE else stage.config()
            fingerprints[stage.name] = stage.fingerprint(settings, fingerprints, source if not stage.inputs else None)
            done = materialize(store, stage, settings, made, fingerprint=fingerprints[stage.name])
            made[stage.name] = done.artifact
            seconds[stage.name] = time.monotonic() - began
    cleaned = made["clean"].measured
    return {
        "files": made["ingest"].rows,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "seconds_in_all": round(sum(value for name, value in seconds.items() if name != "listing_warm"), 1),
        "near_pairs": cleaned["near_pairs"],
        "compared_pairs": cleaned["compared_pairs"],
        "private_mb": round(peak.bytes / 1e6, 1),
    }


def in_child(folder: Path, work: Path) -> dict[str, Any]:
    """`measure` in a process of its own, with an empty cache."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(work / f"cache-{folder.name}")}
    command = [sys.executable, __file__, "--measure", str(folder), str(work / f"store-{folder.name}")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_folder(folder: Path, images: Path, count: int) -> None:
    """`count` files in class folders: those of `images`, then the same in other positions."""
    import numpy as np
    import simplejpeg

    paths = sorted(images.glob("*/*.jpg"))
    assert count <= 8 * len(paths), "a square has eight positions"
    for number, path in zip(range(count), itertools.cycle(paths), strict=False):
        place = folder / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        data, position = path.read_bytes(), number // len(paths)
        if position:
            pixels = np.rot90(simplejpeg.decode_jpeg(data), position % 4)
            pixels = pixels[:, ::-1] if position >= 4 else pixels
            data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=92)
        (place / f"{position}-{path.name}").write_bytes(data)


def growth(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Between one number of files and the next: bytes of private memory, together and a row."""
    for less, more in itertools.pairwise(found):
        grown = (more["private_mb"] - less["private_mb"]) * 1e6
        rows = more["files"] - less["files"]
        yield {"from": less["files"], "to": more["files"], "mb": round(grown / 1e6, 1), "per_row": round(grown / rows)}


def main(counts: list[int]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(work, filter="data")
        found = []
        for count in counts:
            make_folder(work / str(count), work / "cifar10" / "train", count)
            found.append(in_child(work / str(count), work))
    print(json.dumps({"cores": os.cpu_count(), "measured": found, "growth": list(growth(found))}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main([int(count) for count in sys.argv[1:]] or [5_000, 50_000, 200_000])
