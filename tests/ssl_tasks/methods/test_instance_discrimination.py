"""Both losses against loops written from the paper; the bank, entry by entry; two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import (
    SHAPE,
    TinyConv,
    assert_ranks_agree,
    assert_same_loss_and_gradients,
    one_step,
    rows,
    tiny,
    tiny_batch,
)
from torch import Tensor
from torch.nn import functional

from ssl_tasks.methods import instance_discrimination
from ssl_tasks.methods.base import Batch, TrainStats
from ssl_tasks.methods.instance_discrimination import (
    SPEC,
    InstanceDiscrimination,
    InstanceDiscriminationConfig,
    instance_nce,
    instance_softmax,
)

INDEX = torch.tensor([6, 0, 3, 3])
NOISE = torch.tensor([[1, 2, 6], [0, 4, 4], [5, 1, 0], [2, 2, 2]])


def unit(*shape: int, seed: int) -> Tensor:
    return functional.normalize(rows(*shape, seed=seed), dim=1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_softmax(z: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """Equations 2 and 3 of arXiv 1805.01978, image by image."""
    losses = []
    for v, i in zip(z, INDEX.tolist(), strict=True):
        shares = [torch.exp(dot(entry, v) / temperature) for entry in bank]
        losses.append(-torch.log(shares[i] / sum(shares)))
    return sum(losses) / len(losses)


def naive_nce(z: Tensor, bank: Tensor, temperature: float, normalizer: float) -> Tensor:
    """Equations 4, 5 and 7: one image against its noise at a time."""
    m, n = NOISE.shape[1], len(bank)

    def h(v: Tensor, i: int) -> Tensor:
        share = torch.exp(dot(bank[i], v) / temperature) / normalizer
        return share / (share + m / n)

    losses = [
        -torch.log(h(v, i)) - sum(torch.log(1 - h(v, j)) for j in noise)
        for v, i, noise in zip(z, INDEX.tolist(), NOISE.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_softmax_over_the_bank_and_its_gradient_against_the_paper(temperature):
    bank = unit(7, 3, seed=1)
    assert_same_loss_and_gradients(
        lambda z: instance_softmax(z, bank, INDEX, temperature)[0],
        lambda z: naive_softmax(z, bank, temperature),
        [unit(4, 3, seed=0)],
    )


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("max_numbers", [1, 25, 1 << 24])
def test_the_estimation_and_its_gradient_against_the_paper(monkeypatch, temperature, max_numbers):
    monkeypatch.setattr(instance_discrimination, "MAX_NUMBERS", max_numbers)
    bank, normalizer = unit(7, 3, seed=1), torch.tensor(9.5, dtype=torch.float64)
    assert_same_loss_and_gradients(
        lambda z: instance_nce(z, bank, INDEX, NOISE, temperature, normalizer)[0],
        lambda z: naive_nce(z, bank, temperature, 9.5),
        [unit(4, 3, seed=0)],
    )


def test_instance_accuracy_counts_rows_whose_own_entry_is_nearest():
    eye, index = torch.eye(4), torch.tensor([0, 1, 3, 2])
    assert instance_softmax(eye, eye, index, 0.1)[1] == 0.5
    noise = torch.tensor([[1, 2], [0, 3], [0, 1], [0, 3]])
    assert instance_nce(eye, eye, index, noise, 0.1, torch.tensor(4.0))[1] == 0.75  # the third row's noise is no nearer


def test_the_estimation_grows_out_of_the_softmax():
    """With Z exact and noise without end both have one gradient (Gutmann and Hyvarinen 2010); here it is near."""
    bank, z, index = unit(50, 8, seed=1), unit(1, 8, seed=0).requires_grad_(), torch.tensor([7])
    exact = (z.detach() @ bank.T / 0.5).exp().sum()
    noise = torch.arange(50).repeat(400)[None]
    (expected,) = torch.autograd.grad(instance_softmax(z, bank, index, 0.5)[0], z)
    (found,) = torch.autograd.grad(instance_nce(z, bank, index, noise, 0.5, exact)[0], z)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.0), ("momentum", 1.0), ("proximal_weight", -1.0), ("num_negatives", 0), ("out_dim", 0)],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        InstanceDiscriminationConfig(name="instance_discrimination", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_one_entry_of_unit_length_stands_for_each_train_row_and_z_is_that_of_random_directions():
    method = tiny(SPEC, 4000, out_dim=3, temperature=0.5)
    assert method.bank.shape == (4000, 3)
    torch.testing.assert_close(method.bank.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    # on a sphere the cosine with any direction is uniform: the mean of exp(2 t) is sinh(2) / 2
    assert float(method.normalizer) / 4000 == pytest.approx(math.sinh(2) / 2, rel=0.05)


def with_gaps() -> InstanceDiscrimination:
    """Of six train rows, at other places of the payload."""
    torch.manual_seed(0)
    config = InstanceDiscriminationConfig(name="instance_discrimination", out_dim=3, momentum=0.25)
    method = InstanceDiscrimination(config, TinyConv(), SHAPE)
    method.prepare(TrainStats(6, torch.zeros(1, *SHAPE), torch.tensor([2, 3, 7, 8, 20, 21])))
    return method.double()


def test_rows_find_their_entries_by_position_and_move_them_after_the_step():
    method, images = with_gaps(), rows(3, *SHAPE, seed=0)
    batch = Batch([images], torch.tensor([20, 2, 8]), torch.arange(3))
    before = method.bank.clone()
    output = method(batch, "main")
    assert torch.equal(method.bank, before)
    (index, z), *rest = method.fresh
    assert not rest
    assert not z.requires_grad
    assert index.tolist() == [4, 0, 3]
    output["loss"].backward()
    method.after_step(0.5)
    assert method.fresh == []
    for row, entry in enumerate([4, 0, 3]):
        moved = 0.25 * before[entry] + 0.75 * z[row]
        torch.testing.assert_close(method.bank[entry], moved / moved.norm())
    assert torch.equal(method.bank[[1, 2, 5]], before[[1, 2, 5]])


def test_a_method_that_was_not_prepared_goes_on_from_a_checkpoint_with_its_entries():
    method, batch = with_gaps(), Batch([rows(3, *SHAPE, seed=0)], torch.tensor([20, 2, 8]), torch.arange(3))
    method(batch, "main")
    method.after_step(0.5)
    config = InstanceDiscriminationConfig(name="instance_discrimination", out_dim=3, momentum=0.25)
    resumed = InstanceDiscrimination(config, TinyConv(), SHAPE).double()
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed(batch, "main")["loss"], method(batch, "main")["loss"])
    for each in (method, resumed):
        each.after_step(0.5)
    assert torch.equal(resumed.bank, method.bank)


def test_the_loss_is_the_softmax_and_the_weighted_distance_to_the_own_entry():
    method = tiny(SPEC, out_dim=3, proximal_weight=2.5)
    batch = tiny_batch(method)
    output = method(batch, "main")
    z = method.fresh[0][1]
    distance = sum((a - b) ** 2 for a, b in zip(z.flatten(), method.bank[:8].flatten(), strict=True)) / 8
    torch.testing.assert_close(output["proximity"], distance)
    expected = instance_softmax(z, method.bank, torch.arange(8), 0.07)[0] + 2.5 * distance
    torch.testing.assert_close(output["loss"].detach(), expected)


def test_noise_is_drawn_from_all_of_the_bank_by_each_rows_own_key(monkeypatch):
    monkeypatch.setattr(instance_discrimination, "FULL_SOFTMAX_ROWS", 39)
    method = tiny(SPEC, 40, out_dim=3, num_negatives=50, proximal_weight=0.0)
    drawn = []
    true_loss = instance_discrimination.instance_nce
    monkeypatch.setattr(
        instance_discrimination, "instance_nce", lambda *given: drawn.append(given[3]) or true_loss(*given)
    )
    batch = tiny_batch(method)
    loss = method(batch, "main")["loss"].detach()
    (noise,) = drawn
    assert noise.shape == (8, 50)
    assert noise.unique().tolist() == list(range(40))
    expected = true_loss(method.fresh[0][1], method.bank, torch.arange(8), noise, 0.07, method.normalizer)[0]
    torch.testing.assert_close(loss, expected)
    method(Batch([view[3:5] for view in batch.views], batch.positions[3:5], batch.keys[3:5]), "main")
    assert torch.equal(drawn[1], noise[3:5])


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, out_dim=3)


def in_ranks_with_noise() -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_discrimination, "FULL_SOFTMAX_ROWS", 39)
        return one_step(SPEC, out_dim=3, num_negatives=5)


@pytest.mark.parametrize("function", [in_ranks, in_ranks_with_noise])
def test_two_ranks_compute_the_loss_gradients_and_bank_of_one(run_ranks, function):
    alone = function()
    assert {"buffer bank", "buffer positions"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(function))
