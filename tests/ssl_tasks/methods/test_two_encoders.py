"""The regression between two encoders against loops; the collapse of the plain form; two processes against one."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import SHAPE, TinyConv, assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny
from tests_ranks import tiny_batch as batch_of
from torch import Tensor

from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.heads import projection_std
from ssl_tasks.methods.teachers import cosine_momentum
from ssl_tasks.methods.two_encoders import SPEC, TwoEncodersConfig
from ssl_tasks.training.health import feature_std

SMALL = {"hidden_dim": 7, "out_dim": 3}
PLAIN = {"predictor": False, "stop_gradient": False, "momentum": None}


def naive_distance(predicted: Tensor, target: Tensor) -> Tensor:
    losses = [sum((a - b) ** 2 for a, b in zip(p, z, strict=True)) for p, z in zip(predicted, target, strict=True)]
    return sum(losses) / len(losses) / predicted.shape[1]


def test_the_loss_and_its_gradient_against_loops():
    assert_same_loss_and_gradients(squared_error, naive_distance, [rows(5, 3, seed=seed) for seed in (0, 1)])
    assert squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]])) == 2.0


FORMS = [
    {},
    {"predictor": False},
    {"momentum": None},
    {"momentum": None, "stop_gradient": False},
    {"momentum": None, "predictor": False},
    PLAIN,
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_form_is_the_mean_of_both_directions(form):
    """Gradients tell where the target takes one."""
    method = tiny(SPEC, **SMALL, **form)
    batch = batch_of(method)
    z = [method.projector(method.backbone(view)) for view in batch.views]
    targets = z if form.get("momentum", 1) is None else [method.teacher.network(view) for view in batch.views]
    targets = [target.detach() for target in targets] if form.get("stop_gradient", True) else targets
    predicted = [method.predictor(projection) for projection in z]
    expected = (naive_distance(predicted[0], targets[1]) + naive_distance(predicted[1], targets[0])) / 2
    output = method(batch, "main")
    torch.testing.assert_close(output["loss"], expected)
    assert output["projection_std"].item() == pytest.approx(feature_std(torch.cat(z)))
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    gradients = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (output["loss"], expected))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("field", "value"), [("momentum", 1.0), ("momentum", -0.1), ("hidden_dim", 0), ("out_dim", 0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        TwoEncodersConfig(name="two_encoders", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_a_moving_average_that_should_take_a_gradient_is_refused():
    with pytest.raises(ValidationError, match=r"stop_gradient is false.*set momentum to null"):
        TwoEncodersConfig(name="two_encoders", stop_gradient=False)


def test_the_target_encoder_follows_along_a_cosine():
    method = tiny(SPEC, momentum=0.8, **SMALL)
    students = [*method.backbone.parameters(), *method.projector.parameters()]
    before = [parameter.clone() for parameter in method.teacher.parameters()]
    with torch.no_grad():
        for student in students:
            student += 1.0
    method.after_step(0.25)
    m = cosine_momentum(0.8, 0.25)
    for parameter, old, student in zip(method.teacher.parameters(), before, students, strict=True):
        torch.testing.assert_close(parameter, m * old + (1 - m) * student)


def spread_in_training(**form: Any) -> list[float]:
    """Projection std over 100 steps on noisy copies of 64 pictures."""
    torch.manual_seed(0)
    method = SPEC.method(TwoEncodersConfig(name="two_encoders", hidden_dim=16, out_dim=8, **form), TinyConv(), SHAPE)
    optimizer = torch.optim.AdamW(method.param_groups("main"), lr=0.02)
    generator = torch.Generator().manual_seed(1)
    x, numbers = torch.randn(64, *SHAPE, generator=generator), torch.arange(64)
    spread = []
    for step in range(100):
        views = [x + 0.5 * torch.randn(x.shape, generator=generator) for _ in range(2)]
        optimizer.zero_grad()
        output = method(Batch(views, numbers, numbers), "main")
        output["loss"].backward()
        optimizer.step()
        method.after_step((step + 1) / 100)
        spread.append(output["projection_std"].item())
    return spread


def test_the_plain_form_collapses_and_the_default_does_not():
    """Over three seeds the plain form falls from 0.8 to 0.03 to 0.05, the default stays above 0.8."""
    plain, default = spread_in_training(**PLAIN), spread_in_training()
    assert plain[0] == pytest.approx(default[0])  # the same start
    assert plain[0] > 0.5
    assert plain[-1] < 0.1
    assert min(default) > 0.5


def test_projection_std_is_that_of_features_and_holds_no_gradient():
    z = rows(50, 4, seed=0).requires_grad_()
    assert projection_std(z).item() == pytest.approx(feature_std(z))
    assert not projection_std(z).requires_grad
    assert projection_std(torch.ones(5, 3) * torch.arange(1.0, 6)[:, None]) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("form", [{}, PLAIN], ids=str)
def test_collapsed_rows_of_one_projection_measure_zero(form):
    method = tiny(SPEC, **SMALL, **form)
    with torch.no_grad():
        method.projector[-1].weight.zero_()
    assert method(batch_of(method), "main")["projection_std"] == pytest.approx(0.0, abs=1e-7)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, momentum=0.9, **SMALL)


def plain_in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, **PLAIN, **SMALL)


@pytest.mark.parametrize("run", [in_ranks, plain_in_ranks])
def test_two_ranks_compute_the_loss_and_gradients_of_one(run, run_ranks):
    assert_ranks_agree(run(), run_ranks(run))
