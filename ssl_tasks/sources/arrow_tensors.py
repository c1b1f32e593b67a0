"""Columns of pixels in Arrow data: fixed-shape tensors, and lists of lists of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.tensors import npy_payloads, stored_dtype, to_stored

LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)


def is_tensor(kind: pa.DataType) -> bool:
    """Whether a value is (H, W) or (H, W, C) numbers."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return len(kind.shape) in (2, 3) and _is_number(kind.value_type)
    depth = 0
    while isinstance(kind, LISTS):
        kind, depth = kind.value_type, depth + 1
    return depth in (2, 3) and _is_number(kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def tensor_payloads(column: pa.Array, file: str, first: int, name: str) -> list[bytes | None]:
    """Each value as an .npy file's bytes; None where there is none.

    Raises:
        RequestError: the numbers are of a type that is not stored, or a value's rows differ in length.
    """
    valid = column.is_valid()
    payloads: list[bytes | None] = [None] * len(column)
    places = np.flatnonzero(valid.to_numpy(zero_copy_only=False))
    if isinstance(column.type, pa.FixedShapeTensorType):
        there = pa.ExtensionArray.from_storage(column.type, column.storage.filter(valid))
        block = there.to_numpy_ndarray()
        dtype = stored_dtype(block.dtype, f"ingest.path: column {name!r} of {file}")
        for place, payload in zip(places, npy_payloads(to_stored(block, dtype)), strict=True):
            payloads[int(place)] = payload
        return payloads
    for place in places:
        values = _nested(column[int(place)].values, f"ingest.path: column {name!r} of {file}#{first + place}")
        dtype = stored_dtype(values.dtype, f"ingest.path: column {name!r} of {file}")
        payloads[int(place)] = npy_payloads(to_stored(values[None], dtype))[0]
    return payloads


def _nested(values: Any, where: str) -> np.ndarray:
    """One value, whose outermost list has been opened, as an array."""
    shape = [len(values)]
    while isinstance(values.type, LISTS):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise RequestError(f"{where} is ragged: its lists have {', '.join(map(str, lengths[:5]))} values")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise RequestError(f"{where} lacks numbers")
    return np.asarray(values.to_numpy(zero_copy_only=False).reshape(shape))
