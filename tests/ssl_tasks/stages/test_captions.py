"""Captions through the data stages: who is rejected, what the tokenizer sees, what stands beside the images."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_captioned import ONLY_IN_TEST, SIDE, caption_of, captioned, picture, sections
from tokenizers import Tokenizer

from flows.preflight import check_request
from flows.recipe import build_recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.modalities.captions import END, START
from ssl_tasks.schema import PAYLOAD, TOKENIZER_FILE, TOKENS
from ssl_tasks.shards import Shards, iterate
from ssl_tasks.stages import pretrain
from ssl_tasks.store import Store

NO_CAPTION = (7, 13)


def without_some(number: int, row: dict[str, Any]) -> None:
    if number in NO_CAPTION:
        row["text"] = "  " if number == 7 else ""


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned(tmp_path_factory.mktemp("captioned"), change=without_some)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, listed: Path, chain: Any) -> dict[str, Artifact]:
    recipe = sections(listed) | {"clean": {"near_duplicates": None, "error_budget": 0.1}}
    made: dict[str, Artifact] = chain(Store.open(str(tmp_path_factory.mktemp("store"))), recipe)
    return made


def words_of(normalized: Artifact, row: list[int]) -> str:
    text: str = Tokenizer.from_str(normalized.path(TOKENIZER_FILE).read_text()).decode(row).strip()
    return text


def test_images_without_a_caption_are_rejected_with_the_reason(made: dict[str, Artifact]) -> None:
    assert made["clean"].measured["reasons"] == {"no_caption": 2}
    lines = made["clean"].table("quarantine.parquet").to_pylist()
    rejected = [line for line in lines if line["severity"] == "rejected"]
    assert [line["row"] for line in rejected] == list(NO_CAPTION)
    assert all("ingest.captions" in line["detail"] and line["thumbnail"] for line in rejected)


def test_each_row_has_the_tokens_of_its_own_caption(made: dict[str, Artifact]) -> None:
    normalized = made["normalize"]
    tokens = Shards.open(normalized, TOKENS)
    rows = np.concatenate(tokens.rows)
    assert (len(tokens), tokens.payloads[0].dtype) == (88, np.uint16)
    for row, ids in zip(rows.tolist(), tokens.take(np.arange(88)).tolist(), strict=True):
        expected = caption_of(row).lower()
        assert words_of(normalized, ids).startswith(expected if row else expected[:10]), row
        assert (ids[0], ids.count(START), ids.count(END)) == (START, 1, 1)
    images = Shards.open(normalized)
    assert images.shape == (SIDE, SIDE, 3)
    shard = next(iterate(normalized, "payload"))
    assert shard.column_names == ["row", PAYLOAD, TOKENS]


def test_the_tokenizer_has_seen_train_rows_alone(made: dict[str, Artifact]) -> None:
    """A word of a test caption is in pieces, those of train captions are whole."""
    tokenizer = Tokenizer.from_str(made["normalize"].path(TOKENIZER_FILE).read_text())
    vocabulary = tokenizer.get_vocab()
    assert all(f"Ġ{word}" in vocabulary for word in ("red", "triangle", "this"))
    assert "z" in ONLY_IN_TEST
    assert [token for token in vocabulary if "z" in token] == ["z"]
    measured = made["normalize"].measured["captions"]
    assert measured["vocabulary"] == tokenizer.get_vocab_size()
    assert measured["cut"] == 1  # the planted word makes its caption longer than any of train
    assert measured["length"] == 11  # this is a square , and it is red, and two marks


def test_the_same_captions_give_the_same_bytes(
    made: dict[str, Artifact], listed: Path, store: Store, chain: Any
) -> None:
    recipe = sections(listed) | {"clean": {"near_duplicates": None, "error_budget": 0.1}}
    again = chain(store, recipe, until="normalize")["normalize"]
    assert again.fingerprint == made["normalize"].fingerprint
    assert again.manifest.data_checksum == made["normalize"].manifest.data_checksum


def test_data_without_captions_is_what_it_was(listed: Path, store: Store, chain: Any) -> None:
    """No new key is hashed and no column added, though the list has a column `text`."""
    recipe = sections(listed, captions=False)
    built = build_recipe({"name": "x", **recipe}, where="test")
    assert semantic(built.clean) == {"near_duplicates": None}  # type: ignore[attr-defined]  # a section
    assert semantic(built.normalize) == {"size": SIDE, "channels": 3}  # type: ignore[attr-defined]
    normalized = chain(store, recipe, until="normalize")["normalize"]
    assert next(iterate(normalized, "payload")).column_names == ["row", PAYLOAD]
    assert normalized.rows == 90
    assert TOKENIZER_FILE not in normalized.names()
    assert "captions" not in normalized.measured


def test_captions_change_no_image_and_nothing_is_read_again(
    listed: Path, store: Store, chain: Any, made: dict[str, Artifact]
) -> None:
    plain = chain(store, sections(listed, captions=False), until="normalize")
    assert plain["ingest"].fingerprint == made["ingest"].fingerprint
    assert plain["clean"].fingerprint != made["clean"].fingerprint
    rows = np.concatenate(Shards.open(made["normalize"]).rows)
    assert np.array_equal(
        Shards.open(plain["normalize"]).take(rows), Shards.open(made["normalize"]).take(np.arange(88))
    )


def test_more_without_a_caption_than_the_budget_stop_the_run(listed: Path, store: Store, chain: Any) -> None:
    with pytest.raises(StageError, match=r"2 no_caption.*ingest\.captions.*clean\.error_budget"):
        chain(store, sections(listed), until="clean")


def test_keys_that_contradict_each_other_are_refused(listed: Path, store: Store, chain: Any) -> None:
    recipe = sections(listed) | {"clean": {"near_duplicates": None, "captions": False}}
    with pytest.raises(RequestError, match=r"normalize\.captions: .*clean\.captions=true"):
        chain(store, recipe, until="normalize")


def test_webdataset_tars_bring_captions_beside_their_images(tmp_path: Path, store: Store, chain: Any) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number in range(24):
            stream = io.BytesIO()
            picture(number).save(stream, "PNG")
            for suffix, data in (("png", stream.getvalue()), ("txt", caption_of(number).encode())):
                info = tarfile.TarInfo(f"{number:03d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    made = chain(store, sections(tmp_path / "shard.tar"), until="normalize")
    tokens = Shards.open(made["normalize"], TOKENS)
    found = {
        int(row): words_of(made["normalize"], ids)
        for row, ids in zip(tokens.rows[0], tokens.payloads[0].tolist(), strict=True)
    }
    assert found == {number: caption_of(number).lower() for number in range(24)}


def plan(recipe: dict[str, Any]) -> None:
    """What happens before any stage runs: the source is opened, and the request checked."""
    from flows.plan import make_plan

    built = build_recipe({"name": "x", **recipe}, where="test")
    check_request(built, make_plan(built, Store(built.store)))


@pytest.mark.parametrize("method", ["clip", "siglip"])
def test_a_method_of_captions_is_refused_before_anything_runs_without(
    method: str, listed: Path, tmp_path: Path
) -> None:
    recipe = {**sections(listed, captions=False), "store": str(tmp_path / "store")}
    with pytest.raises(RequestError, match=rf"pretrain\.method\.name: {method} .*ingest\.captions=true.*text_column"):
        plan({**recipe, "pretrain": {"method": method, "backbone": "test_resnet"}})
    assert not (tmp_path / "store").exists()
    plan({**recipe, "ingest": {"path": str(listed), "captions": True}, "pretrain": {"method": method}})


def test_a_method_of_captions_is_refused_where_the_data_was_normalized_without(
    listed: Path, store: Store, chain: Any
) -> None:
    recipe = sections(listed, captions=False)
    made = chain(store, recipe)
    config = build_recipe({"name": "x", **recipe}, where="test").config_of(pretrain.STAGE)
    with pytest.raises(RequestError, match=r"ingest\.captions=true"):
        pretrain.run(config, None, made["normalize"], made["split"], made["augment"])  # type: ignore[arg-type]  # unused


def rename_text(number: int, row: dict[str, Any]) -> None:
    row["words"] = row.pop("text")


def test_a_list_without_the_column_is_refused_with_those_it_has(tmp_path: Path, store: Store, chain: Any) -> None:
    path = captioned(tmp_path / "data", 10, rename_text)
    with pytest.raises(RequestError, match=r"ingest\.captions: list\.csv has no column 'text' .*words.*text_column"):
        plan({**sections(path), "store": str(tmp_path / "store")})
    made = chain(store, sections(path, text_column="words"), until="clean")
    assert made["clean"].rows == 10


def test_folders_have_no_captions(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ingest\.captions: means nothing for images in folders"):
        plan({**sections(shapes), "store": str(tmp_path / "store")})


def test_options_of_the_tokenizer_mean_nothing_without_captions(listed: Path) -> None:
    recipe = {**sections(listed, captions=False), "normalize": {"tokenizer": {"length": 8}}}
    with pytest.raises(RequestError, match=r"normalize.*tokenizer.*ingest\.captions=true"):
        build_recipe({"name": "x", **recipe}, where="test")


def test_the_packaged_tokenizer_is_plain_json(made: dict[str, Artifact]) -> None:
    found = json.loads(made["normalize"].path(TOKENIZER_FILE).read_text())
    assert found["model"]["type"] == "BPE"
    assert found["truncation"]["max_length"] == made["normalize"].measured["captions"]["length"]
