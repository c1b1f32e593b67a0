"""SwAV: Sinkhorn-Knopp and the swapped loss against loops written from the paper; prototypes, queue; two processes."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor
from torch.nn import functional

from ssl_tasks.methods.sinkhorn import sinkhorn
from ssl_tasks.methods.swav import SPEC, SwAV, SwAVConfig, swapped_prediction
from ssl_tasks.training.collectives import rank, world_size

SMALL = {"num_local": 2, "num_prototypes": 5, "hidden_dim": 7, "out_dim": 4}


def naive_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Listing A.1 of arXiv 2006.09882: Q is (K, B), and sums to 1."""
    q = torch.exp(scores / epsilon).T
    num_prototypes, num_rows = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        for k in range(num_prototypes):
            q[k] = q[k] / sum(q[k]) / num_prototypes
        for b in range(num_rows):
            q[:, b] = q[:, b] / sum(q[:, b]) / num_rows
    return (q * num_rows).T


def naive_swap(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Equations 2 and 6, summed over the other views and averaged."""
    losses = []
    for t in range(2):
        for v in range(len(scores)):
            for b in range(scores.shape[1] if v != t else 0):
                p = torch.exp(scores[v, b] / temperature)
                losses.append(-sum(q * torch.log(share) for q, share in zip(codes[t, b], p / p.sum(), strict=True)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1), (1.0, 10)])
def test_sinkhorn_against_the_paper(epsilon, iterations):
    scores = functional.normalize(rows(7, 4, seed=0), dim=1)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), naive_sinkhorn(scores, epsilon, iterations))


def test_sinkhorn_shares_rows_out_evenly_and_stands_a_small_epsilon():
    codes = sinkhorn(rows(8, 4, seed=1), 0.5, 500)
    torch.testing.assert_close(codes.sum(dim=0), torch.full((4,), 2.0, dtype=torch.float64))
    # All rows like prototype 0 best, rows 2 and 3 least: they go to the other. Of one that keeps q at prototype 0, the
    # next iteration leaves q / (1 + 2 q); the first leaves 1/3, so after three it is 1/7.
    codes = sinkhorn(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.9], [1.0, 0.9]]), 1e-3, 3)
    torch.testing.assert_close(codes, torch.tensor([[1.0, 0.0], [1.0, 0.0], [1 / 7, 6 / 7], [1 / 7, 6 / 7]]))


@pytest.mark.parametrize("num_views", [2, 4])
def test_the_loss_and_its_gradient_against_the_paper(num_views):
    codes = rows(2, 3, 4, seed=1).softmax(dim=2)
    assert_same_loss_and_gradients(
        lambda s: swapped_prediction(s, codes, 0.3),
        lambda s: naive_swap(s, codes, 0.3),
        [rows(num_views, 3, 4, seed=0)],
    )


def test_the_forward_takes_codes_of_the_global_views_without_gradient():
    method = tiny(SPEC, freeze_prototypes=0.0, **SMALL)
    batch = tiny_batch(method)
    outputs = [method.projector(method.backbone(torch.cat(part))) for part in (batch.views[:2], batch.views[2:])]
    z = functional.normalize(torch.cat(outputs).view(4, 8, 4), dim=2)
    scores = z @ method.prototypes.T
    codes = torch.stack([naive_sinkhorn(scores[view].detach(), 0.05, 3) for view in range(2)])
    expected = naive_swap(scores, codes, 0.1)
    loss = method(batch, "main")["loss"]
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-10)
    weights = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_local", -1),
        ("num_prototypes", 1),
        ("temperature", 0.0),
        ("epsilon", 0.0),
        ("iterations", 0),
        ("freeze_prototypes", 1.0),
        ("queue_size", -1),
        ("queue_start", 1.0),
    ],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        SwAVConfig(name="swav", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_prototypes_are_still_at_first_and_of_unit_length_after_each_step():
    method = tiny(SPEC, freeze_prototypes=0.25, **SMALL)
    for progress, learns in ((0.2, False), (0.25, True)):
        method(tiny_batch(method), "main")["loss"].backward()
        assert not method.prototypes.grad.any()
        with torch.no_grad():
            method.prototypes *= 3.0
        method.after_step(progress)
        torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(5, dtype=torch.float64))
        method.zero_grad()
        method(tiny_batch(method), "main")["loss"].backward()
        assert bool(method.prototypes.grad.any()) == learns
        method.zero_grad()
        method.progress.zero_()


def step(method: SwAV, progress: float) -> float:
    loss = method(tiny_batch(method), "main")["loss"].item()
    method.after_step(progress)
    return loss


def test_the_queue_fills_from_its_start_and_counts_once_it_is_full():
    method = tiny(SPEC, queue_size=12, queue_start=0.5, **SMALL)
    step(method, 0.4)
    assert int(method.num_queued) == 0
    first = step(method, 0.5)
    assert int(method.num_queued) == 8
    newest = method.fresh.clone()
    assert torch.equal(method.queue[:, :8], newest)
    assert step(method, 0.6) == pytest.approx(first)  # not full yet, and no weight has moved
    assert int(method.num_queued) == 12
    assert torch.equal(method.queue[:, 8:], newest[:, :4])  # the oldest went
    scores = [newest[view] @ method.prototypes.T for view in range(2)]
    together = [torch.cat([scores[view], method.queue[view] @ method.prototypes.T]) for view in range(2)]
    codes = torch.stack([naive_sinkhorn(both.detach(), 0.05, 3)[:8] for both in together])
    for view in range(2):
        torch.testing.assert_close(method._codes(scores[view].detach(), view), codes[view])
    assert step(method, 0.7) != pytest.approx(first)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, freeze_prototypes=0.0, queue_size=11, queue_start=0.1, **SMALL)


def codes_with_a_queue() -> Tensor:
    """All rows' codes after the queue is full; the ranks' shares of 11 rows are 5 and 6."""
    method = tiny(SPEC, queue_size=11, **SMALL)
    method.queue.copy_(functional.normalize(rows(2, 11, 4, seed=8), dim=2))
    method.num_queued.fill_(11)
    mine = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    return method._codes(functional.normalize(rows(8, 4, seed=9), dim=1)[mine] @ method.prototypes.detach().T, 1)


def test_two_ranks_compute_the_loss_gradients_and_queue_of_one(run_ranks):
    alone = in_ranks()
    assert {"buffer queue", "buffer num_queued"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))


def test_two_ranks_assign_rows_as_one_does(run_ranks):
    torch.testing.assert_close(torch.cat(run_ranks(codes_with_a_queue)), codes_with_a_queue())
