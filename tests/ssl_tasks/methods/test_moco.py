"""InfoNCE with a queue against loops written from the paper; the queue, a ring; two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor
from torch.nn import functional

from ssl_tasks.methods.moco import SPEC, MoCo, MoCoConfig, info_nce


def naive_info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Equation 1 of arXiv 1911.05722, query by query."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        own = torch.exp(sum(a * b for a, b in zip(query, key, strict=True)) / temperature)
        others = [torch.exp((query * negative).sum() / temperature) for negative in queue]
        losses.append(-torch.log(own / (own + sum(others))))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_and_its_gradient_against_the_paper(temperature):
    inputs = [functional.normalize(rows(count, 3, seed=seed), dim=1) for seed, count in enumerate((5, 5, 7))]
    assert_same_loss_and_gradients(
        lambda *z: info_nce(*z, temperature)[0], lambda *z: naive_info_nce(*z, temperature), inputs
    )


def test_contrast_accuracy_counts_queries_whose_own_key_is_nearest():
    eye = torch.eye(4)
    assert info_nce(eye[:2], eye[:2], eye[2:], 0.1)[1] == 1.0
    assert info_nce(eye[:2], eye[2:], eye[:1], 0.1)[1] == 0.5


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.0), ("momentum", 1.0), ("momentum", -0.1), ("queue_size", 0), ("out_dim", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        MoCoConfig(name="moco", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


@pytest.mark.parametrize(("num_rows", "size"), [(1, 1), (41, 20), (200_000, 65_536)])
def test_the_queue_is_the_papers_but_at_most_half_the_train_rows(num_rows, size):
    queue = tiny(SPEC, num_rows, out_dim=2).queue
    assert queue.shape == (size, 2)
    torch.testing.assert_close(queue.norm(dim=1), torch.ones(size, dtype=torch.float64))


def test_a_queue_that_was_asked_for_is_as_long_as_that():
    assert tiny(SPEC, 10, queue_size=30, out_dim=3).queue.shape == (30, 3)


def push(method: MoCo, *numbers: int) -> list[float]:
    """The queue's first column after keys that hold these numbers came in."""
    method.fresh = [torch.tensor([[float(number), 0.0]]) for number in numbers]
    method.after_step(0.5)
    assert method.fresh == []
    return method.queue[:, 0].tolist()


def test_the_queue_is_a_ring():
    method = tiny(SPEC, queue_size=5, out_dim=2)
    before = method.queue[:, 0].tolist()
    assert push(method, 1, 2, 3) == [1, 2, 3, *before[3:]]
    assert push(method, 4, 5, 6) == [6, 2, 3, 4, 5]
    assert push(method, 7) == [6, 7, 3, 4, 5]


def test_of_a_batch_longer_than_the_queue_the_last_keys_stay():
    method = tiny(SPEC, queue_size=3, out_dim=2)
    assert sorted(push(method, 1, 2, 3, 4, 5)) == [3, 4, 5]
    assert sorted(push(method, 6, 7)) == [5, 6, 7]  # the oldest went first


def test_keys_enter_after_the_step_and_are_of_unit_length():
    method = tiny(SPEC, queue_size=20, out_dim=3)
    before = method.queue.clone()
    loss = method(tiny_batch(method), "main")["loss"]
    assert torch.equal(method.queue, before)
    keys = method.fresh[0]
    assert not keys.requires_grad
    loss.backward()
    method.after_step(0.5)
    assert torch.equal(method.queue[:8], keys)
    assert torch.equal(method.queue[8:], before[8:])
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_the_key_encoder_follows_with_the_momentum_and_takes_no_gradient():
    method = tiny(SPEC, momentum=0.75, out_dim=3)
    method(tiny_batch(method), "main")["loss"].backward()
    kept = list(method.key_encoder.parameters())
    students = [*method.backbone.parameters(), *method.head.parameters()]
    assert all(parameter.grad is None for parameter in kept)
    before = [parameter.clone() for parameter in kept]
    with torch.no_grad():
        for student in students:
            student += 1.0
    method.after_step(1.0)
    for parameter, old, student in zip(kept, before, students, strict=True):
        torch.testing.assert_close(parameter, 0.75 * old + 0.25 * student)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, queue_size=11, out_dim=3, momentum=0.9)


def test_two_ranks_compute_the_loss_gradients_and_queue_of_one(run_ranks):
    alone = in_ranks()
    assert {"buffer queue", "buffer place"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
