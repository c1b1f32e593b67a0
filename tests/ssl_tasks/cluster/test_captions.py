"""Images and captions from a list to an encoder, through all stages: one worker and two, once and again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_captioned import captioned, sections

from ssl_tasks.artifact import Artifact
from ssl_tasks.store import Store

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned(tmp_path_factory.mktemp("captioned"))


def pretrain(store: Store, chain: Any, listed: Path, **options: Any) -> tuple[Artifact, Artifact]:
    recipe = sections(listed)
    made = chain(store, recipe | {"pretrain": {**recipe["pretrain"], **options}}, until="pretrain")
    return made["normalize"], made["pretrain"]


def column(artifact: Artifact, name: str) -> list[float]:
    found: list[float] = artifact.table("metrics.parquet")[name].to_pylist()
    return found


def test_two_workers_learn_what_one_does_and_the_tokenizer_travels(
    store: Store, tmp_path: Path, listed: Path, chain: Any
) -> None:
    options = {"precision": "fp64", "max_steps": 6}
    normalized, one = pretrain(store, chain, listed, **options)
    _, two = pretrain(Store.open(str(tmp_path / "other")), chain, listed, **options, num_workers=2)
    assert one.fingerprint == two.fingerprint
    np.testing.assert_allclose(column(two, "loss"), column(one, "loss"), rtol=0, atol=1e-8)
    np.testing.assert_allclose(column(two, "recall_at_1"), column(one, "recall_at_1"), rtol=0, atol=1e-8)
    assert one.path("tokenizer.json").read_bytes() == normalized.path("tokenizer.json").read_bytes()


def test_siglip_finds_captions_again_and_gives_the_same_bits_again(
    store: Store, tmp_path: Path, listed: Path, chain: Any
) -> None:
    method = {"name": "siglip", "out_dim": 16, "text_width": 16, "text_depth": 1, "text_heads": 2}
    options = {"method": method, "epochs": 40, "optimizer": {"lr": 0.01}}
    _, first = pretrain(store, chain, listed, **options)
    recall, loss = column(first, "recall_at_1"), column(first, "loss")
    assert np.mean(recall[-6:]) > 0.5 > 2 * np.mean(recall[:3])  # 18 captions a batch, of which there are 9 kinds
    assert np.mean(loss[-6:]) < 0.8 * np.mean(loss[:3])
    _, again = pretrain(Store.open(str(tmp_path / "other")), chain, listed, **options, augment_on="device")
    assert column(again, "loss") == loss
    assert again.path("encoder.safetensors").read_bytes() == first.path("encoder.safetensors").read_bytes()
