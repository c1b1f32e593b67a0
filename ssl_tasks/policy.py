"""What a view is drawn from: a policy, its named variants, and the fitted numbers that its operations need.

    views = Views.model_validate(augmented.json("views.json"))
    views.policy("local")          # what `Modality.augment` takes; a name nobody defined is the base policy

Imports no torch: a cached run reads policies and pays for nothing more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ssl_tasks.config import Config

BASE, PLAIN, LOCAL, CROP = "augment", "plain", "local", "crop"
"""Names that a method may always ask for: the base policy, the sample itself, the small crops of multi-crop, and the
base policy's geometry alone, for methods that predict the pixels of their view."""

WITHOUT_COLOUR = {
    f"{operation}_probability": 0.0
    for operation in ("jitter", "gray", "blur", "solarize", "equalize", "noise", "cutout", "mask")
}

LOCAL_CROP_SCALE = (0.05, 0.4)
"""Of small crops (SwAV, arXiv 2006.09882, and DINO, arXiv 2104.14294), which are half as wide as the others."""

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
RANGES = ("crop_scale", "crop_ratio", "blur_sigma", "noise_sigma", "cutout_scale", "cutout_ratio")


class Policy(Config):
    """How one view of an image is drawn. Operations run in the order of the fields, each on the rows that drew it.

    The defaults are SimCLR's for small images (arXiv 2002.05709, appendix A); what it does not have is off.
    Ranges are [smallest, largest] and drawn uniformly where nothing else is said.
    """

    size: int | None = Field(None, ge=4, le=1024)
    """Side of the view in pixels; as stored where not set."""
    crop_scale: Range = (0.08, 1.0)
    """Share of the area that a crop covers."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """Width by height of a crop, log-uniform."""
    flip_probability: Probability = 0.5
    """Left to right."""
    vertical_flip_probability: Probability = 0.0
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    """Largest angle to either side; what comes from outside the crop is filled with the train mean."""
    jitter_probability: Probability = 0.8
    """Of brightness, contrast, saturation and hue, in this order; the last two need three channels."""
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.4, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5)
    """Largest shift to either side, in turns of the colour circle."""
    gray_probability: Probability = 0.2
    """Needs three channels."""
    blur_probability: Probability = 0.0
    blur_sigma: Range = (0.1, 2.0)
    """In pixels; the kernel is a tenth of the side."""
    solarize_probability: Probability = 0.0
    solarize_threshold: Probability = 0.5
    """On the 0..1 scale: what is as bright or brighter is inverted."""
    equalize_probability: Probability = 0.0
    """Histogram of each channel, in 256 levels."""
    noise_probability: Probability = 0.0
    noise_sigma: Range = (0.1, 0.1)
    """Standard deviation of gaussian noise on the 0..1 scale."""
    cutout_probability: Probability = 0.0
    """Of one rectangle that is filled with the train mean (random erasing, arXiv 1708.04896)."""
    cutout_scale: Range = (0.02, 0.33)
    """Share of the area that the rectangle covers."""
    cutout_ratio: Range = (0.3, 3.3)
    """Height by width of the rectangle, log-uniform."""
    mask_probability: Probability = 0.0
    """Of patches that are filled with the train mean."""
    mask_ratio: Probability = 0.6
    """Share of the patches, exactly (rounded to whole patches)."""
    mask_patch: int = Field(16, ge=1)
    """Side of a patch in pixels."""
    mask_kind: Literal["random", "block"] = "random"
    """Each patch for itself, or rectangles of patches (BEiT, arXiv 2106.08254, algorithm 1)."""

    @model_validator(mode="after")
    def _ordered(self) -> Policy:
        for name in RANGES:
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is [smallest, largest], both above 0 (got {[low, high]})")
            if name.endswith("_scale") and high > 1:
                raise ValueError(f"{name} is a share of the area, at most 1 (got {high})")
        return self


class Changes(Policy):
    """What a named policy does otherwise than the base: only the fields that are set count, and are written."""

    @model_serializer(mode="wrap")
    def _only_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}

    def over(self, base: Policy) -> Policy:
        """`base` with these changes."""
        fields = {name: getattr(base, name) for name in Policy.model_fields}
        return Policy.model_validate({**fields, **self.model_dump()})


class Scale(BaseModel):
    """Where a stored value stands between black and white, per channel or one for all; fitted on train rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    low: tuple[float, ...] = (0.0,)
    """The stored values that stand for 0."""
    high: tuple[float, ...] = (255.0,)
    """The stored values that stand for 1."""
    fill: tuple[float, ...] = (0.5,)
    """The train mean on that 0..1 scale."""


class ResolvedPolicy(Policy, Scale):
    """All that `Modality.augment` needs to know."""


class Views(Scale):
    """What `views.json` holds."""

    policies: dict[str, Policy]
    """By name, complete; always has `augment`."""
    modality: str
    seed: int

    def policy(self, name: str) -> ResolvedPolicy:
        """The policy called `name`, or the base policy where there is none of that name."""
        chosen = self.policies.get(name, self.policies[BASE])
        if name == CROP and name not in self.policies:
            chosen = chosen.model_copy(update=WITHOUT_COLOUR)
        scale = {field: getattr(self, field) for field in Scale.model_fields}
        return ResolvedPolicy.model_validate({**chosen.model_dump(), **scale})
