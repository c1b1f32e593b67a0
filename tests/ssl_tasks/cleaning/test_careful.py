"""A sample that kills its reader: the next attempt finds it in other processes, and rejects it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests_poison import DEADLY_PILLOW, POISON

from ssl_tasks.cleaning.careful import NOTE_FILE, Notes, crashing, notes, without
from ssl_tasks.modalities.image import MODALITY
from ssl_tasks.schema import PAYLOAD, ROW
from ssl_tasks.stages.clean import CleanConfig
from ssl_tasks.store import Output, Store


@pytest.fixture
def buggy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bug").mkdir()
    (tmp_path / "bug" / "sitecustomize.py").write_text(DEADLY_PILLOW)
    paths = [str(tmp_path / "bug"), *(entry for entry in sys.path if entry)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return tmp_path


def png(path: Path, number: int) -> Path:
    import numpy as np
    from PIL import Image

    Image.fromarray(np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


def raw_of(folder: Path, count: int, bad: set[int]) -> pa.Table:
    contents = [png(folder / f"{number}.png", number).read_bytes() for number in range(count)]
    contents = [data + POISON if number in bad else data for number, data in enumerate(contents)]
    return pa.table({ROW: list(range(count)), PAYLOAD: pa.array(contents, pa.large_binary())})


def test_deadly_samples_are_found_one_by_one(buggy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, started, run = raw_of(buggy, 20, {0, 17}), [], subprocess.run

    def counted(command: list[str], **named: Any) -> Any:
        started.append(command)
        return run(command, **named)

    monkeypatch.setattr(subprocess, "run", counted)
    assert crashing(MODALITY, raw, CleanConfig()) == [0, 17]
    assert len(started) == 3  # each start imports what the decoder needs
    harmless = without(raw, [0, 17])
    assert harmless[ROW].to_pylist() == list(range(20))
    assert [place for place, data in enumerate(harmless[PAYLOAD].to_pylist()) if data is None] == [0, 17]


def test_an_error_in_the_trial_is_no_death(buggy: Path) -> None:
    raw = raw_of(buggy, 1, set())
    assert crashing(MODALITY, raw, None) == []  # a config without fields raises


def interrupted(out: Output) -> None:
    with notes(out) as kept:
        kept.examining(0)
        raise KeyboardInterrupt


def test_a_note_is_left_by_death_alone(store: Store) -> None:
    out = Output(store.uri, "f" * 64, "a", "clean")
    with notes(out) as kept:
        kept.examining(2048)
        assert Notes(out).deadly == {2048}  # what a process would find that started now
    assert Notes(out).deadly == set()
    with pytest.raises(KeyboardInterrupt):
        interrupted(out)
    assert Notes(out).deadly == set()
    Notes(out).examining(0)
    later = Notes(out)
    later.examining(1024)
    assert Notes(out).deadly == {0, 1024}  # the second of two deadly parts does not make it forget the first
    assert store.read_json(f"partial/{'f' * 64}/{NOTE_FILE}") == {"deadly": [0], "now": 1024}


PROGRAM = """
import sys
from tests_chain import run_chain
from ssl_tasks.store import Store
recipe = {"ingest": {"path": sys.argv[2]}, "clean": {"error_budget": 0.5}}
run_chain(Store.open(sys.argv[1]), recipe, until="clean")
"""


def test_the_second_attempt_rejects_what_killed_the_first(buggy: Path) -> None:
    folder = buggy / "images"
    (folder / "a").mkdir(parents=True)
    for number in range(2):
        png(folder / "a" / f"{number}.png", number)
    with open(folder / "a" / "1.png", "ab") as file:
        file.write(POISON)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[2])])}
    command = [sys.executable, "-c", PROGRAM, str(buggy / "store"), str(folder)]
    first = subprocess.run(command, env=env, capture_output=True, text=True)
    assert first.returncode == -signal.SIGABRT, first.stderr
    second = subprocess.run(command, env=env, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    store = Store.open(str(buggy / "store"))
    manifests = [store.manifest(name) for name in store.list("objects")]
    manifest = next(found for found in manifests if found.stage == "clean")
    listed = store.handle(manifest).table("quarantine.parquet").to_pylist()
    rejected = [(line["source"], line["reason"]) for line in listed if line["severity"] == "rejected"]
    assert rejected == [("a/1.png", "crashes_decoder")]
