"""The store: what opens, what is refused, what a lookup notices."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import fs

from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.materialize import materialize
from ssl_tasks.stages.assign import AssignConfig
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output, Store
from ssl_tasks.store.cache import LocalCache
from ssl_tasks.store.filesystem import FORMAT_FILE, DamagedError


def write(config: AssignConfig, out: Output, *inputs: object) -> object:
    out.json("data.json", {"seed": config.seed})
    with out.file("picture.html", rendering=True) as path:
        path.write_text(out.attempt)
    return out.artifact(rows=3, measured={"inputs": len(inputs)})


STAGE = Stage("write", AssignConfig, (), write)


def make(store: Store, fingerprint: str = "ab12", **options: bool) -> object:
    return materialize(store, STAGE, AssignConfig(), {}, fingerprint=fingerprint, **options)


def test_a_new_folder_becomes_a_store_and_opens_again(tmp_path: Path) -> None:
    Store.open(str(tmp_path / "new"))
    assert json.loads((tmp_path / "new" / FORMAT_FILE).read_text()) == {"format": 1}
    Store.open(str(tmp_path / "new"))


def test_a_folder_that_is_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RequestError, match=r"thesis\.tex"):
        Store.open(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / FORMAT_FILE).write_text('{"format": 99}')
    with pytest.raises(RequestError, match="newer"):
        Store.open(str(tmp_path))


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be used"):
        Store.open(str(tmp_path / "file" / "store"))


def test_found_the_second_time_and_made_anew_when_forced(store: Store) -> None:
    first, second, forced = make(store), make(store), make(store, force=True)
    assert [made.status for made in (first, second, forced)] == ["ran", "cached", "ran"]
    before, after = store.find_manifest("ab12"), forced.artifact.manifest
    assert before == after
    assert len(store.list("objects/ab12")) == 3  # two attempts and one manifest: nothing was overwritten


def test_renderings_are_no_part_of_the_data_checksum(store: Store) -> None:
    first = make(store).artifact.manifest
    second = make(store, force=True).artifact.manifest
    assert first.files["picture.html"].sha256 != second.files["picture.html"].sha256
    assert first.data_checksum == second.data_checksum


def test_a_stage_that_fails_leaves_no_artifact(store: Store) -> None:
    def fail(config: AssignConfig, out: Output) -> object:
        out.json("data.json", {})
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        materialize(store, Stage("write", AssignConfig, (), fail), AssignConfig(), {}, fingerprint="ab12")
    assert store.lookup("ab12") is None
    assert store.list("leases") == []


@pytest.mark.parametrize(("content", "verify"), [(b"{}", False), (b'{\n "seed": 7\n}', True), (None, False)])
def test_damage_is_noticed_and_mended_with_a_warning(store: Store, content: bytes | None, verify: bool) -> None:
    artifact = make(store).artifact
    path = artifact.path("data.json")
    good = path.read_bytes()
    assert content is None or verify == (len(content) == len(good))  # same size: only a checksum can tell
    path.unlink() if content is None else path.write_bytes(content)
    fresh = Store.open(store.uri)
    with pytest.raises(DamagedError, match=r"data\.json"):
        fresh.lookup("ab12", verify=verify)
    made = make(fresh, verify=verify)
    assert made.status == "ran"
    assert "damaged" in made.warning
    assert made.artifact.path("data.json").read_bytes() == good


def test_output_folders_of_two_attempts_do_not_meet(store: Store) -> None:
    one, two = Output(store.uri, "ff", "a1", "write"), Output(store.uri, "ff", "a2", "write")
    one.json("x.json", 1)
    two.json("x.json", 2)
    assert one.path("x.json").read_text() == "1"


def test_the_local_cache_stays_below_its_bound(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]) * 100)
    cache = LocalCache(tmp_path / "cache", max_bytes=250)
    for number in range(5):
        path = cache.get(fs.LocalFileSystem(), str(tmp_path / f"{number}.bin"), f"{number:064d}")
        assert path.read_bytes() == bytes([number]) * 100
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*/*")) <= 250


def test_many_processes_open_a_new_store_at_once(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / f".{FORMAT_FILE}.left-by-a-kill").write_text("{")
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store.open(str(tmp_path / "new")), range(64)))
    assert len(stores) == 64


def test_a_source_that_changes_between_plan_and_run_is_not_committed(store: Store) -> None:
    hashes = iter(["planned", "changed"])
    stage = Stage("write", AssignConfig, (), write, source=lambda config: next(hashes))
    planned = stage.fingerprint(AssignConfig(), {}, stage.source(AssignConfig()))
    with pytest.raises(StageError, match="source changed"):
        materialize(store, stage, AssignConfig(), {}, fingerprint=planned)
    assert store.lookup(planned) is None


def test_a_run_that_lost_its_lease_commits_nothing(store: Store) -> None:
    def stand_still(config: AssignConfig, out: Output) -> object:
        store.write_json("leases/ab12.json", {"holder": "another", "host": "elsewhere", "pid": 1, "born": "1"})
        return write(config, out)

    with pytest.raises(StageError, match="took the stage over"):
        materialize(store, Stage("write", AssignConfig, (), stand_still), AssignConfig(), {}, fingerprint="ab12")
    assert store.lookup("ab12") is None


def test_what_a_stage_read_besides_its_inputs_is_a_parent_too(store: Store) -> None:
    def warm(config: AssignConfig, out: Output) -> object:
        out.read["init_from"] = "cd34"
        return write(config, out)

    made = materialize(store, Stage("write", AssignConfig, (), warm), AssignConfig(), {}, fingerprint="ab12")
    assert made.artifact.manifest.parents == {"init_from": "cd34"}
