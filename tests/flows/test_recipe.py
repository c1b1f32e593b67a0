"""Recipes: what is read, what is filled in, and what each mistake is told."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from flows.recipe import build_recipe, load_recipe
from flows.recipe_files import builtin_recipes
from ssl_tasks.errors import RequestError


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(RequestError) as caught:
        load_recipe(str(path), overrides)
    return str(caught.value)


def test_an_unknown_key_is_named_with_its_path_and_a_near_one(tiny: ModuleType, recipe_file: Path) -> None:
    assert "pretrain.bathc_size: unknown key, did you mean 'batch_size'?" in refused(
        recipe_file, "pretrain.bathc_size=3"
    )
    assert "pretrain.method.temprature: unknown key" in refused(recipe_file, "pretrain.method.temprature=1")
    assert "pretrian: unknown key, did you mean 'pretrain'?" in refused(recipe_file, "pretrian.epochs=1")


def test_a_wrong_value_is_named_with_what_was_given(tiny: ModuleType, recipe_file: Path) -> None:
    message = refused(recipe_file, "split.fraction=2")
    assert "split.fraction" in message
    assert "(got 2)" in message


def test_broken_yaml_names_file_and_line(tiny: ModuleType, recipe_file: Path) -> None:
    recipe_file.write_text("name: x\ningest:\n  path: [1\nsplit: 3\n")
    message = refused(recipe_file)
    assert str(recipe_file) in message
    assert "line 4" in message


def test_a_key_that_stands_twice_is_refused(tiny: ModuleType, recipe_file: Path) -> None:
    recipe_file.write_text("name: x\nseed: 1\nname: y\n")
    assert "line 3" in refused(recipe_file)
    assert "'name' stands twice" in refused(recipe_file)


@pytest.mark.parametrize("path", ["{{ data }}", "{[a]: b}"])
def test_an_unquoted_template_is_refused(tiny: ModuleType, recipe_file: Path, path: str) -> None:
    recipe_file.write_text(f"name: x\ningest:\n  path: {path}\n")
    assert "line 3: not valid YAML: a key is a mapping or a list" in refused(recipe_file)


def test_a_date_that_does_not_exist_is_refused(tiny: ModuleType, recipe_file: Path) -> None:
    assert "--set name: the value is not valid YAML: '2026-02-30'" in refused(recipe_file, "name=2026-02-30")
    recipe_file.write_text("name: 2026-02-30\n")
    assert "cannot be read: day is out of range" in refused(recipe_file)


@pytest.mark.parametrize("value", [".nan", "[1, .inf]", "2026-11-22", "{1: 2}", "!!set {a}", "!!binary aGk="])
def test_a_method_option_that_json_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(RequestError, match=r"recipe digits: pretrain\.method\.temperature"):
        load_recipe("digits", [f"pretrain.method.temperature={value}"])


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_without_sections_is_refused(tiny: ModuleType, recipe_file: Path, text: str) -> None:
    recipe_file.write_text(text)
    assert "expected sections" in refused(recipe_file)


def test_an_unknown_recipe_lists_the_built_in_ones(tiny: ModuleType) -> None:
    with pytest.raises(RequestError, match=r"did you mean 'digits'.*cancer, digits"):
        load_recipe("digit")
    with pytest.raises(RequestError, match="no such file"):
        load_recipe("nowhere/mine.yaml")


@pytest.mark.parametrize("text", ["seed", "=3", "split..seed=3", "seed=[1"])
def test_an_override_that_cannot_be_read_is_refused(tiny: ModuleType, recipe_file: Path, text: str) -> None:
    assert "--set" in refused(recipe_file, text)


def test_seed_and_modality_are_filled_where_a_section_does_not_set_them(tiny: ModuleType, recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["ingest.modality=tabular", "split.seed=3"])
    configs = {stage.name: recipe.config_of(stage) for stage in tiny.DAG}
    assert configs["pretrain"].model_dump()["seed"] == 7
    assert configs["pretrain"].model_dump()["modality"] == "tabular"
    assert configs["assign"].model_dump()["seed"] == configs["split"].model_dump()["seed"] == 3


def test_two_stages_share_a_section_each_with_its_own_config(tiny: ModuleType, recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["split.fraction=0.5", "split.budget=9"])
    configs = {stage.name: recipe.config_of(stage) for stage in tiny.DAG}
    assert type(configs["assign"]) is tiny.AssignConfig
    assert configs["assign"].model_dump() == {"fraction": 0.5, "seed": 7}
    assert configs["split"].model_dump() == {"fraction": 0.5, "seed": 7, "budget": 9}


def test_the_store_is_taken_from_flag_override_environment_file_and_default_in_this_order(
    tiny: ModuleType, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(str(recipe_file)).store == str(tmp_path / "store")
    monkeypatch.setenv("PRETEXTFLOW_STORE", "/from/environment")
    assert load_recipe(str(recipe_file)).store == "/from/environment"
    assert load_recipe(str(recipe_file), ["store=/from/set"]).store == "/from/set"
    assert load_recipe(str(recipe_file), ["store=/from/set"], store="s3://bucket/flag").store == "s3://bucket/flag"
    monkeypatch.delenv("PRETEXTFLOW_STORE")
    recipe_file.write_text("name: x\n")
    assert load_recipe(str(recipe_file)).store == str(tmp_path / "pretextflow-store")


def test_relative_paths_are_taken_from_the_current_directory(
    tiny: ModuleType, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(str(recipe_file), ["ingest.path=some/folder", "store=here"])
    assert recipe.to_dict()["ingest"]["path"] == str(tmp_path / "some/folder")
    assert recipe.store == str(tmp_path / "here")
    assert load_recipe(str(recipe_file), ["ingest.path=builtin:digits"]).to_dict()["ingest"]["path"] == "builtin:digits"


def test_a_recipe_survives_its_own_json(tiny: ModuleType, recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["pretrain.method.temperature=0.1"])
    assert build_recipe(recipe.to_dict(), where="record") == recipe


def test_the_built_in_recipes_are_valid_for_the_real_dag() -> None:
    assert builtin_recipes()[:4] == ["cancer", "digits", "images", "gpu/barlow_twins-imagenet"]
    digits, cancer = load_recipe("digits").to_dict(), load_recipe("cancer").to_dict()
    assert digits["pretrain"]["modality"] == "image"
    assert cancer["pretrain"]["modality"] == "tabular"
    assert load_recipe("images", ["ingest.path=photos"]).to_dict()["clean"]["min_side"] == 32
    with pytest.raises(RequestError, match=r"recipe images: ingest\.path: .*--set ingest\.path=photos"):
        load_recipe("images")


@pytest.mark.parametrize("text", ["normalize=false", "normalize=", "pretrain=[]", "clean=0", "ingest=x"])
def test_a_section_is_not_replaced_by_a_value(text: str) -> None:
    with pytest.raises(RequestError, match=rf"--set {re.escape(text)}: \w+ is a section; set its keys"):
        load_recipe("digits", [text])


def test_a_section_of_a_file_may_be_empty_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\ningest: {path: builtin:digits}\nnormalize:\n")
    assert load_recipe(str(path)).normalize.size == 32
    path.write_text("name: own\ningest: {path: builtin:digits}\nnormalize: false\n")
    with pytest.raises(RequestError, match="normalize"):
        load_recipe(str(path))


@pytest.mark.parametrize("value", ["false", "''", "[]", "0"])
def test_a_section_of_a_file_that_is_no_section_is_named(tmp_path: Path, value: str) -> None:
    (tmp_path / "own.yaml").write_text(f"name: own\ningest: {{path: builtin:digits}}\nnormalize: {value}\n")
    with pytest.raises(RequestError, match=r"own\.yaml: normalize: Input should be a valid dictionary"):
        load_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("text", ["report.title=2024", "report.title=2024-01-01", "report.title=a: b"])
def test_text_that_yaml_reads_as_something_else_is_told_to_be_quoted(text: str) -> None:
    with pytest.raises(RequestError, match=r"""report\.title: .* needs quotes: report\.title='"\.\.\."'"""):
        load_recipe("digits", [text])
    assert load_recipe("digits", ['report.title="2024"']).to_dict()["report"]["title"] == "2024"


@pytest.mark.parametrize(
    "overrides", [["pretrain.method.name=dae"], ["pretrain.method=dae"], ["pretrain.method={name: dae}"]]
)
def test_another_method_does_not_inherit_options(overrides: list[str]) -> None:
    assert load_recipe("digits", overrides).pretrain.method.options() == {"name": "dae"}
    more = load_recipe("digits", [*overrides, "pretrain.method.mask_rate=0.5"])
    assert more.pretrain.method.options() == {"name": "dae", "mask_rate": 0.5}
    same = load_recipe("digits", ["pretrain.method.name=simclr", "pretrain.method.out_dim=16"])
    assert same.pretrain.method.options() == {"name": "simclr", "temperature": 0.2, "out_dim": 16}


@pytest.mark.parametrize("method", ["dae", "{name: dae}"])
def test_an_option_goes_to_the_method_of_the_file(tmp_path: Path, method: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"name: own\ningest: {{path: builtin:digits}}\npretrain: {{method: {method}}}\n")
    choice = load_recipe(str(path), ["pretrain.method.mask_rate=0.5"]).pretrain.method
    assert choice.options() == {"name": "dae", "mask_rate": 0.5}


def test_options_of_the_default_method_stay_when_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\ningest: {path: builtin:digits}\npretrain: {method: {temperature: 0.3}}\n")
    same = load_recipe(str(path), ["pretrain.method.name=simclr"])
    assert same.pretrain.method.options() == {"name": "simclr", "temperature": 0.3}
    assert load_recipe(str(path), ["pretrain.method=dae"]).pretrain.method.options() == {"name": "dae"}
