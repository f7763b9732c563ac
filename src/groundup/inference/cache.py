"""Keys and values of the tokens read so far, so that each new token costs one token's work."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.model import Architecture


class KVCache:
    """Room for ``capacity`` tokens of each row, allocated once: a step writes a column and copies nothing.

    Rows share their columns, so prompts of different lengths are padded on the left.
    """

    def __init__(
        self, arch: Architecture, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (rows, arch.kv_heads, capacity, arch.head_dim)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(arch.layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(arch.layers)]
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new columns [B, kv_heads, T, head_dim] after ``length`` and give all up to them, as views."""
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, count: int) -> None:
        """Count the ``count`` columns that every layer has just written."""
        self.length += count

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these [n] (int64)."""
        self.keys = [tensor[rows] for tensor in self.keys]
        self.values = [tensor[rows] for tensor in self.values]
