"""Heads on feature maps: their losses against loops, what they learn, and that test rows teach them nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tests_dense import scene
from torch import nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.base import Context, Prediction, Task
from ssl_tasks.transfer.dense import Boxes, Masks, centred, pixel_loss, upsampled
from ssl_tasks.transfer.feature_maps import maps
from ssl_tasks.transfer.located import intersection_over_union
from ssl_tasks.transfer.options import Options

SIDE, COUNT = 32, 170
TRAIN, VAL, TEST = np.arange(100), np.arange(100, 130), np.arange(130, COUNT)
OPTIONS = {"dense": {"steps": 60, "learning_rates": [1e-3, 1e-1]}, "scratch": {"steps": 30, "learning_rates": [1e-2]}}


def scenes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 3, H, W) float32, (N, H, W) uint8 and (N, 4) shares of the largest boxes."""
    made = [scene(number, SIDE) for number in range(COUNT)]
    images = np.stack([image for image, _, _ in made]).transpose(0, 3, 1, 2)
    largest = [max(boxes, key=lambda box: box[2] * box[3]) for _, _, boxes in made]
    return images.astype(np.float32) / 128 - 1, np.stack([mask for _, mask, _ in made]), np.array(largest) / SIDE


IMAGES, MASKS, BOXES = scenes()


def build(seed: int) -> nn.Module:
    return build_backbone("test_resnet", modality="image", input_shape=(3, SIDE, SIDE), seed=seed)


def context(images: np.ndarray = IMAGES, method: str | None = None) -> Context:
    payload = torch.from_numpy(images)
    made = Context(
        payload=lambda positions: payload[torch.from_numpy(positions)],
        augment=lambda batch, keys: batch.flip(0),  # would put masks on other images, were it used
        to_input=lambda batch: batch,
        build=build,
        networks={"made": lambda: build(7)},
        train=TRAIN,
        options=Options.model_validate(OPTIONS),
    )
    rows = np.arange(COUNT)
    return dataclasses.replace(made, features=maps(made, method, rows, TRAIN, COUNT))  # type: ignore[arg-type]


def task(kind: str, given: Context, seed: int = 0) -> Task:
    labels = MASKS if kind == "segmentation" else BOXES
    asked = np.concatenate([TEST, VAL])
    metric = "mean_iou" if kind == "segmentation" else "mean_box_iou"
    return Task(TRAIN, labels[TRAIN], VAL, labels[VAL], asked, 3, seed, metric, given, kind)


def measures(prediction: Prediction, kind: str) -> np.ndarray:
    labels = MASKS if kind == "segmentation" else BOXES
    assert prediction.judged is not None
    return prediction.judged(labels[np.concatenate([TEST, VAL])])


def mean_iou(counted: np.ndarray) -> float:
    right, true, said = np.split(counted[: len(TEST)].sum(axis=0), 3)
    return float((right / (true + said - right)).mean())


def test_the_pixel_loss_is_that_of_a_loop_over_known_pixels() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 2, 3, dtype=torch.float64), torch.randint(0, 3, (2, 5, 7), dtype=torch.uint8)
    masks[torch.rand(masks.shape) < 0.3] = 255
    whole, total, count = upsampled(logits, (5, 7)), 0.0, 0
    for b in range(2):
        for y in range(5):
            for x in range(7):
                if masks[b, y, x] != 255:
                    total -= float(whole[b, :, y, x].log_softmax(0)[int(masks[b, y, x])])
                    count += 1
    assert float(pixel_loss(logits, masks)) == pytest.approx(total / count)
    nothing = torch.full_like(masks, 255)
    assert float(pixel_loss(logits, nothing)) == 0.0


def test_upsampling_is_bilinear_between_centres() -> None:
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert upsampled(row, (1, 4))[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_the_box_loss_is_fast_rcnns() -> None:
    boxes = Boxes(BOXES[:6])
    wanted, outputs = torch.from_numpy(boxes.wanted()), torch.randn(6, 4)
    values = centred(BOXES[:6])
    assert np.allclose(wanted.numpy(), (values - values.mean(0)) / values.std(0), atol=1e-6)
    off = (outputs - wanted).abs().numpy()
    expected = np.where(off < 1, 0.5 * off**2, off - 0.5).sum() / 6
    network = nn.Identity()
    assert float(boxes.loss(network, outputs, wanted)) == pytest.approx(float(expected), rel=1e-5)
    assert np.allclose(boxes.said(wanted.double()), BOXES[:6], atol=1e-6)


def test_boxes_that_reach_out_are_cut_off() -> None:
    boxes = Boxes(np.array([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.4, 0.6]]))
    far = torch.tensor([[50.0, 0.0, 5.0, 0.0], [0.0, 0.0, -50.0, 0.0]])
    found = boxes.said(far)
    assert found.min() >= 0
    assert (found[:, :2] + found[:, 2:]).max() <= 1 + 1e-9


def test_heads_begin_with_nothing() -> None:
    inputs = torch.randn(2, 5, 9, 3)
    assert not Masks(MASKS[:1], 3).head((5, 9, 3))(inputs).any()
    head = Boxes(BOXES).head((5, 9, 3))
    assert not head(inputs).any()
    assert sum(weight.numel() for weight in head.parameters()) == 4 * (5 * 7 * 3 + 1)


def test_a_head_on_pixels_tells_classes_by_their_colours() -> None:
    found = measures(strategy("segmentation").fit(task("segmentation", context())), "segmentation")
    always = measures(strategy_of_majority("segmentation"), "segmentation")
    assert mean_iou(found) > 0.9
    assert mean_iou(always) < 0.4


def strategy_of_majority(kind: str) -> Prediction:
    from ssl_tasks.transfer.strategies.majority import STRATEGY

    return STRATEGY.fit(task(kind, context()))


def test_the_majority_is_the_most_frequent_class_or_the_mean_box() -> None:
    counted = measures(strategy_of_majority("segmentation"), "segmentation")
    assert counted[:, 6].sum() == len(counted) * SIDE**2
    assert np.allclose(measures(strategy_of_majority("localization"), "localization"), BOXES[TRAIN].mean(axis=0))


@pytest.mark.parametrize(("name", "kind"), [("segmentation", "segmentation"), ("boxes", "localization")])
def test_a_head_on_an_encoders_map_beats_the_majority(name: str, kind: str) -> None:
    fitted = strategy(name).fit(task(kind, context(method="made")))
    found, always = measures(fitted, kind), measures(strategy_of_majority(kind), kind)
    if kind == "segmentation":
        assert mean_iou(found) > mean_iou(always) + 0.1
        assert fitted.examples is not None
        assert fitted.examples.shape == (6, SIDE, SIDE)
    else:
        mine, theirs = (intersection_over_union(each[: len(TEST)], BOXES[TEST]).mean() for each in (found, always))
        assert mine > theirs + 0.05
    assert fitted.chosen["learning_rate"] in (1e-3, 1e-1)


@pytest.mark.parametrize(("name", "kind"), [("segmentation", "segmentation"), ("boxes", "localization")])
def test_test_rows_teach_nothing(name: str, kind: str) -> None:
    """Other test images change neither the maps of the others nor what is said of these."""
    changed = IMAGES.copy()
    changed[TEST] = np.random.default_rng(0).normal(size=changed[TEST].shape)
    first, second = (strategy(name).fit(task(kind, context(images))) for images in (IMAGES, changed))
    assert first.chosen == second.chosen
    ours, theirs = measures(first, kind), measures(second, kind)
    assert np.array_equal(ours[len(TEST) :], theirs[len(TEST) :])
    assert not np.array_equal(ours[: len(TEST)], theirs[: len(TEST)])


def test_equal_tasks_give_equal_bits_and_seeds_another_order() -> None:
    given = context()
    fits = [strategy("boxes").fit(task("localization", given, seed)) for seed in (0, 0, 1)]
    first, again, other = (measures(fit, "localization") for fit in fits)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_from_scratch_learns_masks_on_their_own_images() -> None:
    found = strategy("from_scratch").fit(task("segmentation", context()))
    assert (
        mean_iou(measures(found, "segmentation"))
        > mean_iou(measures(strategy_of_majority("segmentation"), "segmentation")) + 0.1
    )
    assert found.chosen["train_pixel_accuracy"] > 0.85


def test_without_val_targets_the_default_rate_does() -> None:
    given: Any = task("segmentation", context())
    none = dataclasses.replace(given, val=VAL[:0], val_labels=MASKS[:0])
    found = strategy("segmentation").fit(none)
    assert found.chosen["learning_rate"] == 1e-1
    assert mean_iou(measures(found, "segmentation")) > 0.8
