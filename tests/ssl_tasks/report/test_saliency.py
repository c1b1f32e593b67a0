"""Occlusion against a version written as plain loops, and on an encoder that looks at one pixel."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor, nn

from ssl_tasks.report.saliency import _overlay, effect


def test_only_what_the_encoder_looks_at_matters() -> None:
    def encode(batch: Tensor) -> Tensor:
        return torch.stack([batch[:, 0, 2, 5], torch.ones(len(batch))], dim=1)

    image = torch.zeros(1, 8, 8)
    image[0, 2, 5] = 3.0
    found = effect(encode, image)
    # hidden, the pixel is 3/64; every window that holds it gives the same value
    turned = 1 - (3 * 3 / 64 + 1) / (np.hypot(3, 1) * np.hypot(3 / 64, 1))
    assert np.isclose(found[2, 5], turned)
    held = {(y, x) for y in (1, 2, 3) for x in (4, 5, 6)}
    assert {(int(y), int(x)) for y, x in np.argwhere(found > 1e-9)} == held
    # of the four windows that hold a field at the side of the pixel two hold the pixel too, at the corner one
    assert np.isclose(found[2, 4], turned / 2)
    assert np.isclose(found[1, 4], turned / 4)


@torch.no_grad()
def test_the_map_is_that_of_plain_loops() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 18 * 18, 5)).double()
    image = torch.randn(2, 20, 20, dtype=torch.float64)
    found = effect(network, image)
    edges = [0, 2, 5, 8, 10, 12, 15, 18, 20]
    whole = network(image[None])[0]
    naive = np.zeros((8, 8))
    for y in range(8):
        for x in range(8):
            values = []
            for top in range(7):
                for left in range(7):
                    if not (top <= y <= top + 1 and left <= x <= left + 1):
                        continue
                    hidden = image.clone()
                    for channel in range(2):
                        hidden[channel, edges[top] : edges[top + 2], edges[left] : edges[left + 2]] = image[
                            channel
                        ].mean()
                    one = network(hidden[None])[0]
                    values.append(1 - float(one @ whole / (one.norm() * whole.norm())))
            naive[y, x] = np.mean(values)
    assert np.allclose(found, naive)


def test_an_encoder_that_sees_nothing_has_an_empty_map() -> None:
    found = effect(lambda batch: torch.ones(len(batch), 3), torch.randn(3, 8, 8))
    assert found.max() < 1e-12
    svg = _overlay("data:x", found, "<script>")
    assert "<script>" not in svg
    tree = ElementTree.fromstring(svg)
    assert len(list(tree.iter("rect"))) == 64
    assert max(float(rect.get("fill-opacity")) for rect in tree.iter("rect")) <= 0.8


def test_small_pictures_have_fewer_fields() -> None:
    found = effect(lambda batch: batch.flatten(1), torch.randn(1, 4, 4))
    assert found.shape == (4, 4)
    assert (found > 0).all()
