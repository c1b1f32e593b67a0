"""Quarter turns pixel by pixel, the loss against the paper, two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import TinyConv, assert_ranks_agree, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.rotation import SPEC, RotationConfig, turned


def test_every_quarter_turn_is_in_its_place():
    images = rows(3, 2, 4, 4, seed=0)
    found = turned(images)
    assert found.shape == (12, 2, 4, 4)
    for number, image in enumerate(images):
        for i in range(4):
            for j in range(4):
                # counterclockwise: the pixel at the right of the top row goes to the left of it
                for turns, source in enumerate([(i, j), (j, 3 - i), (3 - i, 3 - j), (3 - j, i)]):
                    assert torch.equal(found[3 * turns + number][:, i, j], image[:, source[0], source[1]])


def test_the_loss_and_its_gradient_against_the_paper():
    """Equations 2 and 3 of arXiv 1803.07728: the mean of -log F^y(image turned y times)."""
    method = tiny(SPEC)
    batch = tiny_batch(method)
    probabilities = method.classifier(method.backbone(turned(batch.views[0]))).exp()
    probabilities = probabilities / probabilities.sum(dim=1, keepdim=True)
    own = [probabilities[8 * turn + image, turn] for turn in range(4) for image in range(8)]
    expected = sum(-torch.log(share) for share in own) / 32
    loss = method(batch, "main")["loss"]
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    weights = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_turn_accuracy_counts_turns_that_are_told():
    method = tiny(SPEC)
    with torch.no_grad():
        method.classifier.weight.zero_()
        method.classifier.bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0]))  # always "by 90 degrees"
    assert method(tiny_batch(method), "main")["turn_accuracy"] == 0.25


def test_images_that_are_not_square_are_refused():
    with pytest.raises(RequestError, match=r"pretrain\.method: rotation needs square images.*\(6, 8\)"):
        SPEC.method(RotationConfig(name="rotation"), TinyConv(), (2, 6, 8))


def test_options_that_do_not_exist_are_refused_by_key():
    with pytest.raises(ValidationError) as caught:
        RotationConfig(name="rotation", turns=8)
    assert caught.value.errors()[0]["loc"] == ("turns",)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
