"""The operations of a policy after crop and flips, in order: who takes them, what they draw, what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ssl_tasks.modalities.image_augment import colour, draw, erase, geometry, texture
from ssl_tasks.policy import ResolvedPolicy


@dataclass(frozen=True)
class Operation:
    """One step, for the rows that drew it."""

    name: str
    probability: float
    draw: Callable[[Tensor], Tensor]
    """Keys (B,) to parameters (B, ...)."""
    apply: Callable[[Tensor, Tensor], Tensor]
    """Planes (n, C, H, W), uint8 or floats from 0 to 1, and their parameters (n, ...) to planes of that dtype; may
    change its argument."""
    sort_by: int | None = None
    """Parameter whose order makes `apply` quicker."""


@dataclass(frozen=True)
class Frame:
    """The views that are made."""

    channels: int
    height: int
    width: int
    fill: Tensor
    """(C or 1, 1, 1) from 0 to 1, what stands where nothing is seen."""


def operations(policy: ResolvedPolicy, frame: Frame) -> list[Operation]:
    """The steps that can occur in such views."""
    makers = (_rotation, _jitter, _gray, _blur, _solarize, _equalize, _noise, _cutout, _mask)
    return [step for step in (make(policy, frame) for make in makers) if step.probability > 0]


def _nothing(keys: Tensor) -> Tensor:
    return keys


def _rotation(policy: ResolvedPolicy, frame: Frame) -> Operation:
    largest = policy.rotate_degrees
    return Operation(
        "rotate",
        1.0 if largest > 0 else 0.0,
        lambda keys: draw.between(keys, "rotate", (-largest, largest)),
        lambda images, degrees: geometry.rotate(images, degrees, frame.fill),
    )


def _jitter(policy: ResolvedPolicy, frame: Frame) -> Operation:
    strengths = (policy.brightness, policy.contrast, policy.saturation)
    return Operation(
        "jitter",
        policy.jitter_probability,
        lambda keys: draw.factors(keys, strengths, policy.hue),
        colour.jitter,
        sort_by=3,
    )


def _gray(policy: ResolvedPolicy, frame: Frame) -> Operation:
    probability = policy.gray_probability if frame.channels == 3 else 0.0
    return Operation("gray", probability, _nothing, lambda images, _: colour.gray(images))


def _blur(policy: ResolvedPolicy, frame: Frame) -> Operation:
    radius = texture.blur_radius(frame.height, frame.width)
    return Operation(
        "blur",
        policy.blur_probability,
        lambda keys: draw.between(keys, "blur", policy.blur_sigma),
        lambda images, sigma: texture.blur(images, sigma, radius),
    )


def _solarize(policy: ResolvedPolicy, frame: Frame) -> Operation:
    return Operation(
        "solarize",
        policy.solarize_probability,
        _nothing,
        lambda images, _: colour.solarize(images, policy.solarize_threshold),
    )


def _equalize(policy: ResolvedPolicy, frame: Frame) -> Operation:
    return Operation("equalize", policy.equalize_probability, _nothing, lambda images, _: colour.equalize(images))


def _noise(policy: ResolvedPolicy, frame: Frame) -> Operation:
    return Operation(
        "noise",
        policy.noise_probability,
        _nothing,
        lambda images, keys: texture.noise(images, keys, policy.noise_sigma),
    )


def _cutout(policy: ResolvedPolicy, frame: Frame) -> Operation:
    low, high = policy.cutout_ratio
    return Operation(
        "cutout",
        policy.cutout_probability,
        lambda keys: draw.boxes(keys, "cutout", policy.cutout_scale, (1 / high, 1 / low), frame.height, frame.width),
        lambda images, boxes: erase.hide(images, erase.inside(boxes, frame.height, frame.width), frame.fill),
    )


def _mask(policy: ResolvedPolicy, frame: Frame) -> Operation:
    grid = erase.grid_of(frame.height, frame.width, policy.mask_patch)

    def apply(images: Tensor, patches: Tensor) -> Tensor:
        hidden = erase.enlarge(patches, grid, policy.mask_patch, frame.height, frame.width)
        return erase.hide(images, hidden, frame.fill)

    return Operation(
        "mask",
        policy.mask_probability,
        lambda keys: erase.draw_patches(keys, policy.mask_ratio, grid, policy.mask_kind),
        apply,
    )
