"""Images in folders of domains, from the files to the transfer's tables, with every strategy that adapts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests_planted import commit

from ssl_tasks.artifact import Artifact
from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import save_weights
from ssl_tasks.errors import RequestError
from ssl_tasks.materialize import materialize
from ssl_tasks.stages.embed import STAGE as EMBED
from ssl_tasks.stages.transfer import STAGE
from ssl_tasks.store import Output, Store

SIZE = 8
ADAPTING = ["coral", "deep_coral", "mmd", "dann", "adabn"]
SMALL: dict[str, Any] = {
    "strategies": ADAPTING,
    "label_fractions": [1.0],
    "seeds": 1,
    "bootstrap": 100,
    "raw_input": False,
    "scratch": {"steps": 2, "learning_rates": [0.01]},
    "tune": {"steps": 4, "batch_size": 8, "learning_rates": [0.003]},
    "domains": {"target": "dark"},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bright/ and dark/, each with left/ and right/ of 30 pictures."""
    root, random = tmp_path_factory.mktemp("domains"), np.random.default_rng(0)
    for domain, light in (("bright", 120), ("dark", 60)):
        for label, side in (("left", slice(0, 4)), ("right", slice(4, 8))):
            folder = root / domain / label
            folder.mkdir(parents=True)
            for number in range(30):
                pixels = random.integers(0, 60, (SIZE, SIZE), dtype=np.uint8)
                pixels[:, side] += light
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return root


def stage(made: dict[str, Artifact], which: Any, **config: Any) -> Artifact:
    parsed = which.config.model_validate(config)
    parents = {name: made[name] for name in which.inputs}
    fingerprint = which.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    made[which.name] = materialize(made["ingest"].store, which, parsed, parents, fingerprint=fingerprint).artifact
    return made[which.name]


@pytest.fixture
def made(store: Store, pictures: Path, chain: Any, request: pytest.FixtureRequest) -> dict[str, Artifact]:
    """Every stage up to embed, with a network that was drawn and not trained."""
    backbone = getattr(request, "param", "test_resnet")
    sections = {
        "ingest": {"path": str(pictures), "folders": ["domain", "label"]},
        "clean": {"near_duplicates": None},
        "normalize": {"size": SIZE, "channels": 1},
        "augment": {"flip_probability": 0.0},
    }
    found: dict[str, Artifact] = chain(store, sections)
    info = {"method": "simclr", "backbone": backbone, "stem": "auto", "modality": "image", "seed": 0, "steps": 0}
    info |= {"stats": found["normalize"].json("stats.json"), "input_shape": [1, SIZE, SIZE], "precision": "fp32"}

    def write(out: Output) -> None:
        for seed, name in enumerate(("encoder", "initial")):
            network = build_backbone(backbone, modality="image", input_shape=(1, SIZE, SIZE), seed=seed)
            with out.file(f"{name}.safetensors") as path:
                save_weights(network, path)
        out.json("encoder.json", info | {"num_features": network.num_features})

    parents = [found[name] for name in ("normalize", "split", "augment")]
    found["pretrain"] = commit(store, "pretrain", write, 120, parents)
    stage(found, EMBED)
    return found


def test_every_strategy_that_adapts_runs_and_says_how_far_the_domains_lie_apart(made: dict[str, Artifact]) -> None:
    found = stage(made, STAGE, **SMALL)
    assert found.table("failures.parquet").num_rows == 0
    splits = made["split"].table("splits.parquet").to_pylist()
    dark = {row["row"] for row in splits if (row["split"], row["domain"]) == ("test", "dark")}
    assert set(found.table("predictions.parquet")["row"].to_pylist()) == dark
    names = {line["strategy"] for line in found.measured["domains"]}
    assert names == {*ADAPTING, "linear_probe", "fine_tune", "from_scratch", "majority"}
    lines = {line["strategy"]: line for line in found.measured["domains"]}
    assert len({lines[name]["mmd_before"] for name in (*ADAPTING, "linear_probe", "fine_tune")}) == 1
    assert lines["coral"]["mmd_before"] > 0.1
    after = [lines[name]["mmd_after"] for name in (*ADAPTING, "fine_tune")]
    assert len(set(after)) == len(after)
    assert lines["coral"]["mmd_after"] < 0.5 * lines["coral"]["mmd_before"]
    assert lines["adabn"]["mmd_after"] < lines["fine_tune"]["mmd_after"]
    against = {line["strategy"]: line.get("counterpart") for line in found.measured["summary"]}
    assert against == {
        **dict.fromkeys(ADAPTING, "fine_tune"), "coral": "linear_probe", "linear_probe": None, "fine_tune": None
    }  # fmt: skip


def test_results_do_not_depend_on_the_number_of_workers(made: dict[str, Artifact]) -> None:
    given = {**SMALL, "strategies": ["coral", "dann"], "domains": {"leave_one_out": True}}
    first = stage(made, STAGE, **given, workers=1).manifest.data_checksum
    parsed = STAGE.config.model_validate({**given, "workers": 3})
    parents = {name: made[name] for name in STAGE.inputs}
    again = materialize(made["ingest"].store, STAGE, parsed, parents, fingerprint="f" * 64, force=True).artifact
    assert again.manifest.data_checksum == first


@pytest.mark.parametrize("made", ["test_vit"], indirect=True)
def test_adabn_is_refused_for_a_network_without_batch_norm(made: dict[str, Artifact]) -> None:
    with pytest.raises(RequestError, match=r"transfer.strategies: adabn exchanges .*VisionTransformer has none"):
        stage(made, STAGE, **SMALL)
