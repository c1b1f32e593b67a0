"""MoCo v3's symmetric loss against loops written from the paper; the momentum encoder; two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.backbones import build_backbone
from ssl_tasks.methods.moco_v3 import SPEC, MoCoV3Config, contrast
from ssl_tasks.methods.teachers import cosine_momentum

SMALL = {"hidden_dim": 7, "out_dim": 3}


def naive_contrast(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Algorithm 1 of arXiv 2104.02057, query by query."""
    losses = []
    for i, query in enumerate(queries):
        shares = []
        for key in keys:
            cosine = sum(query * key) / torch.sqrt(sum(query * query)) / torch.sqrt(sum(key * key))
            shares.append(torch.exp(cosine / temperature))
        losses.append(-torch.log(shares[i] / sum(shares)))
    return 2 * temperature * sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_and_its_gradient_against_the_paper(temperature):
    keys = rows(5, 3, seed=1)
    assert_same_loss_and_gradients(
        lambda q: contrast(q, keys, temperature)[0],
        lambda q: naive_contrast(q, keys, temperature),
        [rows(5, 3, seed=0)],
    )


def test_the_loss_by_hand_and_no_gradient_to_the_keys():
    queries, keys = torch.eye(2).mul(3.0).requires_grad_(), torch.eye(2).requires_grad_()
    loss, accuracy = contrast(queries, keys, 0.5)
    assert loss.item() == pytest.approx(
        torch.log1p(torch.tensor(-2.0).exp()).item()
    )  # 2 * 0.5 * log(1 + e^(0 - 1/0.5))
    assert accuracy == 1.0
    assert contrast(queries, keys.flip(0), 0.5)[1] == 0.0
    loss.backward()
    assert keys.grad is None
    assert queries.grad is not None


def test_the_forward_sums_both_directions_each_view_normalized_alone():
    method = tiny(SPEC, **SMALL)
    batch = tiny_batch(method)
    queries = [method.predictor(method.projector(method.backbone(view))) for view in batch.views]
    keys = [method.key_encoder.network(view) for view in batch.views]
    expected = naive_contrast(queries[0], keys[1], 0.2) + naive_contrast(queries[1], keys[0], 0.2)
    torch.testing.assert_close(method(batch, "main")["loss"], expected)


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.0), ("momentum", 1.0), ("momentum", -0.1), ("hidden_dim", 0), ("out_dim", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        MoCoV3Config(name="moco_v3", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_the_key_encoder_follows_along_a_cosine_and_takes_no_gradient():
    method = tiny(SPEC, momentum=0.8, **SMALL)
    method(tiny_batch(method), "main")["loss"].backward()
    kept = list(method.key_encoder.parameters())
    students = [*method.backbone.parameters(), *method.projector.parameters()]
    assert all(parameter.grad is None for parameter in kept)
    before = [parameter.clone() for parameter in kept]
    with torch.no_grad():
        for student in students:
            student += 1.0
    method.after_step(0.25)
    m = cosine_momentum(0.8, 0.25)
    for parameter, old, student in zip(kept, before, students, strict=True):
        torch.testing.assert_close(parameter, m * old + (1 - m) * student)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_vits_patch_projection_stays_as_it_was_unless_asked(fixed):
    backbone = build_backbone("test_vit", modality="image", input_shape=(3, 32, 32))
    config = MoCoV3Config(name="moco_v3", fixed_patch_projection=fixed, **SMALL)
    method = SPEC.method(config, backbone, (3, 32, 32))
    moved = {id(weight) for group in method.param_groups("main") for weight in group["params"]}
    patches = list(backbone.patch_embed.proj.parameters())
    assert [id(weight) in moved for weight in patches] == [not fixed] * len(patches)
    assert id(backbone.pos_embed) in moved


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, momentum=0.9, **SMALL)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
