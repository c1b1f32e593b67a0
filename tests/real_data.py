"""Real data sets beside the checkout, which are no part of it: `PRETEXTFLOW_TEST_DATA`, by default ../shared/data."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def unpack(archive: str, target: Path, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """The members of an archive whose names are wanted; skips the test, and says so, where it is not there."""
    path = FOLDER / archive
    if not path.exists():
        pytest.skip(f"NOT RUN: needs {archive} in {FOLDER} (set PRETEXTFLOW_TEST_DATA)")
    with tarfile.open(path) as packed:
        packed.extractall(target, [member for member in packed if wanted(member.name)], filter="data")
    return target
