"""Weights in parts (FSDP2) and recomputed activations: the same bits as without, whole checkpoints, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_loop import make_job, train
from tests_ranks import TinyConv, tiny, tiny_batch
from timm.models.vision_transformer import VisionTransformer
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ssl_tasks import methods
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.pretrain import check
from ssl_tasks.training import optim, sharding
from ssl_tasks.training.collectives import convert_sync_batchnorm
from ssl_tasks.training.config import PretrainConfig

CONV = {"backbone": "test_resnet", "batch_size": 32}
LARS = {"name": "lars", "lr": 0.1, "clip_norm": 1.0}
BYOL = {"name": "byol", "hidden_dim": 32, "out_dim": 16}
SOME = {"precision": "fp64", "max_steps": 4, "checkpoint_every_steps": 2}
RUNS: dict[str, dict[str, Any]] = {
    "simclr": {**CONV, **SOME, "method": "simclr"},
    "dae in two parts": {**CONV, **SOME, "method": "dae", "accumulate": 2, "sync_batch_norm": False},
}
BY_LARS = {**CONV, **SOME, "method": BYOL, "optimizer": LARS}
ARTIFACTS = "PRETEXTFLOW_TEST_ARTIFACTS"
"""The ranks of a session know this folder, whenever they began."""


def deep_vit() -> VisionTransformer:
    """Of two blocks, for images of 2 x 8 x 8."""
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=8, patch_size=2, in_chans=2, num_classes=0, embed_dim=32, depth=2, num_heads=2)
    vit.num_features = 32
    return vit


def place() -> Path:
    """A file that names a job to go on with."""
    return Path(os.environ[ARTIFACTS]) / "sharding.json"


def seen(trainer: Any) -> dict[str, Any]:
    state = {name: tensor.clone() for name, tensor in trainer.method.state_dict().items()}
    return {"history": trainer.history, "health": trainer.health, "state": {} if trainer.is_sharded else state}


def whole_and_sharded() -> list[list[dict[str, Any]]]:
    return [[seen(train(make_job(**options, sharding=kind))) for kind in ("none", "fsdp")] for options in RUNS.values()]


def test_sharded_training_is_the_same(run_ranks: Any) -> None:
    """Bit for bit, but for norms over all weights, which are added up part by part: the losses are the same, and so are
    weights under an optimizer that looks at no norm."""
    first, second = run_ranks(whole_and_sharded)
    for name, (whole, parts), (_, others) in zip(RUNS, first, second, strict=True):
        assert parts["history"] == others["history"]
        for values in ("history", "health"):
            assert parts[values].keys() == whole[values].keys()
            for key, expected in whole[values].items():
                np.testing.assert_allclose(parts[values][key], expected, rtol=1e-10, atol=1e-12, err_msg=key)
        assert len(set(whole["history"]["loss"])) == 4
        assert list(parts["state"]) == list(whole["state"])  # rank 0's method was put together for what comes after
        for key, tensor in whole["state"].items():
            assert torch.equal(parts["state"][key], tensor), (name, key)
        assert parts["history"]["loss"] == whole["history"]["loss"]


KINDS = ("clip", "gan", "dino", "siglip")
"""A scale that is a scalar, two phases, a teacher of blocks on a ViT, a scale and a bias."""
CASES = [(name, optimizer) for name in KINDS for optimizer in ("sgd", "adamw")]


def some_kinds() -> list[list[dict[str, torch.Tensor]]]:
    return [[two_steps(*case, sharded=kind) for kind in (False, True)] for case in CASES]


def two_steps(name: str, optimizer_name: Any, sharded: bool) -> dict[str, torch.Tensor]:
    """What two steps leave, in two ranks."""
    spec = methods.spec(name)
    method = tiny(spec, backbone=deep_vit() if name == "dino" else None)
    batch = tiny_batch(method)
    convert_sync_batchnorm(method, "cpu")
    if sharded:
        sharding.shard(method, torch.device("cpu"))
    several = len(method.phases) > 1
    call: Any = method if sharded else DistributedDataParallel(method, find_unused_parameters=several)
    config = optim.OptimizerConfig(name=optimizer_name, lr=0.1, weight_decay=0.01)
    optimizers = {phase: optim.build_optimizer(method.param_groups(phase), config) for phase in method.phases}
    for _ in range(2):
        for phase, optimizer in optimizers.items():
            optimizer.zero_grad()
            call(batch, phase)["loss"].backward()
            norm = optim.clip([weight for group in optimizer.param_groups for weight in group["params"]], 1e6)
            optimizer.step()
        method.after_step(0.5)
    return {"norm": norm, **{key: tensor.clone() for key, tensor in sharding.gathered(method.state_dict()).items()}}


def test_teachers_phases_and_scalars_are_sharded_too(run_ranks: Any) -> None:
    start = {name: tiny(methods.spec(name), backbone=deep_vit() if name == "dino" else None) for name in KINDS}
    for found in run_ranks(some_kinds):
        for (name, kind), (whole, parts) in zip(CASES, found, strict=True):
            off = 1e-5 if kind == "adamw" else 0.0  # its kernel rounds the last few of a part's numbers otherwise
            torch.testing.assert_close(parts.pop("norm"), whole.pop("norm"), rtol=1e-12, atol=0)
            assert list(parts) == list(whole) == list(start[name].state_dict())
            for key, tensor in whole.items():
                torch.testing.assert_close(parts[key], tensor, rtol=off, atol=off, msg=f"{name}, {kind}: {key}")
            assert any(not torch.equal(parts[key], tensor) for key, tensor in start[name].state_dict().items())


MOVED = {**BY_LARS, "max_steps": 5}


def stopped_in_parts() -> list[str]:
    """Broken off a step after a checkpoint, in the ranks; where that lies."""
    job = make_job(**MOVED, sharding="fsdp")
    trainer = train(job, stop=3)
    held = sum(weight.to_local().numel() for weight in trainer.method.parameters() if isinstance(weight, DTensor))
    assert 0.45 < held / sum(weight.numel() for weight in trainer.method.parameters()) < 0.55
    return [job.out.uri, job.out.fingerprint]


def continued_in_parts() -> dict[str, Any]:
    uri, fingerprint = json.loads(place().read_text())
    trainer = train(make_job(**MOVED, place=(uri, fingerprint), sharding="fsdp"))
    return {**trainer.history, "resumed_at": trainer.resumed_at}


def test_a_run_goes_on_without_sharding_and_with_it(run_ranks: Any) -> None:
    """One worker after two with parts, and two with parts after one: momentum and teacher come along."""
    expected = train(make_job(**MOVED)).history
    uri, fingerprint = run_ranks(stopped_in_parts)[0]
    alone = train(make_job(**MOVED, place=(uri, fingerprint)))
    job = make_job(**MOVED)
    train(job, stop=3)
    place().write_text(json.dumps([job.out.uri, job.out.fingerprint]))
    for found in [{**alone.history, "resumed_at": alone.resumed_at}, *run_ranks(continued_in_parts)]:
        assert found["resumed_at"] == 2
        for name in ("loss", "grad_norm", "lr"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-8, err_msg=name)


def test_recomputed_activations_give_the_same_bits() -> None:
    """Batch norms too: the second forward of a batch leaves running statistics alone."""
    options = {**BY_LARS, "precision": "fp32"}
    plain, again = (seen(train(make_job(**options, activation_checkpointing=on))) for on in (False, True))
    assert again["history"] == plain["history"]
    assert list(again["state"]) == list(plain["state"])
    assert all(torch.equal(again["state"][key], tensor) for key, tensor in plain["state"].items())


def test_recomputing_calls_a_block_again_for_the_same_gradients() -> None:
    gradients: list[list[torch.Tensor]] = []
    for again in (False, True):
        method, calls = tiny(methods.spec("mae"), backbone=deep_vit()), []
        if again:
            sharding.recompute(method)
        method.backbone.blocks[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        method(tiny_batch(method), "main")["loss"].backward()
        assert len(calls) == (2 if again else 1)
        gradients.append([weight.grad for weight in method.parameters() if weight.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_blocks_are_the_innermost_repeated_parts() -> None:
    import timm

    vit, resnet = timm.create_model("test_vit"), timm.create_model("test_resnet")
    assert sharding.blocks(vit) == list(vit.blocks)
    assert {type(block).__name__ for block in sharding.blocks(resnet)} == {"BasicBlock", "Bottleneck"}
    assert sharding.blocks(TinyConv()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "channels_last"}, r"pretrain\.layout: channels_last does not go with pretrain\.sharding=fsdp"),
        ({"compile": "always"}, r"pretrain\.compile: always .* set it to never or auto"),
        ({"ema_decay": 0.9}, r"pretrain\.ema_decay: 0\.9"),
    ],
)
def test_what_does_not_go_with_sharding_is_refused_before_the_start(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check(PretrainConfig.model_validate({**options, "sharding": "fsdp"}))
    check(PretrainConfig.model_validate(options))


def test_methods_and_networks_that_cannot_are_refused() -> None:
    for name in ("contractive", "deepcluster"):
        method = tiny(methods.spec(name), **({"num_clusters": 4} if name == "deepcluster" else {}))
        with pytest.raises(RequestError, match=rf"pretrain\.sharding: {name} needs its weights whole"):
            sharding.refuse(method, PretrainConfig(sharding="fsdp"))
        sharding.refuse(method, PretrainConfig())
    with pytest.raises(RequestError, match=r"pretrain\.activation_checkpointing: resnet18 has no blocks"):
        sharding.refuse(method, PretrainConfig(activation_checkpointing=True))


def test_both_are_left_out_of_the_fingerprint() -> None:
    from ssl_tasks.config import semantic

    assert semantic(PretrainConfig(sharding="fsdp", activation_checkpointing=True)) == semantic(PretrainConfig())
