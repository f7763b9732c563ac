"""Bytes and words of many texts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def utf8(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 bytes of all texts end to end, uint8 [b], and where each begins, int64 [n+1]; nothing is copied."""
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data is None or len(starts) == 0:
        return np.empty(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    return np.frombuffer(data, np.uint8)[starts[0] : starts[-1]], starts - starts[0]


def as_texts(strings: Sequence[str]) -> pa.LargeStringArray:
    """Strings without lone surrogates as an array: the same as `pa.array`, sooner where not all are ASCII."""
    data = [text.encode("utf-8") for text in strings]
    offsets = np.zeros(len(data) + 1, np.int64)
    np.cumsum([len(each) for each in data], out=offsets[1:])
    return pa.LargeStringArray.from_buffers(len(data), pa.py_buffer(offsets), pa.py_buffer(b"".join(data)))


def measure(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes and words of each text, int64 [n] both; a word is a run of bytes above the ASCII space."""
    data, offsets = utf8(texts)
    sizes = np.diff(offsets)
    if not len(data):
        return sizes, np.zeros_like(sizes)
    inside = data > ord(" ")
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    starts = offsets[:-1][sizes > 0]
    begins[starts] = inside[starts]
    words = np.zeros_like(sizes)
    words[sizes > 0] = np.add.reduceat(begins.view(np.uint8), starts, dtype=np.int64)
    return sizes, words
