"""What the tests of sources share: small real images, and everything that a source gives as plain values."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_tasks import modalities
from ssl_tasks.sources.base import Source
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.detect import open_source


def make_png(number: int) -> bytes:
    """A small image; others for other numbers."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def open_images(path: Path, **keys: Any) -> Source:
    return open_source(SourceConfig(path=str(path), **keys), modalities.SUFFIXES["image"])


@dataclass
class Found:
    """What a source gave."""

    rows: list[dict[str, Any]]
    """Columns of the rows table, and `payload`."""
    facts: dict[str, Any]

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self.rows]


def read_images(path: Path, **keys: Any) -> Found:
    source = open_images(path, **keys)
    rows = []
    for table, payload in source.samples():
        assert table.num_rows == payload.num_rows
        pairs = zip(table.to_pylist(), payload["payload"].to_pylist(), strict=True)
        rows += [{**row, "payload": data} for row, data in pairs]
    return Found(rows, source.facts())


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    return make_png


@pytest.fixture(scope="session")
def open_at() -> Callable[..., Source]:
    return open_images


@pytest.fixture(scope="session")
def read() -> Callable[..., Found]:
    return read_images


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder `pictures` with 0.png to 5.png, to be named by lists beside it."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(make_png(number))
    return folder
