"""What the tests of methods share: a loss and its gradient against a naive one, one step in two ranks against one."""

from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_tasks.methods.base import Batch, Method, MethodSpec, TrainStats
from ssl_tasks.methods.pairs import Pairs
from ssl_tasks.modalities.captions import CAPTIONS, END, PAD, START, TextShape
from ssl_tasks.training.collectives import convert_sync_batchnorm, rank, world_size

NUM_ROWS = 8
SHAPE, VIT_SHAPE = (2, 6, 6), (2, 8, 8)
TEXT_SHAPE = TextShape(vocabulary=20, length=7)


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def text_of(spec: MethodSpec) -> dict[str, TextShape]:
    """What the method's module is made with besides the usual."""
    return {"text": TEXT_SHAPE} if CAPTIONS in spec.needs else {}


def some_text(num_rows: int, seed: int = 5) -> Tensor:
    """(num_rows, 7) captions of one to five tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((num_rows, TEXT_SHAPE.length), PAD)
    for row in tokens:
        count = int(torch.randint(1, TEXT_SHAPE.length - 1, (), generator=generator))
        row[1 : count + 1] = torch.randint(END + 1, TEXT_SHAPE.vocabulary, (count,), generator=generator)
        row[0], row[count + 1] = START, END
    return tokens


class TinyConv(nn.Module):
    """A convolution with batch norm, pooled."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 2), nn.BatchNorm2d(6)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).relu().mean((2, 3))


def tiny_vit() -> nn.Module:
    """Sixteen patches of `VIT_SHAPE`, one block."""
    vit = VisionTransformer(img_size=8, patch_size=2, in_chans=2, num_classes=0, embed_dim=32, depth=1, num_heads=2)
    vit.num_features = 32
    return vit


def tiny(spec: MethodSpec, num_rows: int = 40, backbone: nn.Module | None = None, **options: Any) -> Method:
    """The method in float64, prepared for `num_rows` train rows; on `TinyConv`, or the ViT it needs, by default."""
    torch.manual_seed(0)
    shape = shape_for(spec)
    backbone = backbone or (tiny_vit() if shape == VIT_SHAPE else TinyConv())
    method = spec.method(spec.config(name=spec.name, **options), backbone, shape, **text_of(spec))
    method.prepare(TrainStats(num_rows, torch.zeros(1, *shape), torch.arange(num_rows)))
    return method.double()


def shape_for(spec: MethodSpec) -> tuple[int, int, int]:
    """Of the images that `tiny` is for."""
    return VIT_SHAPE if "a ViT" in spec.needs else SHAPE


def tiny_batch(method: Method) -> Batch:
    """This rank's rows of one batch."""
    mine = slice(rank() * NUM_ROWS // world_size(), (rank() + 1) * NUM_ROWS // world_size())
    shape = VIT_SHAPE if isinstance(method.backbone, VisionTransformer) else SHAPE
    views = [
        rows(NUM_ROWS, *shape, seed=1 + number)[mine] for number in range(len(method.views_for(method.config).policies))
    ]
    text = some_text(NUM_ROWS)[mine] if isinstance(method, Pairs) else None
    return Batch(views, torch.arange(NUM_ROWS)[mine], torch.arange(NUM_ROWS)[mine], text)


def one_step(spec: MethodSpec, **options: Any) -> dict[str, Tensor]:
    """Scalars, gradients as DDP averages them, and what `after_step` leaves after a step of plain SGD per phase."""
    method = tiny(spec, **options)
    batch = tiny_batch(method)
    module = convert_sync_batchnorm(method, "cpu")
    if world_size() > 1:
        several = len(method.phases) > 1
        module = DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=several)
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    results = {}
    for phase in method.phases:
        method.zero_grad()
        output = module(batch, phase)
        output["loss"].backward()
        results |= {f"mean {phase} {name}": value.detach().double() for name, value in output.items()}
        moved = {id(p) for group in method.param_groups(phase) for p in group["params"]}
        with torch.no_grad():
            for name, parameter in trained.items():
                if id(parameter) in moved:
                    results[f"grad {name}"] = parameter.grad.clone()
                    parameter -= 0.1 * parameter.grad
    method.after_step(0.5)
    results |= {f"teacher {name}": p.detach() for name, p in method.named_parameters() if name not in trained}
    return results | {f"buffer {name}": b for name, b in method.named_buffers()}


def assert_ranks_agree(alone: dict[str, Tensor], ranks: list[dict[str, Tensor]]) -> None:
    """Two ranks' `one_step` is that of one: means over ranks for scalars, all else on each rank, bit for bit."""
    first, second = ranks
    for key, expected in alone.items():
        mean = key.startswith("mean ")
        found = (first[key] + second[key]) / 2 if mean else first[key]
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")
        assert mean or torch.equal(first[key], second[key]), key
        assert not key.endswith(" loss") or not torch.equal(first[key], second[key]), key  # each has rows of its own


def assert_same_loss_and_gradients(
    ours: Callable[..., Tensor], naive: Callable[..., Tensor], inputs: list[Tensor]
) -> None:
    """Both losses and their gradients with respect to every input, in float64."""
    mine, theirs = ([z.detach().clone().requires_grad_() for z in inputs] for _ in range(2))
    loss, expected = ours(*mine), naive(*theirs)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
