"""One side of `augment_views.py`, in a process and on a core of its own.

    python augment_worker.py SIDE DATA.npz CORE SIZE BLUR INPUTS

reads a number of seconds from each line of standard input, makes two SimCLR views of random images for so long and
answers with images per second. Every side gives the same: the views of a batch as two arrays (B, C, H, W), uint8 or,
where INPUTS is 1, normalized float32. This file is also run by interpreters that have only numpy and one library.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_BATCH = 256
BATCH_VALUES = 10_000_000
"""Of a batch of larger images: 50 stored at 256 px."""
Work = Callable[[np.ndarray], None]
"""Takes the numbers of the images to work on."""


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ours(data: list[np.ndarray], size: int, blur: float, inputs: bool) -> Work:
    """Whole batches, out of a payload as stages store it; like the others from memory, without copying it first."""
    import torch

    payload = torch.from_numpy(np.stack([*data, *(data[row % len(data)] for row in range(batch_of(data)))]))
    views = our_views(size, blur, inputs)
    return lambda rows: views(payload[rows[0] : rows[0] + len(rows)])


def our_views(size: int, blur: float, inputs: bool) -> Callable[[Any], None]:
    """Two views of a payload (B, H, W, 3)."""
    import torch

    from ssl_tasks.modalities import modality
    from ssl_tasks.policy import ResolvedPolicy
    from ssl_tasks.randomness import row_keys

    torch.set_num_threads(1)
    policy = ResolvedPolicy(size=size, blur_probability=blur)
    image, scale = modality("image"), {"low": [0.0] * 3, "high": [255.0] * 3, "depth": "uint8", "input": "standard"}
    step = iter(range(1 << 40))

    def work(payload: Any) -> None:
        for keys in row_keys(0, next(step), torch.arange(2 * len(payload))).chunk(2):
            views = image.augment(payload, policy, keys)
            if inputs:
                image.to_input(views, {"mean": MEAN, "std": STD, **scale})

    return work


def batch_of(data: list[np.ndarray]) -> int:
    """How many of these images make a batch; encoded files are taken for what they hold, about a megapixel."""
    values = data[0].size if data[0].ndim == 3 else 3 << 18
    return max(1, min(MAX_BATCH, BATCH_VALUES // values))


def torchvision_steps(size: int, blur: float, inputs: bool, pillow: bool) -> Any:
    """One view, of a uint8 tensor or a Pillow image, as a tensor."""
    import torch
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    steps: list[Any] = [
        v2.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True),
        v2.RandomHorizontalFlip(0.5),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
    ]
    if blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(size // 10 | 1, (0.1, 2.0))], blur))
    if pillow:
        steps.append(v2.PILToTensor())
    if inputs:
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose(steps)


def torchvision(data: list[np.ndarray], size: int, blur: float, inputs: bool, pillow: bool = False) -> Work:
    """Per sample, on uint8 tensors or on Pillow images."""
    import torch
    from PIL import Image

    transform = torchvision_steps(size, blur, inputs, pillow)
    tensors = [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in data]
    images: list[Any] = [Image.fromarray(image) for image in data] if pillow else tensors

    def work(rows: np.ndarray) -> None:
        for _ in range(2):
            torch.stack([transform(images[row]) for row in rows])

    return work


def albumentations_steps(size: int, blur: float, inputs: bool) -> Any:
    """One view of an array."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)
    steps: list[Any] = [
        A.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        A.ToGray(p=0.2),
    ]
    if blur:
        steps.append(A.GaussianBlur((size // 10 | 1, size // 10 | 1), (0.1, 2.0), p=blur))
    if inputs:
        steps.append(A.Normalize(MEAN, STD))
    return A.Compose(steps)


def albumentations(data: list[np.ndarray], size: int, blur: float, inputs: bool) -> Work:
    """Per sample, on arrays."""
    transform = albumentations_steps(size, blur, inputs)

    def view(row: int) -> np.ndarray:
        made: np.ndarray = transform(image=data[row])["image"]
        return made.transpose(2, 0, 1)  # as its ToTensorV2, which needs torch; stacking copies it so

    def work(rows: np.ndarray) -> None:
        for _ in range(2):
            np.stack([view(row) for row in rows])

    return work


def decoder(data: list[np.ndarray], size: int, blur: float, inputs: bool, then: bool = False) -> Work:
    """JPEG files to squares of 8/7 of `size` pixels, as normalize stores them, and with `then` two views of each.

    Either keeps freed memory, as `augment` has it: decoding alone gains more by that than two views take.
    """
    import torch

    from ssl_tasks.modalities.image.decoding import decode
    from ssl_tasks.modalities.image.resize import stored
    from ssl_tasks.modalities.image_augment.storage import keep_memory

    keep_memory()
    files = [array.tobytes() for array in data]
    views, side = our_views(size, blur, inputs), size * 8 // 7

    def work(rows: np.ndarray) -> None:
        pixels = [decode(files[row], least=3 * side // 2).pixels for row in rows]
        decoded = np.stack([stored(image, side, 3, "uint8", "crop") for image in pixels])
        if then:
            views(torch.from_numpy(decoded))

    return work


def each_file(data: list[np.ndarray], read: Callable[[bytes], Any], view: Callable[[Any], np.ndarray]) -> Work:
    """Peers: a file is decoded as a whole, and both views are cut out of that."""
    files = [array.tobytes() for array in data]

    def work(rows: np.ndarray) -> None:
        pairs = [[view(image) for _ in range(2)] for image in (read(files[row]) for row in rows)]
        for views in zip(*pairs, strict=True):
            np.stack(views)

    return work


def torchvision_files(data: list[np.ndarray], size: int, blur: float, inputs: bool) -> Work:
    """Pillow decodes, as in torchvision's own data sets."""
    import io

    from PIL import Image

    transform = torchvision_steps(size, blur, inputs, pillow=True)
    return each_file(data, lambda file: Image.open(io.BytesIO(file)).convert("RGB"), lambda i: transform(i).numpy())


def albumentations_files(data: list[np.ndarray], size: int, blur: float, inputs: bool) -> Work:
    """OpenCV decodes, as in its documentation."""
    import cv2

    transform = albumentations_steps(size, blur, inputs)

    def read(file: bytes) -> np.ndarray:
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    return each_file(data, read, lambda image: transform(image=image)["image"].transpose(2, 0, 1))


SIDES: dict[str, Callable[[list[np.ndarray], int, float, bool], Work]] = {
    "ours": ours,
    "torchvision": torchvision,
    "torchvision_pillow": lambda *options: torchvision(*options, pillow=True),
    "albumentations": albumentations,
    "ours_files": lambda *options: decoder(*options, then=True),
    "torchvision_files": torchvision_files,
    "albumentations_files": albumentations_files,
    "decode": decoder,
    "decode_and_augment": lambda *options: decoder(*options, then=True),
}


def main(side: str, path: str, core: str, size: str, blur: str, inputs: str) -> None:
    """Answer until standard input ends."""
    os.sched_setaffinity(0, {int(core)})
    with np.load(path) as file:
        data = [file[name] for name in file.files]
    work = SIDES[side](data, int(size), float(blur), inputs == "1")
    random = np.random.default_rng(int(core))
    batch = batch_of(data)
    work(random.integers(len(data), size=batch))
    for line in sys.stdin:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < float(line):
            work(random.integers(len(data), size=batch))
            count += batch
        print(count / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
