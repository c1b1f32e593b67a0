"""iBOT: DINO, and the student says of patches it did not see what the teacher says of them (arXiv 2111.07832).

pretrain: {backbone: vit_tiny_patch16_224, method: {name: ibot, num_local: 6}}
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_tasks.backbones import Pool
from ssl_tasks.backbones.vit import embed, encode, grid_of
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.dino import dino_loss
from ssl_tasks.methods.heads import DirectionHead
from ssl_tasks.methods.multicrop import NUM_GLOBAL, multi_crop
from ssl_tasks.methods.patches import Grid, PatchMethod, block_masks
from ssl_tasks.methods.teachers import Teacher, cosine_momentum
from ssl_tasks.randomness import uniform
from ssl_tasks.training.collectives import gather_with_grad


def _shares(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high < 1:
        raise ValueError(f"is [smallest, largest], both above 0 and below 1 (got {[low, high]})")
    return value


class IBOTConfig(MethodConfig):
    """Defaults of the paper, section 4 and appendix E, and of its code where the paper is silent."""

    name: Literal["ibot"]
    num_local: int = Field(10, ge=0)
    """Small crops (the policy `local`), of which nothing is hidden and which the student alone sees."""
    mask_probability: float = Field(0.5, gt=0, le=1)
    """Share of the global views of which patches are hidden; the others are as in DINO."""
    mask_ratio: Annotated[tuple[float, float], AfterValidator(_shares)] = (0.1, 0.5)
    """Share of those views' patches that is hidden, uniform between the two: blocks, of at most so many patches."""
    cls_weight: float = Field(1.0, ge=0)
    """Of the loss across views; lambda 1."""
    patch_weight: float = Field(1.0, ge=0)
    """Of the loss of hidden patches; lambda 2."""
    shared_head: bool = True
    """One head for class token and patches, as the paper found better; without, patches have a head of their own."""
    out_dim: int = Field(8192, ge=2)
    hidden_dim: int = Field(2048, ge=1)
    bottleneck_dim: int = Field(256, ge=1)
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.07, gt=0)
    """Lower than the student's: it sharpens the targets, against collapse to the uniform distribution."""
    teacher_patch_temperature: float = Field(0.07, gt=0)
    """The same for patches."""
    teacher_temperature_start: float = Field(0.04, gt=0)
    teacher_warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the teacher's temperatures go from their start to their end."""
    momentum: float = Field(0.996, ge=0, lt=1)
    """Of the teacher at the start; it climbs to 1 along a cosine."""
    center_momentum: float = Field(0.9, ge=0, le=1)
    """Of the means that are taken from the teacher's outputs, one for class tokens and one for patches."""
    freeze_last_layer: float = Field(0.01, ge=0, lt=1)
    """Share of the steps before the last layers start to learn (the paper's first epoch of 100)."""


def patch_loss(
    student: Tensor,
    teacher: Tensor,
    hidden: Tensor,
    center: Tensor,
    student_temperature: float,
    teacher_temperature: Tensor | float,
) -> Tensor:
    """Cross entropy of the teacher's distributions with the student's of hidden patches (equation 2).

    A mean over the hidden patches of a view, then over all views, those of which nothing is hidden counting as 0:
    rows are independent of each other.

    Args:
        student, teacher: (M, K) outputs at the M hidden patches, in the order of `hidden`; the teacher, which saw
            them, takes no gradient.
        hidden: bool (V, N), which patches of V views.
        center: (K,), taken from the teacher's outputs.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        q = torch.softmax((teacher.detach().to(dtype) - center.to(dtype)) / teacher_temperature, dim=1)
        log_p = torch.log_softmax(student.to(dtype) / student_temperature, dim=1)
        weight = hidden.to(dtype) / hidden.sum(dim=1, keepdim=True).clamp(min=1)
        return -((q * log_p).sum(dim=1) * weight[hidden]).sum() / len(hidden)


def draw_masks(keys: Tensor, stream: str, grid: Grid, probability: float, ratio: tuple[float, float]) -> Tensor:
    """Bool (B, N): with `probability` blocks of a share of the patches that is uniform in `ratio`, else nothing.

    Args:
        keys: (B,).
    """
    count = grid[0] * grid[1]
    masked, share = uniform(keys, f"{stream}.ratio", 2).unbind(1)
    number = (count * (ratio[0] + (ratio[1] - ratio[0]) * share)).round().clamp(1, count - 1)
    return block_masks(keys, stream, torch.where(masked < probability, number, 0.0), grid)


class Tokenizer(nn.Module):
    """A ViT and its heads: distributions of whole images and of their patches, for a teacher to be a copy of."""

    def __init__(self, vit: VisionTransformer, head: DirectionHead, patch_head: DirectionHead | None) -> None:
        super().__init__()
        self.vit, self.head, self.patch_head = vit, head, patch_head

    def forward(self, images: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (V, K) of images, (M, K) of the patches where `hidden` (V, N) is true, and the (K,) mean of all."""
        tokens = encode(self.vit, embed(self.vit, images))
        patch_head = self.patch_head or self.head
        patches = patch_head.directions(tokens[:, self.vit.num_prefix_tokens :])
        # the last layer is linear: the mean of all outputs needs one row of it, and not a row of each patch
        mean = patch_head.outputs(patches.mean(dim=(0, 1)))
        return self.head(summary(self.vit, tokens)), patch_head.outputs(patches[hidden]), mean


def summary(vit: VisionTransformer, tokens: Tensor) -> Tensor:
    """(B, num_features) features out of a ViT's tokens, as it gives them itself: the class token in most."""
    features: Tensor = vit.forward_head(tokens, pre_logits=True)
    return features


class IBOT(PatchMethod):
    """A ViT and its heads, their teacher, and the centers of its outputs."""

    views: ClassVar[ViewSpec] = multi_crop(10)
    pool: ClassVar[Pool] = "network"  # the class token is trained, and the paper transfers it
    centers: Tensor
    """(2, out_dim) moving means of the teacher's outputs over all ranks' rows: of images, and of all their patches."""
    progress: Tensor
    """() share of the training that is done."""

    def __init__(self, config: IBOTConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        rows, columns = self.vit.patch_embed.grid_size
        if rows * columns < 2:
            raise RequestError(
                "pretrain.backbone: ibot hides patches of an image, and these images have one; use larger images, or "
                "smaller patches (pretrain.stem=small)"
            )
        widths = (config.hidden_dim, config.bottleneck_dim, config.out_dim)
        self.head = DirectionHead(self.num_features, *widths)
        self.patch_head = None if config.shared_head else DirectionHead(self.vit.embed_dim, *widths)
        self.mask_token = nn.Parameter(torch.zeros(self.vit.embed_dim))
        self.teacher = Teacher(self._tokenizer())
        self.register_buffer("centers", torch.zeros(2, config.out_dim))
        self.register_buffer("progress", torch.zeros(()))
        self.fresh: list[Tensor] = []
        """Means (2, out_dim) of the teacher's outputs in this step, not yet in the centers."""

    @classmethod
    def views_for(cls, config: IBOTConfig) -> ViewSpec:
        """Two global views and the local ones."""
        return multi_crop(config.num_local)

    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.vit, self.head, self.patch_head)

    def chance(self) -> dict[str, float]:
        """A teacher that says the same of all images."""
        return {"teacher_entropy": math.log(self.config.out_dim)}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the weighted sum of `cls_loss`, log `out_dim` at chance, and `patch_loss`, `mask_probability` times
        that; and `teacher_entropy` of images, which goes to 0 or log `out_dim` in a collapse."""
        config = self.config
        images = torch.cat(batch.views[:NUM_GLOBAL])
        hidden = self._masks(batch.keys, grid_of(self.vit, images))
        targets, patch_targets, patch_mean = self.teacher(images, hidden)
        self.fresh = [*self.fresh, torch.stack([targets.mean(dim=0), patch_mean]).to(self.centers)]
        outputs, patch_outputs = self._student(images, hidden, batch.views[NUM_GLOBAL:])
        cold, targets = config.student_temperature, targets.unflatten(0, (NUM_GLOBAL, -1))
        warm, warm_patch = map(self._temperature, (config.teacher_temperature, config.teacher_patch_temperature))
        of_views, entropy = dino_loss(outputs, targets, self.centers[0], cold, warm)
        of_patches = patch_loss(patch_outputs, patch_targets, hidden, self.centers[1], cold, warm_patch)
        return {
            "loss": config.cls_weight * of_views + config.patch_weight * of_patches,
            "cls_loss": of_views.detach(),
            "patch_loss": of_patches.detach(),
            "teacher_entropy": entropy,
        }

    def _masks(self, keys: Tensor, grid: Grid) -> Tensor:
        """Bool (2 B, N) of the global views, one after the other."""
        drawn = self.config.mask_probability, self.config.mask_ratio
        return torch.cat([draw_masks(keys, f"ibot.{view}", grid, *drawn) for view in range(NUM_GLOBAL)])

    def _student(self, images: Tensor, hidden: Tensor, local: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Outputs (V, B, K) of all views, and (M, K) at the hidden patches of the global ones."""
        learns = self.progress >= self.config.freeze_last_layer
        tokens = encode(self.vit, embed(self.vit, images, hidden, self.mask_token))
        features = torch.cat([summary(self.vit, tokens), *([self.backbone(torch.cat(local))] if local else [])])
        outputs = self.head(features, learns).unflatten(0, (NUM_GLOBAL + len(local), -1))
        patches = tokens[:, self.vit.num_prefix_tokens :][hidden]
        return outputs, (self.patch_head or self.head)(patches, learns)

    def _temperature(self, end: float) -> Tensor:
        """() one of the teacher's, which climbs along a line."""
        config = self.config
        share = (self.progress / config.teacher_warmup).clamp(max=1.0) if config.teacher_warmup else 1.0
        start = config.teacher_temperature_start
        return torch.as_tensor(start + (end - start) * share, device=self.progress.device)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The teacher follows, and the centers take in this step's outputs of all ranks."""
        self.teacher.follow(self._tokenizer(), cosine_momentum(self.config.momentum, progress))
        mean = gather_with_grad(torch.stack(self.fresh).mean(dim=0, keepdim=True)).mean(dim=0)
        self.centers.lerp_(mean, 1.0 - self.config.center_momentum)
        self.progress.fill_(progress)
        self.fresh = []


SPEC = MethodSpec(
    name="ibot",
    config=IBOTConfig,
    method=IBOT,
    modalities=("image",),
    family="siamese without negatives",
    paper="iBOT: Image BERT Pre-Training with Online Tokenizer, arXiv 2111.07832",
    needs=("a ViT",),
)
