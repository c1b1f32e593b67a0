"""Named policies: what they change, what is refused, what is hashed, how they come back from views.json."""

from typing import Any

import numpy as np
import pytest

from flows.recipe import build_recipe
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.policy import Views
from ssl_tasks.stages.augment import AugmentConfig, resolve

STATS = {"shape": [24, 32, 3], "mean": [0.4, 0.5, 0.6]}
UINT8 = np.dtype(np.uint8)


def recipe(augment: dict[str, Any]) -> Any:
    return build_recipe({"name": "test", "ingest": {"path": "builtin:digits"}, "augment": augment}, where="test")


def views(augment: dict[str, Any], stats: dict[str, Any] = STATS, dtype: Any = UINT8) -> Views:
    made = resolve(recipe(augment).augment, stats, np.dtype(dtype))
    return Views.model_validate_json(made.model_dump_json())


def test_a_named_policy_is_the_base_with_its_changes() -> None:
    made = views({"crop_scale": [0.2, 1], "hue": 0.3, "policies": {"second": {"solarize_probability": 0.2}}})
    base, second = made.policy("augment"), made.policy("second")
    assert (base.crop_scale, base.hue, base.solarize_probability) == ((0.2, 1.0), 0.3, 0.0)
    assert second == base.model_copy(update={"solarize_probability": 0.2})
    assert made.policy("nobody defined this") == base


def test_a_change_back_to_the_default_is_a_change() -> None:
    made = views({"flip_probability": 0.0, "policies": {"second": {"flip_probability": 0.5}}})
    assert (made.policy("augment").flip_probability, made.policy("second").flip_probability) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("augment", "size", "crop_scale", "hue"),
    [
        ({}, 12, (0.05, 0.4), 0.1),
        ({"size": 20, "hue": 0.2, "crop_scale": [0.5, 1]}, 10, (0.05, 0.4), 0.2),
        ({"policies": {"local": {"size": 9}}}, 9, (0.05, 0.4), 0.1),
        ({"policies": {"local": {"crop_scale": [0.1, 0.2], "hue": 0.0}}}, 12, (0.1, 0.2), 0.0),
    ],
)
def test_local_is_half_as_wide_and_covers_less(augment: Any, size: int, crop_scale: Any, hue: float) -> None:
    local = views(augment).policy("local")
    assert (local.size, local.crop_scale, local.hue) == (size, crop_scale, hue)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (
            {"policies": {"local": {"crop_scle": [0.1, 1]}}},
            r"augment\.policies\.local\.crop_scle: unknown key, did you",
        ),
        ({"policies": {"local": {"seed": 1}}}, r"augment\.policies\.local\.seed: unknown key"),
        ({"policies": {"a": {"size": 2}}}, r"augment\.policies\.a\.size: .*greater than or equal to 4"),
        (
            {"policies": {"a": {"noise_sigma": [0.2, 0.1]}}},
            r"augment\.policies\.a: noise_sigma is \[smallest, largest\]",
        ),
        ({"policies": {"augment": {}}}, r"augment\.policies: 'augment' is no name for a policy"),
        ({"policies": {"plain": {}}}, r"augment\.policies: 'plain' is no name for a policy"),
        ({"cutout_scale": [0.1, 1.5]}, "cutout_scale is a share of the area, at most 1"),
        ({"mask_kind": "blocks"}, r"augment\.mask_kind"),
        ({"solarise_probability": 1}, r"solarise_probability: unknown key, did you mean 'solarize_probability'"),
    ],
)
def test_what_cannot_be_is_refused_by_its_path(augment: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        recipe(augment)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"mask_probability": 1, "mask_patch": 13}, r"augment\.mask_patch: 13 px .* in a view of 24 px"),
        ({"policies": {"m": {"mask_probability": 1, "size": 20}}}, r"augment\.policies\.m\.mask_patch: 16 px"),
        (
            {"mask_probability": 1, "mask_patch": 8, "policies": {"local": {}}},
            r"augment\.policies\.local\.mask_patch: 8 px .* in a view of 12 px",
        ),
    ],
)
def test_patches_larger_than_half_a_view_are_refused(augment: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        views(augment)


def test_masks_of_whole_views_are_left_out_of_small_crops_that_nobody_defined() -> None:
    made = views({"mask_probability": 1, "mask_patch": 8})
    assert (made.policy("augment").mask_probability, made.policy("local").mask_probability) == (1.0, 0.0)
    assert views({"mask_probability": 1, "mask_patch": 6}).policy("local").mask_probability == 1.0


def test_what_is_hashed_is_what_was_set() -> None:
    assert semantic(AugmentConfig()) == {}
    config = recipe({"policies": {"second": {"flip_probability": 0.5}, "third": {}}}).augment
    assert semantic(config) == {"policies": {"second": {"flip_probability": 0.5}, "third": {}}}


def test_a_recipe_survives_the_way_through_plain_values() -> None:
    first = recipe({"size": 8, "policies": {"second": {"crop_scale": [0.1, 0.2]}, "local": {"size": 4}}})
    again = build_recipe(first.to_dict(), where="test")
    assert again == first
    assert semantic(again.augment) == semantic(first.augment)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255.0), (np.uint16, 65535.0), (np.float32, 1.0)])
def test_the_scale_is_what_normalize_has_fitted_or_the_whole_range(dtype: Any, top: float) -> None:
    plain = views({}, dtype=dtype)
    assert (plain.low, plain.high, plain.fill) == ((0.0,) * 3, (top,) * 3, (0.4, 0.5, 0.6))
    fitted = views({}, {**STATS, "low": [0.0, -3.0, 7.0], "high": [10.0, 4.0, 7.0]}, dtype)
    assert fitted.low == (0.0, -3.0, 7.0)
    assert fitted.high == (10.0, 4.0, 8.0)  # of a constant channel, which stands for no scale, one above
    assert fitted.policy("local").high == fitted.high


@pytest.mark.parametrize("augment", [{"hue": 0.2}, {"policies": {"local": {}}}])
def test_keys_that_mean_nothing_for_tables_are_refused(augment: dict[str, Any]) -> None:
    ingest = {"path": "builtin:cancer", "modality": "tabular"}
    with pytest.raises(RequestError, match=rf"augment: {next(iter(augment))}: means nothing for tables"):
        build_recipe({"name": "test", "seed": 3, "ingest": ingest, "augment": augment}, where="test")
    plain = build_recipe({"name": "test", "seed": 3, "ingest": ingest}, where="test")
    assert build_recipe(plain.to_dict(), where="test") == plain


def test_tables_have_the_base_policy_and_no_crops() -> None:
    made = resolve(AugmentConfig(modality="tabular"), {"shape": [30]}, np.dtype(np.float32))
    assert sorted(made.policies) == ["augment"]
