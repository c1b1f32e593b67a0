"""What multi-task learning and its weightings promise: against naive versions, and on digits with further targets."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tests_digits as digits
import torch
from torch import Tensor, nn

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer import joint, kinds
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.networks.adamw import AdamW
from ssl_tasks.transfer.networks.many_heads import ManyHeads, loss_of
from ssl_tasks.transfer.networks.weighting import GradNorm, Uncertainty, Weighting, grad_norm, make, uncertainty
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.strategies import fine_tune, multi_task
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL, REGRESSION

WEIGHTINGS = ["equal", "uncertainty", "grad_norm"]
ALL = [CLASSIFICATION, MULTI_LABEL, REGRESSION]
NAN = float("nan")


def everything() -> dict[str, np.ndarray]:
    """Of each digit its class, whether it is even and whether it has a hole, and how much ink it takes."""
    pixels, labels = digits.digits()
    several = np.stack([labels % 2 == 0, np.isin(labels, [0, 6, 8, 9])], axis=1).astype(np.int64)
    return {CLASSIFICATION: labels, MULTI_LABEL: several, REGRESSION: pixels.sum(dim=(1, 2, 3)).double().numpy()}


def made(weighting: str, labelled: int = 60, **options: Any) -> digits.Task:
    given = {"tune": {"steps": 40, "learning_rates": [3e-3]}, "multi_task": {"weighting": weighting}, **options}
    task = digits.task(digits.MLP, labelled=labelled, **given)
    assert task.context is not None
    return dataclasses.replace(task, context=dataclasses.replace(task.context, targets=everything()))


def test_losses_are_those_of_rows_that_have_the_target() -> None:
    torch.manual_seed(0)
    logits, numbers = torch.randn(4, 3), torch.randn(4, 1)
    classes = torch.tensor([[2.0], [NAN], [0.0], [NAN]], dtype=torch.float64)
    p = logits.softmax(dim=1)
    naive = -(p[0, 2].log() + p[2, 0].log()) / 2
    assert loss_of(CLASSIFICATION, logits, classes).item() == pytest.approx(naive.item())
    several = torch.tensor([[1.0, 0, 1], [NAN] * 3, [0, 0, 1], [1, 1, 1]], dtype=torch.float64)
    q = logits.sigmoid()
    terms = [torch.where(several[row] == 1, q[row].log(), (1 - q[row]).log()).mean() for row in (0, 2, 3)]
    assert loss_of(MULTI_LABEL, logits, several).item() == pytest.approx(-sum(terms).item() / 3, rel=1e-5)
    given = torch.tensor([[NAN], [1.0], [NAN], [-2.0]], dtype=torch.float64)
    naive = ((numbers[1] - 1) ** 2 + (numbers[3] + 2) ** 2) / 2
    assert loss_of(REGRESSION, numbers, given).item() == pytest.approx(naive.item())


def test_a_target_that_a_batch_lacks_has_no_loss_and_no_gradient() -> None:
    outputs = torch.randn(3, 2, requires_grad=True)
    loss = loss_of(CLASSIFICATION, outputs, torch.full((3, 1), NAN))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert outputs.grad is None or not outputs.grad.any()


def test_uncertainty_is_the_papers_formula() -> None:
    losses, variances = [0.7, 2.0], [0.5, 3.0]
    found = uncertainty(torch.tensor(losses), torch.tensor(variances).log(), torch.tensor([1.0, 0.5]))
    assert found[0].item() == pytest.approx(losses[0] / variances[0] + np.log(np.sqrt(variances[0])))
    assert found[1].item() == pytest.approx(losses[1] / (2 * variances[1]) + np.log(np.sqrt(variances[1])))


def test_uncertainty_finds_the_noise_of_each_target() -> None:
    """Of a squared error L the variance settles at L, of a cross-entropy at 2 L: there the derivative is 0."""
    weighting = Uncertainty([CLASSIFICATION, REGRESSION])
    optimizer = AdamW(weighting.parameters(), 0.0)
    losses = torch.tensor([0.3, 4.0])
    for _ in range(600):
        weighting(losses, [True, True], torch.empty(0)).backward()
        optimizer.step(0.02)
    assert weighting.log_variances.exp().tolist() == pytest.approx([0.6, 4.0], rel=1e-2)
    assert weighting.current(2) == pytest.approx([1 / 0.6, 1 / 8.0], rel=1e-2)


def test_an_unknown_target_leaves_its_uncertainty_alone() -> None:
    weighting = Uncertainty(ALL)
    weighting(torch.tensor([0.3, 0.0, 1.0]), [True, False, True], torch.empty(0)).backward()
    assert weighting.log_variances.grad is not None
    assert weighting.log_variances.grad[1] == 0
    assert weighting.log_variances.grad[0] != 0


def two_losses(shared: Tensor, inputs: Tensor) -> Tensor:
    hidden = torch.tanh(inputs @ shared)
    return torch.stack([(hidden.sum(dim=1) - 1).square().mean(), (hidden[:, 0] * 5 + 2).square().mean()])


def norms_of(shared: Tensor, inputs: Tensor) -> Tensor:
    gradients = [torch.autograd.grad(two_losses(shared, inputs)[place], shared)[0] for place in (0, 1)]
    return torch.stack([gradient.norm() for gradient in gradients])


def test_grad_norm_is_the_gradient_of_the_papers_loss() -> None:
    """L_grad written out and derived by torch, with the wanted norm held constant."""
    torch.manual_seed(1)
    shared, inputs = torch.randn(3, 2, dtype=torch.float64, requires_grad=True), torch.randn(8, 3, dtype=torch.float64)
    weights = torch.tensor([0.4, 1.6], dtype=torch.float64, requires_grad=True)
    losses, initial, alpha = two_losses(shared, inputs), torch.tensor([1.0, 9.0], dtype=torch.float64), 1.5
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    norms = torch.stack([torch.autograd.grad(one, shared, create_graph=True)[0].norm() for one in weighted])
    shares = (losses / initial).detach()
    wanted = norms.mean().detach() * (shares / shares.mean()) ** alpha
    (norms - wanted).abs().sum().backward()
    found = grad_norm(weights.detach(), norms_of(shared, inputs), losses.detach(), initial, alpha)
    assert weights.grad is not None
    torch.testing.assert_close(found, weights.grad)


def test_grad_norm_brings_gradients_to_one_size_and_keeps_the_sum() -> None:
    """With alpha 0 all targets should pull equally hard, however large their losses are."""
    torch.manual_seed(1)
    shared, inputs = torch.randn(3, 2, requires_grad=True), torch.randn(8, 3)
    weighting = GradNorm([REGRESSION, REGRESSION], alpha=0.0)
    for _ in range(200):
        weighting(two_losses(shared, inputs), [True, True], shared)
    norms = norms_of(shared, inputs)
    first, second = (torch.tensor(weighting.current(2)) * norms).tolist()
    assert norms.max() > 3 * norms.min()
    assert first == pytest.approx(second, rel=0.15)
    assert sum(weighting.current(2)) == pytest.approx(2.0)


def test_grad_norm_pulls_up_what_is_learnt_slowly() -> None:
    weights, norms = torch.ones(2), torch.ones(2)
    moves = grad_norm(weights, norms, torch.tensor([0.9, 0.1]), torch.ones(2), alpha=1.5)
    assert moves.tolist() == [-1.0, 1.0]  # down the gradient: the first, with 90% of its loss left, gains weight


def test_the_weights_of_a_step_are_those_before_it_moves_them() -> None:
    torch.manual_seed(1)
    shared, inputs = torch.randn(3, 2, requires_grad=True), torch.randn(8, 3)
    weighting = make("grad_norm", [REGRESSION, REGRESSION], 1.5)
    losses = two_losses(shared, inputs)
    assert weighting(losses, [True, True], shared).item() == pytest.approx(losses.sum().item())
    assert weighting.current(2) != [1.0, 1.0]
    before = weighting.current(2)
    weighting(losses * torch.tensor([1.0, 0.0]), [True, False], shared)
    assert weighting.current(2) == before


def test_equal_weights_are_the_sum() -> None:
    assert make("equal", ALL, 1.5)(torch.tensor([1.0, 2.0, 4.0]), [True] * 3, torch.empty(0)) == 7.0


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_all_losses_fall(weighting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    owner = {"equal": Weighting, "uncertainty": Uncertainty, "grad_norm": GradNorm}[weighting]
    real = owner.forward

    def forward(self: Any, losses_T: Tensor, known_T: Any, shared: Tensor) -> Tensor:
        seen.append(losses_T.tolist())
        return real(self, losses_T, known_T, shared)

    monkeypatch.setattr(owner, "forward", forward)
    found = multi_task.fit(made(weighting))
    first, last = np.array(seen[0]), np.mean(seen[-5:], axis=0)
    assert first == pytest.approx([np.log(10), np.log(2), first[2]], rel=1e-5)  # heads that know nothing
    assert (last < 0.5 * first).all(), (first, last)
    assert digits.accuracy(found.scores) > 0.7
    assert found.chosen["targets"] == 3
    weights = [found.chosen[f"weight {name}"] for name in ALL]
    assert (weights == [1.0, 1.0, 1.0]) == (weighting == "equal")


def test_uncertainty_trusts_a_sound_target_above_one_that_is_often_wrong() -> None:
    """Four in ten classes are drawn by lot; a digit's binary code, which asks for the same features, is right."""
    task = made("uncertainty", labelled=200, tune={"steps": 300, "learning_rates": [3e-3]})
    assert task.context is not None
    random, labels = np.random.default_rng(0), everything()[CLASSIFICATION]
    wrong = np.where(random.random(200) < 0.4, random.integers(0, 10, 200), task.labels)
    bits = (labels[:, None] >> np.arange(4)) & 1
    context = dataclasses.replace(task.context, targets={MULTI_LABEL: bits})
    task = dataclasses.replace(task, labels=wrong, context=context)
    found = multi_task.fit(task)
    assert found.chosen["weight multi_label"] > 3 * found.chosen["weight classification"]
    assert digits.accuracy(found.scores) > digits.accuracy(fine_tune.fit(task).scores) + 0.05


def test_with_the_own_target_alone_it_is_fine_tuning() -> None:
    task = made("equal")
    assert task.context is not None
    alone = dataclasses.replace(task.context, targets={CLASSIFICATION: everything()[CLASSIFICATION]})
    scores = multi_task.fit(dataclasses.replace(task, context=alone)).scores
    assert scores == pytest.approx(fine_tune.fit(task).scores, abs=1e-5)


def test_targets_of_other_rows_change_nothing() -> None:
    """Neither val nor test rows are learnt from, nor are their further targets looked at."""
    task = made("grad_norm", labelled=40)
    assert task.context is not None
    other = {name: values.copy() for name, values in everything().items()}
    rest = np.setdiff1d(np.arange(len(other[REGRESSION])), task.train)
    other[REGRESSION][rest] = 1e6
    other[MULTI_LABEL][rest] = 1 - other[MULTI_LABEL][rest]
    turned = dataclasses.replace(task.context, targets=other)
    assert np.array_equal(multi_task.fit(task).scores, multi_task.fit(dataclasses.replace(task, context=turned)).scores)


def test_missing_targets_are_left_out() -> None:
    task = made("uncertainty", labelled=40)
    assert task.context is not None
    numbers, several = everything()[REGRESSION], everything()[MULTI_LABEL]
    numbers[task.train[1:]] = np.nan
    several[task.train] = -1
    targets = {**everything(), REGRESSION: numbers, MULTI_LABEL: several}
    found = multi_task.fit(dataclasses.replace(task, context=dataclasses.replace(task.context, targets=targets)))
    assert found.chosen["targets"] == 2
    assert np.isfinite(found.scores).all()


def test_numbers_are_in_deviations_of_the_rows_of_the_fit() -> None:
    task = made("equal", labelled=50)
    (number,) = (one for one in joint.of_rows(everything(), task) if one.name == REGRESSION)
    ink = everything()[REGRESSION][task.train]
    assert number.values[:, 0] == pytest.approx((ink - ink.mean()) / ink.std())


@pytest.mark.parametrize(
    ("backbone", "last"), [("test_vit", "blocks.5.mlp.fc2.weight"), ("test_resnet", "layer4.0.conv2.weight")]
)
def test_the_last_shared_weights_are_those_before_the_heads(backbone: str, last: str) -> None:
    targets = joint.of_rows(everything(), made("equal"))
    network = ManyHeads(digits.build(backbone, 0), targets, Weighting())
    assert network.last_shared == last
    assert isinstance(network.backbone.get_parameter(network.last_shared), nn.Parameter)


def test_one_kind_of_target_is_refused() -> None:
    labels = everything()[CLASSIFICATION]
    rows = np.arange(len(labels))
    data: Any = Labelled(None, [], labels, rows[:50], rows[50:60], rows[60:], rows[60:])  # type: ignore[arg-type]
    far = np.full(len(labels), np.nan)
    far[60:] = 3.0
    for targets in ({CLASSIFICATION: labels}, {CLASSIFICATION: labels, REGRESSION: far}):
        with pytest.raises(RequestError, match=r"transfer\.strategies: multi_task .* have a class only; name others"):
            joint.check(targets, data)
    joint.check({CLASSIFICATION: labels, MULTI_LABEL: everything()[MULTI_LABEL]}, data)


@pytest.mark.parametrize("wrong", [{"weighting": "magic"}, {"alpha": -1}])
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.model_validate({"multi_task": wrong})


@pytest.mark.parametrize("predicted", [MULTI_LABEL, REGRESSION])
def test_what_is_predicted_may_be_any_target(predicted: str) -> None:
    task = made("uncertainty", tune={"steps": 150, "learning_rates": [3e-3]})
    own = everything()[predicted]
    outputs, metric = (2, "macro_f1") if predicted == MULTI_LABEL else (1, "rmse")
    val = digits.REST[400:500]
    task = dataclasses.replace(
        task, task=predicted, metric=metric, num_classes=outputs, labels=own[task.train], val_labels=own[val]
    )
    found = multi_task.fit(task)
    assert found.scores.shape == (len(digits.TEST), outputs)
    assert found.chosen["targets"] == 3
    score = kinds.of(predicted).score(own[digits.TEST], found.scores)
    assert score["macro_f1" if predicted == MULTI_LABEL else "r2"] > 0.7
    targets = joint.of_rows(everything(), task)
    assert [target.name for target in targets] == [predicted, *(name for name in ALL if name != predicted)]
    sizes = {CLASSIFICATION: 10, MULTI_LABEL: 2, REGRESSION: 1}
    assert [target.num_outputs for target in targets] == [sizes[target.name] for target in targets]
