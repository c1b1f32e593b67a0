"""What no training could do is refused by the command, before anything runs, with the key's name and status 2."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from flows.commands import app
from flows.preflight.networks import require_fitting_method, require_rows
from flows.recipe import Recipe, load_recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.methods import names, spec

SMALL = ("pretrain.backbone=test_resnet", "pretrain.stem=auto")
VIT = ("pretrain.backbone=test_vit", "normalize.size=32")
APART = ("pretrain.sync_batch_norm=false", "pretrain.num_workers=2")
"""Batch statistics of each of two workers."""
COUPLED = [name for name in names() if spec(name).method.couples_batch and "image" in spec(name).modalities]
TEMPERATURES = [
    (name, key)
    for name in names()
    for key in spec(name).config.model_fields
    if key.endswith(("temperature", "temperature_start"))
]
FEW = {name: least for name in names() if (least := spec(name).method.least_rows) > 1}

CASES: list[tuple[str, tuple[str, ...], str]] = [
    # key in the message, settings, a part of the message
    ("pretrain.batch_size", ("pretrain.batch_size=1",), "greater than or equal to 2"),
    ("pretrain.batch_size", ("pretrain.batch_size=6", "pretrain.num_workers=4"), "6 cannot be shared by 4 workers"),
    *(
        ("pretrain.batch_size", (f"pretrain.method={name}", f"pretrain.batch_size={2 * (least - 1)}", *APART), name)
        for name, least in FEW.items()
    ),
    *(
        ("pretrain.batch_size", (f"pretrain.method={name}", "pretrain.batch_size=2"), f"{name} needs 3 rows")
        for name, least in FEW.items()
        if least == 3
    ),
    (
        "pretrain.batch_size",
        ("pretrain.method=rotation", "pretrain.batch_size=2", "pretrain.stem=standard", *APART),
        "cannot take a single row",
    ),
    *(
        ("pretrain.accumulate", (f"pretrain.method={name}", "pretrain.accumulate=2"), "couples all rows")
        for name in COUPLED
    ),
    ("pretrain.accumulate", ("pretrain.method=rotation", "pretrain.accumulate=2"), "batch norm couples all rows"),
    *(
        (f"pretrain.method.{key}", (f"pretrain.method={name}", f"pretrain.method.{key}={value}"), "greater than")
        for name, key in TEMPERATURES
        if "image" in spec(name).modalities
        for value in (0, -0.1)
    ),
    ("pretrain.method.epsilon", ("pretrain.method=swav", "pretrain.method.epsilon=-0.05"), "greater than 0"),
    (
        "pretrain.method.queue_size",
        ("pretrain.method=moco", "pretrain.method.queue_size=500"),
        "500 is no multiple of pretrain.batch_size, 256; use 512",
    ),
    (
        "pretrain.method.queue_size",
        ("pretrain.method=swav", "pretrain.method.queue_size=100"),
        "100 is no multiple of pretrain.batch_size, 256; use 256",
    ),
    *(
        (
            "pretrain.backbone",
            (f"pretrain.method={name}", f"pretrain.backbone={vit}", "pretrain.stem=standard", "normalize.size=40"),
            message,
        )
        for name, vit, message in (
            (
                "mae",
                "vit_tiny_patch16_224",
                "patches of 16 px, and 40 px are no multiple of that; set normalize.size=32",
            ),
            ("mae", "test_vit", "(40) should be divisible by patch size (16)"),
            ("dino", "vit_tiny_patch16_224", "(40) should be divisible by patch size (16)"),
        )
    ),
    (
        "augment.policies.local.size",
        ("pretrain.method=dino", *VIT, "augment.policies={local: {size: 18}}"),
        "no views of 18 x 18 px",
    ),
    *(("pretrain.backbone", (f"pretrain.method={name}",), "of a ViT") for name in ("mae", "simmim", "ijepa")),
    (
        "pretrain.backbone",
        ("pretrain.method=mae", "pretrain.backbone=test_vit", "pretrain.stem=standard", "normalize.size=16"),
        "have one only",
    ),
    ("pretrain.backbone", ("pretrain.method=ijepa", *VIT, "pretrain.stem=standard"), "2 x 2 of them are too few"),
    (
        "pretrain.method.mask_patches",
        ("pretrain.method=simmim", *VIT, "pretrain.method.mask_patches=8"),
        "would hide at once",
    ),
    (
        "pretrain.method.decoder_dim",
        ("pretrain.method=mae", *VIT, "pretrain.method.decoder_dim=100"),
        "no multiple of 32",
    ),
    ("pretrain.method.mask_ratio", ("pretrain.method=mae", *VIT, "pretrain.method.mask_ratio=1"), "less than 1"),
    ("pretrain.method.name", ("pretrain.method=colorization",), "3 channels"),
    ("pretrain.method.name", ("pretrain.method=scarf",), "is for tabular; ingest.modality is image"),
    ("pretrain.method.grid", ("pretrain.method=jigsaw", "normalize.size=4"), "need images of 6 px"),
    ("pretrain.method.gap", ("pretrain.method=context_prediction", "normalize.size=4"), "no room for three patches"),
    ("pretrain.method.patch_size", ("pretrain.method=cpc", "pretrain.method.patch_size=7"), "no two rows"),
    ("pretrain.method.area", ("pretrain.method={name: inpainting, hole: center, area: 0.999}",), "leaves nothing"),
    ("pretrain.backbone", ("pretrain.method=rbm",), "rbm:<hidden>"),
    ("pretrain.method.momentum", ("pretrain.method=byol", "pretrain.method.momentum=1"), "less than 1"),
    ("pretrain.method", ("pretrain.method={name: dae, mask_rate: 0}",), "nothing to denoise"),
    ("pretrain.method", ("pretrain.method={name: jigsaw, grid: 2, num_permutations: 25}",), "num_permutations: 2 x 2"),
]
TABLES: list[tuple[str, tuple[str, ...], str]] = [
    ("pretrain.method.temperature", ("pretrain.method=scarf", "pretrain.method.temperature=-1"), "greater than 0"),
    ("pretrain.backbone", ("pretrain.method=rbm",), "rbm:<hidden>"),
    ("pretrain.backbone", ("pretrain.method=dae", "pretrain.backbone=resnet18"), "no backbone 'resnet18' for tables"),
    ("pretrain.accumulate", ("pretrain.method=contractive", "pretrain.accumulate=2"), "batch norm couples all rows"),
    ("pretrain.method.name", ("pretrain.method=simclr",), "is for image; ingest.modality is tabular"),
]


@pytest.mark.parametrize(
    ("recipe", "key", "settings", "message"),
    [*(("digits", *case) for case in CASES), *(("cancer", *case) for case in TABLES)],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_refused_before_anything_runs(
    recipe: str, key: str, settings: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["plan", recipe, *words, "--store", str(tmp_path / "store"), "--json"])
    answer = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 2, answer
    assert f"{key}: " in answer["error"]
    assert message in answer["error"]
    assert not (tmp_path / "store").exists()


def planned(recipe: str, *settings: str, tmp_path: Path) -> int:
    words = [word for setting in settings for word in ("--set", setting)]
    return CliRunner().invoke(app, ["plan", recipe, *words, "--store", str(tmp_path / "store")]).exit_code


@pytest.mark.parametrize("name", [name for name in FEW if "image" in spec(name).modalities])
def test_as_many_rows_as_are_needed_are_enough(name: str, tmp_path: Path) -> None:
    settings = (f"pretrain.method={name}", f"pretrain.batch_size={2 * FEW[name]}", *APART)
    policies = () if name != "swav" else ("pretrain.method.num_local=0",)
    assert planned("digits", *settings, *policies, tmp_path=tmp_path) == 0


def test_whole_queues_and_patches_are_taken(tmp_path: Path) -> None:
    assert planned("digits", "pretrain.method={name: moco, queue_size: 512}", tmp_path=tmp_path) == 0
    fits = ("pretrain.method={name: mae, decoder_depth: 1}", "pretrain.backbone=test_vit", "pretrain.stem=standard")
    assert planned("digits", *fits, "normalize.size=48", tmp_path=tmp_path) == 0


def measured(**values: object) -> Artifact:
    return SimpleNamespace(measured=values)  # type: ignore[return-value]  # what the checks look at


def refusal_of(settings: list[str], check: object, artifact: Artifact, recipe: str = "digits") -> str:
    with pytest.raises(RequestError) as caught:
        check(load_recipe(recipe, settings), artifact)  # type: ignore[operator]  # one of two functions
    return str(caught.value)


def test_more_clusters_than_train_rows_are_refused_once_the_rows_are_known() -> None:
    settings = ["pretrain.method={name: deepcluster, num_clusters: 300}"]
    message = refusal_of(settings, require_rows, measured(splits={"train": 299}))
    assert message.startswith("pretrain.method.num_clusters: 300 clusters of 299 train rows")
    require_rows(load_recipe("digits", settings), measured(splits={"train": 300}))


def test_what_was_assumed_of_inputs_is_looked_at_again_once_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = refusal_of(
        ["pretrain.method=colorization", "normalize.channels=auto"],
        require_fitting_method,
        measured(shape=[8, 8, 1]),
    )
    assert grey.startswith("pretrain.method.name: colorization needs images of 3 channels")
    few = refusal_of(["pretrain.method.corruption_rate=0.05"], require_fitting_method, measured(shape=[9]), "cancer")
    assert few.startswith("pretrain.method.corruption_rate: 0.05 of 9 columns")
    recipe: Recipe = load_recipe("digits", ["pretrain.backbone=no_such_network"])
    require_fitting_method(recipe, measured(shape=[8, 8, 1]))  # as was assumed: not asked twice
