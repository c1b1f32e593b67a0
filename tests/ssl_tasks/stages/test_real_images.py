"""The data stages on real images: broken files, orientations, two domains, CIFAR-10's near duplicates."""

import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from real_data import unpack

from ssl_tasks.modalities.image.decoding import decode, quietly
from ssl_tasks.modalities.image.looks import thumbnail
from ssl_tasks.store import Store


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("dirty_images.tar.gz", tmp_path_factory.mktemp("dirty")) / "dirty_images"


class Peak:
    """How far the process's resident memory rises while a block runs, in bytes."""

    def __enter__(self) -> "Peak":
        self.before = self.most = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _now(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, self._now())

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def test_every_broken_file_is_read_as_others_read_it_or_has_a_reason(store: Store, dirty: Path, chain: Any) -> None:
    sections = {"ingest": {"path": str(dirty / "broken")}, "clean": {"error_budget": 1.0}}
    with Peak() as peak:
        made = chain(store, {**sections, "normalize": {"size": 64}}, until="normalize")
    sources = made["ingest"].table("rows.parquet")["source"].to_pylist()
    assert len(sources) == 49
    quarantine = made["clean"].table("quarantine.parquet").to_pylist()
    rejected = {row["source"]: row for row in quarantine if row["severity"] == "rejected"}
    assert all(row["reason"] and row["detail"] for row in rejected.values())
    assert set(Counter(row["reason"] for row in rejected.values())) <= {"unreadable", "truncated", "corrupt"}
    read = sorted(set(sources) - set(rejected))
    assert 3 <= len(read) <= 6
    for name in read:
        data = (dirty / "broken" / name).read_bytes()
        theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(np.broadcast_to(decode(data).pixels, theirs.shape), theirs)
    assert made["normalize"].rows == len(read)
    assert peak.most - peak.before < 400 << 20


@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_every_orientation_comes_out_upright(dirty: Path, kind: str) -> None:
    upright = thumbnail(decode((dirty / "orientation" / f"{kind}_1.jpg").read_bytes()).pixels).astype(int)
    for number in range(9):
        pixels = decode((dirty / "orientation" / f"{kind}_{number}.jpg").read_bytes()).pixels
        assert pixels.shape[:2] == ((1200, 1800) if kind == "Landscape" else (1800, 1200))
        assert np.abs(thumbnail(pixels).astype(int) - upright).mean() < 1.5


def test_folders_name_domain_split_and_label(store: Store, tmp_path: Path, chain: Any) -> None:
    root = unpack("digits_shift.tar.gz", tmp_path, lambda name: "/test/" in name) / "digits_shift"
    ingest = {"path": str(root), "folders": ["domain", "split", "label"]}
    sections = {"ingest": ingest, "clean": {"near_duplicates": None}, "normalize": {"size": 28}}
    made = chain(store, sections, until="clean")
    rows = made["ingest"].table("rows.parquet")
    assert Counter(rows["domain"].to_pylist()) == {"mnist": 1000, "usps": 2007}
    assert set(rows["split"].to_pylist()) == {"test"}
    assert set(rows["label"].to_pylist()) == set("0123456789")


@pytest.fixture
def ships(tmp_path: Path) -> Path:
    """Two classes of CIFAR-10, which have more near duplicates than others."""
    return unpack("cifar10.tar.gz", tmp_path, lambda name: "/automobile/" in name or "/ship/" in name) / "cifar10"


def test_no_known_near_duplicate_is_left_across_given_splits(store: Store, ships: Path, chain: Any) -> None:
    sections = {"ingest": {"path": str(ships)}, "normalize": {"size": 32}}
    made = chain(store, sections, until="split")
    assert made["ingest"].rows == 12_000
    assert made["split"].measured["leaked_as_given"] >= 20
    assert made["split"].measured["leaked_test_rows"] == 0
    assert made["split"].measured["splits"]["test"] == 2000  # test is never altered
    split_of = {row["row"]: row["split"] for row in made["split"].table("splits.parquet").to_pylist()}
    pairs = [(pair["row"], pair["other"]) for pair in made["clean"].table("duplicates.parquet").to_pylist()]
    assert len(pairs) >= 100
    assert all(split_of[first] == split_of[second] for first, second in pairs if {first, second} <= split_of.keys())
    taken_out = made["assign"].table("quarantine.parquet").to_pylist()
    assert {row["reason"] for row in taken_out} == {"duplicate_of_test"}
    assert all(row["thumbnail"] for row in taken_out)


def test_photographs_are_stored_as_pillow_would_store_them(tmp_path: Path) -> None:
    from ssl_tasks.modalities.image.resize import stored

    for path in sorted(unpack("photos.tar", tmp_path).rglob("*.jpg"))[:6]:
        data = path.read_bytes()
        with quietly():
            ours = stored(decode(data, least=96).pixels, 64, 3, "uint8", "crop").astype(int)
            upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        theirs = np.asarray(ImageOps.fit(upright, (64, 64), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(ours - theirs).mean() < 4
