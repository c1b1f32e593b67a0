"""Bytecode in our cache folder, for installations without any."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flows import bytecode


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "")
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_uncompiled_packages_are_compiled_into_the_cache(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "is_compiled", lambda: False)
    bytecode.ensure()
    assert sys.pycache_prefix == os.environ["PYTHONPYCACHEPREFIX"] == str(clean / "pretextflow" / "bytecode")
    assert not sys.dont_write_bytecode
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ


def test_compiled_packages_and_a_prefix_of_the_user_are_left_alone(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytecode, "is_compiled", lambda: True)
    bytecode.ensure()
    monkeypatch.setattr(bytecode, "is_compiled", lambda: False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "/mine")
    bytecode.ensure()
    assert (sys.pycache_prefix, sys.dont_write_bytecode) == (None, True)
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"
