"""Combinations in a recipe: how they are set, what is refused before anything runs, and what a plan says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.compare import candidates, trials
from flows.execution import Listener, prepare
from flows.plan import make_plan
from flows.preflight import check_request
from flows.recipe import load_recipe
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store

COMBINED = "method.name=combined"
KEY = r"pretrain\.method\.objectives"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method.name=ibot"], r"pretrain\.backbone: ibot works on the patches of a ViT, and ResNet has none"),
        ([COMBINED, "method.objectives={simclr, mae}"], r"pretrain\.backbone: mae works on the patches of a ViT"),
        ([COMBINED, "method.objectives={rotation, inpainting}"], rf"{KEY}\.inpainting: .*adversarial_weight=0"),
        ([COMBINED, "method.objectives={rotation, gan}"], rf"{KEY}\.gan: gan takes turns"),
        ([COMBINED, "method.objectives={rotation, rbm}"], r"pretrain\.backbone: method rbm trains a backbone"),
        ([COMBINED, "method.objectives={simclr: {temperature: 0}, dae}"], rf"{KEY}\.simclr\.temperature: .*\(got 0\)"),
        ([COMBINED, "accumulate=2"], r"pretrain\.accumulate: the loss of simclr couples"),
        (
            [COMBINED, "method.objectives={rotation, mae: {decoder_dim: 48}}", "backbone=test_vit"],
            rf"{KEY}\.mae\.decoder_dim: 48 is no",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(settings: list[str], message: str, tmp_path: Path) -> None:
    recipe = load_recipe("digits", [f"pretrain.{setting}" for setting in settings], store=str(tmp_path / "store"))
    with pytest.raises(RequestError, match=message):
        prepare(recipe, listener=Listener())
    assert not (tmp_path / "store" / "objects").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{simclr, rotat}", rf"recipe digits: .*{KEY}\.rotat: no method 'rotat'"),
        ("{simclr}", rf"recipe digits: .*{KEY}: .*two methods or more \(got simclr\)"),
        ("{simclr, combined}", rf"recipe digits: .*{KEY}: .*combined combines no combination"),
        ("{simclr, dae: {loss_weight: -1}}", rf"recipe digits: .*{KEY}\.dae\.loss_weight: .*\(got -1\)"),
        ("[simclr, dae]", rf"recipe digits: .*{KEY}: .*valid dictionary"),
    ],
)
def test_what_is_no_combination_is_refused_as_the_recipe_is_read(setting: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load_recipe("digits", [f"pretrain.{COMBINED}", f"pretrain.method.objectives={setting}"])


@pytest.mark.parametrize(
    "settings",
    [
        ["method.name=ibot", "backbone=test_vit"],
        [COMBINED],
        [COMBINED, "method.objectives.rotation.loss_weight=0.5", "method.objectives.byol.hidden_dim=64"],
        [COMBINED, "method.objectives={ibot: {num_local: 2}, mae, moco_v3: {hidden_dim: 64}}", "backbone=test_vit"],
        [COMBINED, "method.objectives={rotation, inpainting: {adversarial_weight: 0}}"],
    ],
)
def test_what_fits_is_accepted(settings: list[str], tmp_path: Path) -> None:
    recipe = load_recipe("digits", [f"pretrain.{setting}" for setting in settings], store=str(tmp_path))
    check_request(recipe, make_plan(recipe, Store.open(str(tmp_path))))


def test_policies_are_for_any_of_the_methods(tmp_path: Path) -> None:
    policies = "augment.policies={local: {size: 4}}"
    recipe = load_recipe("digits", [f"pretrain.{COMBINED}", policies], store=str(tmp_path))
    with pytest.raises(RequestError, match=r"augment\.policies: combined uses no policy called 'local'"):
        prepare(recipe, listener=Listener())
    objectives = "pretrain.method.objectives={rotation, dino}"
    recipe = load_recipe("digits", [f"pretrain.{COMBINED}", objectives, policies], store=str(tmp_path))
    check_request(recipe, make_plan(recipe, Store.open(str(tmp_path))))


def test_both_are_candidates_of_a_comparison(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(
        "sum: {pretrain: {method: {name: combined, objectives: {simclr: {temperature: 0.2}, dae: {loss_weight: 2}}}}}\n"
        "both: {pretrain: {method: {name: combined, objectives: {simclr: {}, dae: }}}}\n"
    )
    made = trials("digits", candidates("ibot,combined", file), [], str(tmp_path), 1)
    options = [trial.recipe.pretrain.method.options() for trial in made]  # type: ignore[attr-defined]  # a section
    assert options == [
        {"name": "ibot"},
        {"name": "combined"},
        {"name": "combined", "objectives": {"simclr": {"temperature": 0.2}, "dae": {"loss_weight": 2}}},
        {"name": "combined", "objectives": {"simclr": {}, "dae": None}},
    ]
