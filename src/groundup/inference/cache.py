"""Keys and values of the tokens read so far, so that each new token costs one token's work."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.model import Architecture


class KVCache:
    """Room for ``capacity`` tokens of each row, allocated once: a step writes a column and copies nothing.

    Rows share their columns, so prompts of different lengths are padded on the left. What a token leaves is the
    architecture's: keys and values, or with latent attention one short vector and one key.
    """

    def __init__(
        self, arch: Architecture, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        def room(heads: int, width: int) -> Tensor:
            return torch.empty(rows, heads, capacity, width, dtype=dtype, device=device)

        shapes = arch.cache_shapes()
        self.keys = [room(*keys) for keys, _ in shapes]
        self.values = [room(*values) for _, values in shapes]
        self.ids = torch.zeros(rows, 1 + capacity, dtype=torch.int64, device=device)  # the first has none before it
        self.positions = torch.zeros(rows, capacity, dtype=torch.int64, device=device)
        self.length = 0

    def extend(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Note new tokens and their positions, both [B, T]; give the ids before them and the positions of all."""
        end = self.length + ids.shape[1]
        self.ids[:, self.length + 1 : end + 1] = ids
        self.positions[:, self.length : end] = positions
        return self.ids[:, self.length : end], self.positions[:, :end]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new columns [B, heads, T, width] after ``length`` and give all up to them, as views."""
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
        self.ids, self.positions = self.ids[rows], self.positions[rows]
