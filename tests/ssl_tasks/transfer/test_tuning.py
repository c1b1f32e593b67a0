"""What the strategies that go on training the encoder promise, on digits that it has not seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tests_digits as digits
import torch
from torch import nn

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.base import Blueprint
from ssl_tasks.transfer.networks.heads import with_head
from ssl_tasks.transfer.networks.layers import depths, num_layers
from ssl_tasks.transfer.networks.training import Schedule, Start, Training, train, train_mode
from ssl_tasks.transfer.networks.tuning import schedule_of
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.strategies import fine_tune, from_scratch, gradual_unfreezing, last_layers, layer_decay

FEW = {"scratch": {"steps": 40, "learning_rates": [3e-3]}, "tune": {"learning_rates": [1e-3]}}


def seeing(task: digits.Task, kept: list[nn.Module]) -> digits.Task:
    """The task, with every network that it is given noted in `kept`."""
    assert task.context is not None
    context = task.context

    def encoder() -> nn.Module:
        kept.append(context.networks[context.method]())
        return kept[-1]

    return dataclasses.replace(task, context=dataclasses.replace(context, networks={context.method: encoder}))


def moved(name: str, network: nn.Module) -> set[int]:
    """Layers of an encoder, counted from the input, whose parameters are no longer those it began with."""
    start = digits.encoder(name).state_dict()
    depth_of = depths(network, coarse=True)
    return {depth_of[key] for key, value in network.named_parameters() if not torch.equal(value, start[key])}


@pytest.mark.parametrize("name", ["fine_tune", "gradual_unfreezing", "layer_decay", "lp_ft"])
def test_from_few_labels_the_encoder_is_worth_more_than_fresh_weights(name: str) -> None:
    task = digits.task(digits.MLP, labelled=40, **FEW)
    ours, theirs = strategy(name).fit(task), from_scratch.fit(task)
    assert digits.accuracy(ours.scores) > digits.accuracy(theirs.scores) + 0.03
    assert ours.chosen["trained_share"] == 1.0


def test_the_encoder_that_is_handed_out_is_left_alone() -> None:
    task = digits.task(digits.MLP, labelled=40, **FEW)
    fine_tune.fit(task)
    assert task.context is not None
    for key, value in task.context.encoder().state_dict().items():
        assert torch.equal(value, digits.weights(digits.MLP)[key])


@pytest.mark.parametrize(("name", "stages"), [(digits.MLP, 3), ("test_resnet", 5), ("test_vit", 7)])
def test_last_layers_moves_these_and_no_others(name: str, stages: int) -> None:
    for count in (1, 2):
        kept: list[nn.Module] = []
        options = {"tune": {"steps": 2, "learning_rates": [1e-2], "last_layers": count}}
        found = last_layers.fit(seeing(digits.task(name, labelled=8, val=1, **options), kept))
        assert moved(name, kept[0]) == set(range(stages - count, stages))
        assert 0 < found.chosen["trained_share"] < 1


def test_frozen_batch_norms_keep_their_statistics() -> None:
    kept: list[nn.Module] = []
    options = {"tune": {"steps": 2, "learning_rates": [1e-2]}}
    last_layers.fit(seeing(digits.task("test_resnet", labelled=8, val=1, **options), kept))
    start, end = digits.encoder("test_resnet").state_dict(), kept[0].state_dict()
    changed = {key.partition(".")[0] for key, value in end.items() if not torch.equal(value, start[key])}
    assert changed == {"layer4"}


def test_train_mode_is_eval_where_a_norm_is_frozen() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    network[0].requires_grad_(False)
    train_mode(network)
    assert [module.training for module in network] == [False, True]


def test_more_last_layers_than_there_are_are_refused() -> None:
    backbone = digits.build("test_resnet", 0)
    options = Options.model_validate({"tune": {"last_layers": 5}})
    with pytest.raises(RequestError, match=r"transfer\.tune\.last_layers: 5 .* has 5 stages"):
        last_layers.check(Blueprint(backbone, options))
    last_layers.check(Blueprint(backbone, Options.model_validate({"tune": {"last_layers": 4}})))


def test_stages_thaw_from_the_last_to_the_first_within_half_of_the_steps() -> None:
    assert [gradual_unfreezing.thawed(step, 16, 4) for step in range(16)] == [0, 0, 1, 1, 2, 2, 3, 3] + [4] * 8
    assert gradual_unfreezing.thawed(0, 1, 4) == 0


def test_gradual_unfreezing_moves_the_head_alone_then_stage_after_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[nn.Module] = []
    seen: list[set[int]] = []
    before = Training._batch

    def batch(self: Training, step: int) -> torch.Tensor:
        seen.append(moved(digits.MLP, kept[0]))
        return before(self, step)

    monkeypatch.setattr(Training, "_batch", batch)
    options = {"tune": {"steps": 12, "learning_rates": [1e-2]}}
    gradual_unfreezing.fit(seeing(digits.task(digits.MLP, **options), kept))
    assert seen == [set()] * 3 + [{2}] * 2 + [{1, 2}] * 2 + [{0, 1, 2}] * 5


def test_layer_decay_is_beits_rule() -> None:
    """rate * decay^(L + 1 - l): a ViT of six blocks has L = 6, the stem is 0 and the head L + 1 (BEiT's code)."""
    network = with_head(digits.build("test_vit", 0), 10)
    shares = layer_decay.scales(network, 0.5)
    assert shares["0.patch_embed.proj.weight"] == shares["0.pos_embed"] == 0.5**7
    assert [shares[f"0.blocks.{block}.attn.qkv.weight"] for block in range(6)] == [0.5 ** (6 - b) for b in range(6)]
    assert shares["0.norm.weight"] == 0.5
    assert not any(name.startswith("1.") for name in shares)
    assert set(shares) == {name for name, _ in network.named_parameters() if name.startswith("0.")}


def test_layer_decay_moves_layers_by_their_shares() -> None:
    """The first AdamW step moves every weight by the rate, whatever its gradient is, weight decay aside."""
    task = digits.task(digits.MLP)
    network = with_head(digits.encoder(digits.MLP), 10)
    nn.init.normal_(network[1].weight, generator=torch.Generator().manual_seed(0))
    start = {name: value.clone() for name, value in network.named_parameters()}
    schedule = Schedule(1, 64, [1e-3], 0.0)
    train(task, schedule, lambda: Start(network, scales=layer_decay.scales(network, 0.5)))
    for name, value in network.named_parameters():
        largest = (value - start[name]).abs().max().item()
        share = 1.0 if name.startswith("1.") else 0.5 ** (3 - int(name.split(".")[2]) // 2)
        assert largest == pytest.approx(1e-3 * share, rel=1e-2), name


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "mlp:8x4"])
def test_every_parameter_has_a_layer_and_depth_grows_with_the_network(name: str, coarse: bool) -> None:
    backbone = digits.build(name, 0)
    found = depths(backbone, coarse=coarse)
    assert list(found) == [key for key, _ in backbone.named_parameters()]
    assert set(found.values()) == set(range(num_layers(found)))
    if name != "test_vit":  # whose class token and positions stand before the patches
        assert list(found.values()) == sorted(found.values())


def test_what_is_no_stack_is_one_layer() -> None:
    assert set(depths(nn.Linear(2, 2), coarse=True).values()) == {0}


def test_steps_are_those_of_training_from_scratch_unless_given() -> None:
    for given, steps in ((None, 70), (5, 5)):
        task = digits.task(digits.MLP, scratch={"steps": 70}, tune={"steps": given})
        assert task.context is not None
        assert schedule_of(task.context).steps == steps


def test_learning_rate_is_chosen_on_val() -> None:
    task = digits.task(digits.MLP, tune={"steps": 8, "learning_rates": [1e-7, 3e-2]})
    assert fine_tune.fit(task).chosen["learning_rate"] == 3e-2
    flipped = dataclasses.replace(task, val_labels=(task.val_labels + 1) % 10)
    assert fine_tune.fit(flipped).chosen["learning_rate"] == 1e-7


def test_training_on_other_rows_than_the_tasks() -> None:
    """Rows without labels (-1) reach the loss."""
    task = digits.task(digits.MLP, labelled=4)
    seen: list[list[int]] = []

    def loss(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(sorted(labels.tolist()))
        return network(inputs).square().mean()

    rows = np.arange(900, 906), np.array([3, -1, -1, -1, -1, 5])
    train(
        task,
        Schedule(1, 64, [1e-3], 0.0),
        lambda: Start(with_head(digits.encoder(digits.MLP), 10), loss=loss, rows=rows),
    )
    assert seen == [[-1, -1, -1, -1, 3, 5]]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"last_layers": 0}, {"layer_decay": 1.5}, {"lora_rank": 0}, {"lora_alpha": 0}]
)
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.model_validate({"tune": wrong})
