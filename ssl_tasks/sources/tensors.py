"""Arrays of pixels as payloads: each row as `numpy.save` would write it, which a decoder knows by its first bytes."""

from __future__ import annotations

import io

import numpy as np
from numpy.lib import format as npy

from ssl_tasks.errors import RequestError

KEPT = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
MAGIC = b"\x93NUMPY"


def npy_payloads(block: np.ndarray) -> list[bytes]:
    """Each row of (N, ...) as the bytes of an .npy file; the header is written once for all of them."""
    if not len(block):
        return []
    block = np.ascontiguousarray(block)
    head = io.BytesIO()
    npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(block[0]))
    header = head.getvalue()
    return [header + row.tobytes() for row in block]


def stored_dtype(dtype: np.dtype, where: str) -> np.dtype:
    """uint8, uint16 or float32, whichever holds values of `dtype`, whatever they are.

    Raises:
        RequestError: none of them does.
    """
    dtype = dtype.newbyteorder("=")
    if dtype in KEPT:
        return dtype
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    if dtype.kind == "f":
        return np.dtype(np.float32)
    raise RequestError(f"{where} holds {dtype}; store pixels as uint8, uint16 or float32")


def to_stored(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`block` in a dtype of `stored_dtype`; false and true become black and white."""
    if block.dtype == np.bool_:
        return block.astype(np.uint8) * np.uint8(255)
    return block.astype(dtype, copy=False)
