"""Arrow arrays from lists and NumPy arrays, and back, with the values that `pa.array` and `to_numpy` give.

Those two import pandas where it is installed, to see whether they are given, or asked for, something of pandas': a
quarter of a second and some 30 MB in every process. A corpus is made without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.corpus.sizes import as_texts

_KINDS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]
_DTYPES = {pa.from_numpy_dtype(np.dtype(kind)): np.dtype(kind) for kind in _KINDS}


def numbers(values: np.ndarray | Sequence[float | None], dtype: Any = None) -> pa.Array:
    """Numbers of a fixed width, of NumPy's type `dtype` or the array's own; None is null."""
    present = None
    if not isinstance(values, np.ndarray):
        present = np.array([value is not None for value in values], bool)
        values = np.array([0 if value is None else value for value in values], dtype)
    data = np.ascontiguousarray(values, dtype)
    return pa.Array.from_buffers(pa.from_numpy_dtype(data.dtype), len(data), [_bits(present), pa.py_buffer(data)])


def flags(values: np.ndarray) -> pa.BooleanArray:
    """Booleans of bool [n]."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def strings(values: Sequence[str | None]) -> pa.StringArray:
    """Strings without lone surrogates; None is null."""
    texts = as_texts([value or "" for value in values])
    present = np.array([value is not None for value in values], bool)
    whole = pa.LargeStringArray.from_buffers(len(texts), *texts.buffers()[1:], _bits(present))
    return whole.cast(pa.string())  # which raises where 32 bits are too few for the bytes


def as_numpy(column: pa.Array) -> np.ndarray:
    """The values of numbers or booleans, not copied where that can be; null is NaN or False.

    Raises ValueError for integers of which some are null.
    """
    present, data = column.buffers()
    place = slice(column.offset, column.offset + len(column))
    is_flags = column.type == pa.bool_()
    values = _unpacked(data, place) if is_flags else np.frombuffer(data or b"", _DTYPES[column.type])[place]
    if column.null_count:
        if not is_flags and values.dtype.kind != "f":
            raise ValueError(f"{column.null_count} of {len(column)} integers are null")
        values = np.where(_unpacked(present, place), values, False if is_flags else np.nan)
    return values


def _bits(present: np.ndarray | None) -> pa.Buffer | None:
    """bool [n] as Arrow's bitmap."""
    return None if present is None else pa.py_buffer(np.packbits(present, bitorder="little"))


def _unpacked(bits: pa.Buffer | None, place: slice) -> np.ndarray:
    """bool [n], the stretch of a bitmap of Arrow's."""
    return np.unpackbits(np.frombuffer(bits or b"", np.uint8), count=place.stop, bitorder="little")[place].view(bool)
