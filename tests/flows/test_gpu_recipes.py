"""Recipes for GPUs, which nothing here can run: each is whole, passes the checks before a run, and says where from."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from flows.preflight.networks import require_fitting_method, require_rows, require_used_policies
from flows.recipe import default_dag, load_recipe
from flows.recipe_files import BUILTIN, builtin_recipes
from ssl_tasks.artifact import Artifact

NAMES = [name for name in builtin_recipes() if name.startswith("gpu/")]
ROWS = {"imagenet": 1_255_000, "cifar10": 49_000}
"""Of train, by the data that stands in a recipe's name."""


def recipe_of(name: str) -> Any:
    return load_recipe(name, ["ingest.path=/data"])


def test_there_are_those_of_the_papers_that_name_their_hyper_parameters() -> None:
    assert {name.split("/")[1].split("-")[0] for name in NAMES} == {
        *("simclr", "moco", "moco_v3", "byol", "simsiam", "barlow_twins", "vicreg", "swav"),
        *("dino", "mae", "simmim", "ijepa"),
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_is_from_and_what_it_trains(name: str) -> None:
    text = (BUILTIN / f"{name}.yaml").read_text()
    header = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert "arXiv" in header or "1911.05722" in header
    assert "not measured here" in header
    recipe = recipe_of(name)
    assert recipe.name == name.removeprefix("gpu/")
    assert recipe.pretrain.method.name == recipe.name.split("-")[0]
    assert set(yaml.safe_load(text)) == {
        *("name", "seed", "store", "ingest", "clean", "split", "normalize", "augment", "pretrain", "transfer"),
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_its_batch_goes_with_method_workers_and_rows(name: str) -> None:
    recipe = recipe_of(name)
    for stage in default_dag():
        if stage.check:
            stage.check(recipe.config_of(stage))
    require_used_policies(recipe)
    rows = next(rows for data, rows in ROWS.items() if data in name)
    measured: Any = type("Split", (), {"measured": {"splits": {"train": rows}}})
    split: Artifact = measured
    require_rows(recipe, split)


SMALLER = {"resnet50": "resnet18", "vit_base_patch16_224": "vit_tiny_patch16_224"}
"""Backbones of the same kind that cost less to build: what is checked are sizes, views and options."""


@pytest.mark.parametrize("name", NAMES)
def test_its_backbone_takes_its_method_and_views(name: str) -> None:
    backbone = recipe_of(name).pretrain.backbone
    settings = ["ingest.path=/data", f"pretrain.backbone={SMALLER.get(backbone, backbone)}"]
    wide = [key for key, value in recipe_of(name).pretrain.method.options().items() if value in (8192, 65536)]
    settings += [f"pretrain.method.{key}=512" for key in wide if key.endswith("_dim")]
    require_fitting_method(load_recipe(name, settings))
