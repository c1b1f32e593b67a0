"""One contract for every method and each of its modalities: a new method is covered by being listed."""

import copy
import functools

import pytest
import torch
from tests_ranks import some_text, text_of
from torch import Tensor

from ssl_tasks.backbones import build_backbone
from ssl_tasks.methods import names, spec
from ssl_tasks.methods.base import Batch, Method, MethodConfig, TrainStats
from ssl_tasks.methods.rbm import NEEDS
from ssl_tasks.modalities.captions import CAPTIONS
from ssl_tasks.randomness import row_keys

INPUTS = {"image": ((3, 10, 10), "test_resnet"), "tabular": ((7,), "mlp:16x2")}
NEEDED = {"a ViT": "test_vit", NEEDS: "rbm:16"}
"""Backbones of methods that cannot do with any."""
FALLING = {"rbm": "reconstruction_error"}
"""What training lowers where the loss's value says nothing: a difference of free energies is 0 when the model fits."""
OPTIONS = {("combined", "tabular"): {"objectives": {"dae": {}, "scarf": {"loss_weight": 0.5}}}}
"""Of methods whose defaults are not for all their modalities."""
CASES = [(name, modality) for name in names() for modality in spec(name).modalities]
NORMALIZATION = {"input": "standard", "mean": [0.5] * 3, "std": [0.25] * 3}
NUM_ROWS = 8
NUM_TRAIN = 200


def narrow(name: str, modality: str) -> MethodConfig:
    """The defaults, but for widths meant for ImageNet: with those this file takes minutes."""
    config = spec(name).config
    defaults = {key: info.default for key, info in config.model_fields.items() if isinstance(info.default, int)}
    small = {key: 64 for key, default in defaults.items() if default > 512}
    return config(name=name, **small, **OPTIONS.get((name, modality), {}))


def make(name: str, modality: str, seed: int = 0) -> Method:
    """As `build`, a copy where the same was made before."""
    return copy.deepcopy(built(name, modality, seed))


@functools.lru_cache(maxsize=4)
def built(name: str, modality: str, seed: int) -> Method:
    return build(name, modality, seed)


def build(name: str, modality: str, seed: int = 0) -> Method:
    backbone, shape = backbone_of(name, modality, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        method = spec(name).method(narrow(name, modality), backbone, shape, **text_of(spec(name)))
    sample, positions = samples(50, modality, seed=9), torch.arange(NUM_TRAIN)
    method.prepare(TrainStats(NUM_TRAIN, sample, positions, NORMALIZATION))
    return method.train()


def samples(count: int, modality: str, seed: int) -> Tensor:
    return torch.randn(count, *INPUTS[modality][0], generator=torch.Generator().manual_seed(seed))


def make_batch(name: str, modality: str, step: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    positions = torch.arange(10, 10 + NUM_ROWS)
    plain = samples(NUM_ROWS, modality, seed=1)
    policies = spec(name).method.views_for(narrow(name, modality)).policies
    views = [
        plain if policy == "plain" else plain + 0.3 * samples(NUM_ROWS, modality, seed=2 + number)
        for number, policy in enumerate(policies)
    ]
    text = some_text(NUM_ROWS) if CAPTIONS in spec(name).needs else None
    return Batch([view.to(dtype) for view in views], positions, row_keys(0, step, positions), text)


def backbone_of(name: str, modality: str, seed: int = 0) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape, backbone_name = INPUTS[modality]
    found = spec(name)
    backbone_name = next((NEEDED[need] for need in found.needs if need in NEEDED), backbone_name)
    pool = found.method.pool_for(narrow(name, modality))
    return build_backbone(backbone_name, modality=modality, input_shape=shape, pool=pool, seed=seed), shape


def loss_of(method: Method, batch: Batch) -> Tensor:
    return torch.stack([method(batch, phase)["loss"] for phase in method.phases]).sum()


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


def test_every_listed_method_says_what_it_is(case):
    found = spec(case[0])
    assert found.name == case[0]
    assert found.paper
    assert found.family
    config = found.config(name=found.name)
    with pytest.raises(ValueError, match="name"):
        found.config(name="another")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "another"


def test_forward_gives_a_finite_scalar_and_detached_scalars_whose_gradient_reaches_all(case):
    method = make(*case)
    for phase in method.phases:
        output = method(make_batch(*case), phase)
        assert output["loss"].shape == ()
        assert output["loss"].dtype == torch.float32
        assert torch.isfinite(output["loss"])
        for key, value in output.items():
            assert value.shape == (), key
            assert value.requires_grad == (key == "loss"), key
        output["loss"].backward()
    silent = [name for name, p in method.named_parameters() if p.grad is None and p.requires_grad]
    assert silent == []  # DDP waits for every parameter's gradient
    assert sum(float(p.grad.abs().sum()) for p in method.backbone.parameters() if p.requires_grad) > 0


def test_loss_follows_from_weights_inputs_and_keys_alone(case):
    batch = make_batch(*case)
    torch.manual_seed(1)
    first = loss_of(build(*case), batch)
    torch.manual_seed(2)
    assert torch.equal(first, loss_of(build(*case), batch))
    assert not torch.equal(first, loss_of(make(*case, seed=3), batch))


def test_a_method_that_says_the_same_of_everything_is_at_chance(case):
    method, (phase, *_) = make(*case), make(*case).phases
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.zero_()
    logged = {key: value.detach() for key, value in method(make_batch(*case), phase).items()}
    for key, value in method.chance().items():
        away = float(logged["proximity"]) * method.config.proximal_weight if "proximity" in logged else 0.0
        assert float(logged[key]) - away == pytest.approx(value, rel=1e-5)


def test_every_view_is_used(case):
    batch = make_batch(*case)
    before = loss_of(make(*case), batch)
    for number in range(len(batch.views)):
        changed = copy.deepcopy(batch)
        changed.views[number][0].neg_()  # no shift: methods that normalize patches do not see one
        assert not torch.equal(before, loss_of(make(*case), changed)), f"view {number} makes no difference"


def test_forward_leaves_its_batch_alone(case):
    batch = make_batch(*case)
    before = copy.deepcopy(batch)
    loss_of(make(*case), batch).backward()
    assert all(torch.equal(a, b) for a, b in zip(batch.views, before.views, strict=True))
    assert torch.equal(batch.keys, before.keys)


def test_steps_of_a_phase_on_one_batch_lower_its_loss(case):
    """Each phase on its own: those of an adversarial method work against each other, and their sum need not fall."""
    batch = make_batch(*case)
    for phase in make(*case).phases:
        method = make(*case)
        optimizer = torch.optim.AdamW(method.param_groups(phase), lr=2e-3)
        losses = []
        for _ in range(15):
            output = method(batch, phase)
            losses.append(output[FALLING.get(case[0], "loss")].item())
            optimizer.zero_grad()
            output["loss"].backward()
            optimizer.step()
        drop = losses[0] - losses[-1]
        assert drop > 0.02 * abs(losses[0]), (phase, losses)
        assert drop > 0.02, (phase, losses)


def test_state_dict_round_trip_is_exact(case):
    method, other = make(*case), make(*case, seed=5)
    loss_of(method, make_batch(*case)).backward()  # batch norm statistics have moved
    unprepared = spec(case[0]).method(narrow(*case), *backbone_of(*case, seed=6), **text_of(spec(case[0])))
    expected = loss_of(copy.deepcopy(method), make_batch(*case, step=1))
    for target in (other, unprepared):
        target.load_state_dict(copy.deepcopy(method.state_dict()))
        for key, value in method.state_dict().items():
            assert torch.equal(value, target.state_dict()[key]), key
        assert torch.equal(loss_of(target, make_batch(*case, step=1)), expected)


SHARED = {"aae"}
"""Methods two of whose phases move the same parameters: its encoder reconstructs and is the generator."""


def test_param_groups_hold_every_parameter_once(case):
    method = make(*case)
    phases = [[id(p) for group in method.param_groups(phase) for p in group["params"]] for phase in method.phases]
    assert all(len(listed) == len(set(listed)) for listed in phases)
    everywhere = [number for listed in phases for number in listed]
    assert (len(everywhere) > len(set(everywhere))) == (case[0] in SHARED)
    assert set(everywhere) == {id(p) for p in method.parameters() if p.requires_grad}


def test_float64_stays_float64(case):
    narrow, wide = make(*case), make(*case).double()
    loss = loss_of(wide, make_batch(*case, dtype=torch.float64))
    assert loss.dtype == torch.float64
    loss.backward()
    assert all(p.grad.dtype == torch.float64 for p in wide.parameters() if p.requires_grad)
    # not equal: float64 draws its noise with more bits, so single entries may be masked in one and not in the other
    assert loss.item() == pytest.approx(loss_of(narrow, make_batch(*case)).item(), rel=0.3)


def test_bf16_autocast_keeps_the_loss_wide(case):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(make(*case), make_batch(*case))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(make(*case), make_batch(*case)).item(), rel=0.1, abs=0.05)
