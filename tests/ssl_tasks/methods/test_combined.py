"""A combination against its methods one by one: loss, gradients, views, keys, teachers; what it shares and refuses."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import (
    SHAPE,
    VIT_SHAPE,
    TinyConv,
    assert_ranks_agree,
    one_step,
    rows,
    tiny_vit,
)
from torch import Tensor, nn

from ssl_tasks import methods
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import CONSTANT_RATE, Batch, TrainStats, refuse_coupled
from ssl_tasks.methods.combined import SPEC, Combined, CombinedConfig, part_keys, union
from ssl_tasks.randomness import row_keys
from ssl_tasks.stages.pretrain import STAGE, check
from ssl_tasks.training.config import PretrainConfig

NUM_ROWS = 8
BYOL = {"hidden_dim": 5, "out_dim": 4}
OF_IMAGES: dict[str, dict[str, Any]] = {
    "byol": {"loss_weight": 0.5, **BYOL},
    "simclr": {"out_dim": 4, "temperature": 0.4},
    "rotation": {"loss_weight": 2.0},
    "dae": {"loss_weight": 0.1},
    "moco": {"out_dim": 4, "queue_size": 16},
}
IBOT = {"num_local": 1, "out_dim": 7, "hidden_dim": 5, "bottleneck_dim": 4, "mask_probability": 1.0}
OF_PATCHES: dict[str, dict[str, Any]] = {
    "ibot": {"loss_weight": 0.3, **IBOT},
    "mae": {"decoder_depth": 1, "loss_weight": 3.0},
    "moco_v3": {"hidden_dim": 5, "out_dim": 4},
}


def make(objectives: dict[str, dict[str, Any]], num_rows: int = 40) -> Combined:
    torch.manual_seed(0)
    patches = "mae" in objectives
    shape = VIT_SHAPE if patches else SHAPE
    config = CombinedConfig(name="combined", objectives=objectives)
    method = Combined(config, tiny_vit() if patches else TinyConv(), shape)
    method.prepare(TrainStats(num_rows, torch.zeros(1, *shape), torch.arange(num_rows)))
    return method.double()


def make_batch(method: Combined) -> Batch:
    shape = VIT_SHAPE if "mae" in method.parts else SHAPE
    count = len(method.views_for(method.config).policies)
    positions = torch.arange(NUM_ROWS)
    views = [rows(NUM_ROWS, *shape, seed=1 + number) for number in range(count)]
    return Batch(views, positions, row_keys(0, 0, positions))


def alone(method: Combined, name: str) -> nn.Module:
    """The method called `name` as a module of its own, with the same weights and a backbone of its own."""
    config = method.config.parts()[name]
    backbone = copy.deepcopy(method.backbone)
    shape = VIT_SHAPE if "mae" in method.parts else SHAPE
    part = methods.spec(name).method(config, backbone, shape).double()
    state = {f"backbone.{key}": value for key, value in method.backbone.state_dict().items()}
    part.load_state_dict(copy.deepcopy({**method.parts[name].state_dict(), **state}))
    return part


@pytest.mark.parametrize("objectives", [OF_IMAGES, OF_PATCHES], ids=["images", "patches"])
def test_loss_and_gradients_are_the_weighted_sum_of_those_of_each_method_alone(objectives):
    method = make(objectives)
    batch = make_batch(method)
    policies = method.views_for(method.config).policies
    total, expected = torch.zeros((), dtype=torch.float64), {}
    parts = {name: alone(method, name) for name in objectives}
    for name, part in parts.items():
        wanted = part.views_for(part.config).policies
        numbers = [
            [n for n, other in enumerate(policies) if other == policy][wanted[:place].count(policy)]
            for place, policy in enumerate(wanted)
        ]
        weight = objectives[name].get("loss_weight", 1.0)
        keys = part_keys(batch.keys, name)
        loss = part(Batch([batch.views[n] for n in numbers], batch.positions, keys), "main")["loss"]
        loss.backward()
        total = total + weight * loss.detach()
        for key, parameter in part.named_parameters():
            if parameter.grad is not None:
                full = key if key.startswith("backbone.") else f"parts.{name}.{key}"
                expected[full] = expected.get(full, 0.0) + weight * parameter.grad
        parts[name] = loss.detach()
    output = method(batch, "main")
    output["loss"].backward()
    torch.testing.assert_close(output["loss"].detach(), total, rtol=1e-10, atol=1e-10)
    found = {key: parameter.grad for key, parameter in method.named_parameters() if parameter.grad is not None}
    assert {key for key, parameter in method.named_parameters() if parameter.requires_grad} == found.keys()
    assert sum(key.startswith("backbone.") for key in found) >= 4
    for key, gradient in found.items():
        torch.testing.assert_close(
            gradient, expected[key], rtol=1e-10, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}"
        )
    for name, loss in parts.items():
        torch.testing.assert_close(output[f"{name}_loss"], loss, rtol=1e-10, atol=1e-10)
        assert not output[f"{name}_loss"].requires_grad


def test_methods_share_views_of_one_policy_and_see_those_they_ask_for():
    assert union([("augment", "augment"), ("augment",), ("plain",)]) == (
        ("augment", "augment", "plain"),
        [[0, 1], [0], [2]],
    )
    assert union([("plain",), ("augment", "augment", "local", "local"), ("augment",) * 3, ("local",)]) == (
        ("plain", "augment", "augment", "local", "local", "augment"),
        [[0], [1, 2, 3, 4], [1, 2, 5], [3]],
    )


def test_each_method_gets_its_own_views_and_keys():
    method = make(OF_IMAGES)
    batch = make_batch(method)
    seen = {}
    for name, part in method.parts.items():
        part.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    method(batch, "main")
    assert method.views_for(method.config).policies == ("augment", "augment", "plain")
    assert {name: len(given.views) for name, given in seen.items()} == {
        "byol": 2,
        "simclr": 2,
        "rotation": 1,
        "dae": 1,
        "moco": 2,
    }
    assert torch.equal(seen["dae"].views[0], batch.views[2])
    assert torch.equal(seen["rotation"].views[0], batch.views[0])
    for given in seen.values():
        assert torch.equal(given.positions, batch.positions)
    keys = torch.stack([batch.keys, *(given.keys for given in seen.values())])
    assert len(keys.unique()) == keys.numel()


def test_the_backbone_stands_once_in_parameters_state_and_groups():
    method = make(OF_IMAGES)
    state = method.state_dict()
    assert [key for key in state if ".backbone." in key] == []
    assert len({value.data_ptr() for value in state.values() if value.numel()}) == sum(
        value.numel() > 0 for value in state.values()
    )
    assert {f"backbone.{key}" for key in method.backbone.state_dict()} <= state.keys()
    grouped = [id(p) for group in method.param_groups("main") for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in method.parameters() if p.requires_grad}
    assert all(part.backbone is method.backbone for part in method.parts.values())


def test_a_copy_has_one_backbone_of_its_own():
    method = make(OF_IMAGES)
    copied = copy.deepcopy(method)
    assert copied.backbone is not method.backbone
    assert all(part.backbone is copied.backbone for part in copied.parts.values())
    assert all(not part.backbone.training for part in copied.eval().parts.values())
    assert method.backbone.training


def test_special_groups_of_a_method_stay_special():
    method = make({"simsiam": {"out_dim": 4, "predictor_dim": 3}, "rotation": {}})
    constant = [id(p) for group in method.param_groups("main") if group.get(CONSTANT_RATE) for p in group["params"]]
    assert set(constant) == {id(p) for p in method.parts["simsiam"].predictor.parameters()}
    for group in method.param_groups("main"):
        assert (group.get("weight_decay") == 0.0) == all(p.ndim < 2 for p in group["params"])


def test_the_smallest_spread_of_projections_is_what_the_watchdog_sees():
    method = make({"simsiam": {"out_dim": 4, "predictor_dim": 3}, "two_encoders": {"hidden_dim": 4, "out_dim": 4}})
    output = method(make_batch(method), "main")
    spreads = [output[f"{name}_projection_std"] for name in ("simsiam", "two_encoders")]
    assert float(output["projection_std"]) == min(float(spread) for spread in spreads)
    without = make({"simclr": {}, "rotation": {}})
    assert not any("projection_std" in key for key in without(make_batch(without), "main"))


@pytest.mark.parametrize("order", [("byol", "mae"), ("mae", "byol")])
def test_teachers_are_copies_of_the_backbone_as_all_methods_leave_it(order):
    """MAE fixes a ViT's positions: what a teacher holds must not be those of before."""
    options = {"byol": BYOL, "mae": {"decoder_depth": 1}}
    method = make({name: options[name] for name in order})
    teacher, student = method.parts["byol"].teacher.network[0].state_dict(), method.backbone.state_dict()
    assert teacher.keys() == student.keys()
    for key, value in student.items():
        assert torch.equal(value, teacher[key]), key
    assert not method.backbone.pos_embed.requires_grad


def test_teachers_follow_the_shared_backbone():
    method = make({"byol": {**BYOL, "momentum": 0.9}, "rotation": {}})
    part = method.parts["byol"]
    before = {key: p.clone() for key, p in part.teacher.network.named_parameters()}
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += 1.0
    method.after_step(0.0)
    for key, parameter in part.teacher.network.named_parameters():
        torch.testing.assert_close(parameter, before[key] + 0.1)


def test_the_first_method_starts_as_it_would_alone():
    method = make({"simclr": {"out_dim": 4}, "rotation": {}})
    torch.manual_seed(0)
    backbone = TinyConv()
    first = methods.spec("simclr").method(method.config.parts()["simclr"], backbone, SHAPE).double()
    for key, value in first.head.state_dict().items():
        assert torch.equal(value, method.parts["simclr"].head.state_dict()[key])


def test_epochs_and_train_rows_reach_each_method_and_features_are_computed_once():
    method = make({"deepcluster": {"num_clusters": 4}, "moco": {"out_dim": 4, "queue_size": 16}})
    assert method.parts["moco"].queue.shape == (16, 4)
    calls = []

    def embed() -> Tensor:
        calls.append(1)
        return rows(40, 6, seed=0).float()

    method.parts["again"] = method.parts["deepcluster"]
    method.before_epoch(embed)
    assert calls == [1]
    assert len(method.parts["deepcluster"].labels.unique()) == 4


def test_pool_and_coupling_are_those_of_the_methods():
    def config(*names: str) -> CombinedConfig:
        return CombinedConfig(name="combined", objectives={name: {} for name in names})

    assert Combined.pool_for(config("simclr", "rotation")) == "network"
    assert Combined.pool_for(config("ibot", "simclr")) == "network"
    assert Combined.pool_for(config("simclr", "mae")) == "average"
    assert methods.pool({"name": "combined", "objectives": {"ijepa": {}, "rotation": {}}}, "image") == "average"
    assert methods.pool({"name": "mae"}, "image") == "average"
    refuse_coupled(Combined, config("rotation", "dae"), 4)
    with pytest.raises(RequestError, match=r"pretrain\.accumulate: the loss of simclr and vicreg couples"):
        refuse_coupled(Combined, config("simclr", "rotation", "vicreg"), 2)


def resolve(objectives: Any, modality: str = "image") -> Any:
    return methods.resolve({"name": "combined", "objectives": objectives}, modality)


KEY = r"pretrain\.method\.objectives"


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({"simclr": {"temperature": -1.0}, "rotation": {}}, rf"{KEY}\.simclr\.temperature: .*greater than 0 \(got -1"),
        ({"simclr": {"temprature": 0.1}, "rotation": {}}, rf"{KEY}\.simclr\.temprature: .*did you mean 'temperature'"),
        ({"simclr": {}, "rotation": {"loss_weight": 0}}, rf"{KEY}\.rotation\.loss_weight: .*greater than 0"),
        ({"simclr": {}, "rotation": {"loss_weight": "much"}}, rf"{KEY}\.rotation\.loss_weight: .*valid number"),
        ({"simclr": {}, "rotat": {}}, rf"{KEY}\.rotat: no method 'rotat'; there are"),
        ({"simclr": {}, "combined": {}}, rf"{KEY}: .*combined combines no combination"),
        ({"simclr": {}}, rf"{KEY}: .*two methods or more \(got simclr\)"),
        ({}, rf"{KEY}: .*two methods or more"),
        ([], rf"{KEY}: .*valid dictionary"),
        ("simclr", rf"{KEY}: .*valid dictionary"),
        ({"simclr": 0.5, "rotation": {}}, rf"{KEY}\.simclr: "),
        ({"simclr": {"name": "byol"}, "rotation": {}}, rf"{KEY}: .*simclr\.name"),
        ({"simclr": {}, "scarf": {}}, rf"{KEY}\.scarf: scarf is for tabular; ingest\.modality is image"),
    ],
)
def test_what_a_part_cannot_take_is_refused_by_its_full_key(objectives, message):
    with pytest.raises(RequestError, match=message):
        resolve(objectives)


def test_wrong_parts_are_refused_as_the_recipe_is_read():
    """Before the plan asks for their versions."""
    for objectives in ({"simclr": {}, "rotat": {}}, {"simclr": {}}, "simclr"):
        with pytest.raises(ValidationError, match="objectives"):
            PretrainConfig.model_validate({"method": {"name": "combined", "objectives": objectives}})


@pytest.mark.parametrize(("name", "modality"), [("gan", "image"), ("bigan", "image"), ("aae", "tabular")])
def test_methods_that_take_turns_are_refused_before_any_stage_runs(name, modality):
    choice = {"name": "combined", "objectives": {"dae": {}, name: {}}}
    with pytest.raises(RequestError, match=rf"{KEY}\.{name}: {name} takes turns of several optimizers \(.*generator"):
        check(PretrainConfig.model_validate({"method": choice, "modality": modality}))


def test_a_method_that_takes_turns_with_some_options_is_refused_with_those():
    with pytest.raises(RequestError, match=rf"{KEY}\.inpainting: .*discriminator.*adversarial_weight"):
        make({"rotation": {}, "inpainting": {}})
    assert make({"rotation": {}, "inpainting": {"adversarial_weight": 0.0}}).phases == ("main",)


def test_what_a_method_refuses_of_the_backbone_or_the_images_names_its_key():
    config = CombinedConfig(name="combined", objectives={"simclr": {}, "mae": {}})
    with pytest.raises(RequestError, match=r"pretrain\.backbone: mae works on the patches of a ViT, and TinyConv"):
        Combined(config, TinyConv(), SHAPE)
    with pytest.raises(RequestError, match=rf"{KEY}\.mae\.decoder_dim: 33 is no multiple"):
        make({"rotation": {}, "mae": {"decoder_dim": 33}})
    config = CombinedConfig(name="combined", objectives={"simclr": {}, "rotation": {}})
    with pytest.raises(RequestError, match=rf"{KEY}\.rotation: rotation needs square images"):
        Combined(config, TinyConv(), (2, 6, 8))


def test_names_alone_take_the_defaults_and_the_default_is_two_methods():
    assert resolve({"simclr": None, "byol": None}).parts() == {
        "simclr": methods.resolve({"name": "simclr"}, "image"),
        "byol": methods.resolve({"name": "byol"}, "image"),
    }
    assert list(methods.resolve({"name": "combined"}, "image").parts()) == ["simclr", "rotation"]


def test_versions_of_the_parts_are_in_the_fingerprint(monkeypatch):
    def fingerprint(**choice: Any) -> str:
        config = PretrainConfig.model_validate({"method": choice})
        return STAGE.fingerprint(config, {"normalize": "a", "split": "b", "augment": "c"})

    combined = {"name": "combined", "objectives": {"byol": {}, "rotation": {}}}
    assert STAGE.parts(PretrainConfig.model_validate({"method": combined})).keys() == {
        *("combined", "byol", "rotation", "image")
    }
    assert STAGE.parts(PretrainConfig.model_validate({"method": "byol"})).keys() == {"byol", "image"}
    before = {name: fingerprint(**combined) for name in ("byol", "moco")} | {"default": fingerprint(name="combined")}
    monkeypatch.setitem(methods.METHODS, "byol", ("ssl_tasks.methods.byol", 99))
    assert fingerprint(**combined) != before["byol"]
    assert fingerprint(name="combined") == before["default"]
    monkeypatch.setitem(methods.METHODS, "simclr", ("ssl_tasks.methods.simclr", 99))
    assert fingerprint(name="combined") != before["default"]


def test_versions_are_known_without_torch():
    code = (
        "import sys; from ssl_tasks.training.config import PretrainConfig; "
        "from ssl_tasks.stages.pretrain import STAGE; "
        "method = {'name': 'combined', 'objectives': {'byol': {}, 'dae': {}}}; "
        "print(sorted(STAGE.parts(PretrainConfig.model_validate({'method': method}))), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['byol', 'combined', 'dae', 'image'] False"


RANKED = {name: options for name, options in OF_IMAGES.items() if name != "moco"}


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, objectives=RANKED)


def test_two_ranks_compute_the_loss_gradients_and_teachers_of_one(run_ranks):
    single = in_ranks()
    assert any(key.startswith("teacher parts.byol") for key in single)
    assert sum(key.startswith("grad backbone") for key in single) == len(list(TinyConv().parameters()))
    assert_ranks_agree(single, run_ranks(in_ranks))
