"""Random numbers from counters: equal (seed, step, sample, stream) give equal numbers, whatever ran before.

Nothing is stored in a generator, so a step is the same for any number of workers and after any resume. The
mixing function is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, doi:10.1145/2660193.2660195) on int64
tensors, whose multiplication wraps; it runs on whole batches, on CPU and GPU alike.

    keys = row_keys(seed, step, positions)          # (B,)
    u = uniform(keys, "crop", 4)                    # (B, 4) in [0, 1)
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def mix(x: Tensor) -> Tensor:
    """SplitMix64's output function on int64 tensors of any shape."""
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical: torch shifts int64 arithmetically


def stream_key(name: str) -> int:
    """A fixed int64 for a named stream."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def row_keys(seed: int, step: int, positions: Tensor) -> Tensor:
    """(B,) int64 keys of the samples at `positions` in `step`."""
    base = mix(torch.tensor(seed, dtype=torch.int64) * _GOLDEN + stream_key("row"))
    base = mix(base + torch.tensor(step, dtype=torch.int64) * _GOLDEN).to(positions.device)
    return mix(base + positions.to(torch.int64) * _GOLDEN)


def bits(keys: Tensor, stream: str, count: int) -> Tensor:
    """(B, count) random int64 from (B,) keys."""
    counters = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device) * _GOLDEN
    return mix(mix(keys + stream_key(stream))[:, None] + counters)


def uniform(keys: Tensor, stream: str, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, count) uniform in [0, 1), 24 random bits for float32 and 53 for float64."""
    width = 53 if dtype == torch.float64 else 24
    return (_shift(bits(keys, stream, count), 64 - width)).to(dtype) / (1 << width)


def normal(keys: Tensor, stream: str, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, count) standard normal, by Box and Muller."""
    u = uniform(keys, stream, 2 * count, dtype)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :count]))
    return radius * torch.cos(2.0 * math.pi * u[:, count:])
