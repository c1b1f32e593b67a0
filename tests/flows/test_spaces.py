"""What a search draws: distributions and their bounds, repeatable trials in turn, what is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from flows.recipe import load_recipe
from flows.spaces import BUILTIN, Draw, draw, spaces
from ssl_tasks import methods
from ssl_tasks.errors import RequestError

LR = 0.004


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    return file


def values(drawn: list[Draw], key: str) -> np.ndarray:
    return np.array([each.parameters[key] for each in drawn])


def test_values_keep_to_their_distribution(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "a: {pretrain: {method: {name: simclr, temperature: {uniform: [0.1, 0.5]}},"
        " optimizer: {lr: {loguniform: [1e-4, 1e-2]}}, batch_size: {choice: [64, 128, 256]}}}",
    )
    drawn = draw(spaces(None, file, LR), 400, seed=0)
    temperature, lr = values(drawn, "pretrain.method.temperature"), values(drawn, "pretrain.optimizer.lr")
    assert temperature.min() >= 0.1
    assert temperature.max() <= 0.5
    assert abs(temperature.mean() - 0.3) < 4 * 0.4 / math.sqrt(12 * 400)  # four standard errors
    assert lr.min() >= 1e-4
    assert lr.max() <= 1e-2
    assert abs(np.log10(lr).mean() + 3) < 4 * 2 / math.sqrt(12 * 400)  # its logarithm is uniform
    assert set(values(drawn, "pretrain.batch_size").tolist()) == {64, 128, 256}
    assert all(value == float(f"{value:.3g}") for value in lr)
    assert all(f"pretrain.optimizer.lr={each.parameters['pretrain.optimizer.lr']}" in each.candidate.overrides
               for each in drawn)  # fmt: skip
    assert 'pretrain.method.name="simclr"' in drawn[0].candidate.overrides  # what has no distribution stays


def test_the_seed_repeats_and_more_trials_begin_with_the_fewer() -> None:
    found = spaces("simclr,vicreg,rotation", None, LR)
    drawn = draw(found, 6, seed=3)
    assert [each.candidate.name for each in drawn] == [
        *("simclr-1", "vicreg-1", "rotation-1", "simclr-2", "vicreg-2", "rotation-2"),
    ]  # fmt: skip
    assert draw(found, 9, seed=3)[:6] == drawn
    assert draw(found, 6, seed=4) != drawn
    assert drawn[0].parameters != drawn[3].parameters


def test_nothing_is_drawn_twice_and_what_has_no_distribution_once(tmp_path: Path) -> None:
    file = written(tmp_path, "fixed: {pretrain: {epochs: 2}}\nfew: {pretrain: {epochs: {choice: [3, 4]}}}")
    drawn = draw(spaces(None, file, LR), 20, seed=0)
    assert sorted(each.candidate.overrides for each in drawn) == [
        ("pretrain.epochs=2",), ("pretrain.epochs=3",), ("pretrain.epochs=4",),
    ]  # fmt: skip
    assert sorted(each.candidate.name for each in drawn) == ["few-1", "few-2", "fixed-1"]


def test_built_in_spaces_surround_the_recipes_learning_rate() -> None:
    drawn = draw(spaces("rotation,simclr", None, LR), 200, seed=0)
    lr = values(drawn, "pretrain.optimizer.lr")
    assert lr.min() >= LR / 5
    assert lr.max() <= LR * 5
    assert {tuple(each.parameters) for each in drawn} == {
        ("pretrain.optimizer.lr",), ("pretrain.optimizer.lr", "pretrain.method.temperature"),
    }  # fmt: skip


def test_every_built_in_space_draws_options_that_its_method_has(tmp_path: Path) -> None:
    names = [line.partition(":")[0] for line in BUILTIN.read_text().splitlines() if not line.startswith("#")]
    for each in draw(spaces(",".join(names), None, LR), 3 * len(names), seed=0):
        recipe = load_recipe("digits", each.candidate.overrides, store=str(tmp_path))
        section = recipe.pretrain  # type: ignore[attr-defined]  # a section
        modality = "tabular" if section.method.name == "scarf" else "image"
        config = methods.resolve(section.method.options(), modality)
        for key, value in each.parameters.items():
            assert key == "pretrain.optimizer.lr" or getattr(config, key.rpartition(".")[2]) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{uniform: [0.5, 0.1]}", r"candidate a: pretrain\.optimizer\.lr: \{uniform: \[0\.5, 0\.1\]\}: the first must"),
        ("{uniform: [0.5]}", r"pretrain\.optimizer\.lr: .*expected \[lowest, highest\]"),
        ("{uniform: 3}", r"pretrain\.optimizer\.lr: .*expected \[lowest, highest\]"),
        ("{uniform: [a, b]}", r"pretrain\.optimizer\.lr: .*could not convert"),
        ("{uniform: [0, .inf]}", r"pretrain\.optimizer\.lr: .*the first must be below"),
        ("{loguniform: [0, 1]}", r"pretrain\.optimizer\.lr: .*both must be above 0"),
        ("{choice: []}", r"pretrain\.optimizer\.lr: .*expected a list of values"),
        ("{choice: 3}", r"pretrain\.optimizer\.lr: .*expected a list of values"),
        ("{choice: [1], uniform: [0, 1]}", r"candidate a: pretrain\.optimizer\.lr has two values"),
    ],
)
def test_wrong_distributions_are_refused_by_their_key(value: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        spaces(None, written(tmp_path, f"a: {{pretrain: {{optimizer: {{lr: {value}}}}}}}"), LR)


def test_no_candidate_and_a_name_twice_are_refused_in_the_name_of_search(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"search: name the methods"):
        spaces(None, None, LR)
    with pytest.raises(RequestError, match=r"search: byol is asked for twice"):
        spaces("byol", written(tmp_path, json.dumps({"byol": {"pretrain": {"epochs": 2}}})), LR)
