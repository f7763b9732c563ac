"""What every block reads besides the hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from groundup.model.architecture import Architecture
from groundup.model.attend import Kernel, attend
from groundup.model.embeddings import ids_before
from groundup.model.flex import flex_wins, see_blocks
from groundup.model.masks import Mask, PackedMask, Sight, see
from groundup.model.positions import Rotary, alibi_slopes, rotary_table


class Cache(Protocol):
    """What the model needs of a cache of earlier tokens."""

    def extend(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Note the new tokens [B, T] and their positions; give the id before each [B, T] (anything where the position
        is 0) and the positions of all tokens so far [B, S]."""
        ...

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new tensors [B, heads, T, width] (see ``Architecture.cache_shapes``), and return all so
        far."""
        ...


@dataclass(frozen=True)
class Routing:
    """Where a mixture of experts sent its tokens."""

    logits: Tensor
    """[B, T, E] float32, the router's scores"""
    chosen: Tensor
    """[B, T, K] int64, the experts of each token"""


@dataclass
class ForwardContext:
    """One forward pass: what is the same for all blocks."""

    ids: Tensor
    """[B, T]"""
    before: Tensor
    """[B, T] the id before each; anything where the position is 0"""
    positions: Tensor
    """[B or 1, T]"""
    sights: dict[bool, Sight]
    """by whether the layer has a window"""
    rotaries: dict[bool, Rotary]
    """the same, where positions are rotary"""
    cache: Cache | None
    kernel: Kernel
    slopes: Tensor | None
    """[H] float32, where positions are ALiBi's"""
    routings: list[Routing] | None
    """where asked for, each mixture of experts adds its own"""


def make_context(
    arch: Architecture,
    ids: Tensor,
    positions: Tensor | None,
    mask: Mask,
    cache: Cache | None,
    kernel: Kernel = attend,
    routings: list[Routing] | None = None,
) -> ForwardContext:
    """The context of a pass over ``ids`` [B, T]; see :meth:`Transformer.forward`."""
    if positions is None:
        if cache is not None:
            raise ValueError("over a cache positions must be given: they go on from those of the tokens in it")
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
    if cache is None:
        before, key_positions = ids_before(ids, mask), positions
    else:
        before, key_positions = cache.extend(ids, positions)
    kinds = sorted({arch.has_window(layer) for layer in range(arch.layers)})
    rotaries = {}
    if arch.positions == "rotary":
        for windowed in kinds:
            theta, scaling = arch.rope(windowed)
            rotaries[windowed] = rotary_table(positions, arch.rotary_dim, theta, scaling, gained=arch.latent is None)
    sights = {kind: _sight(arch, kind, mask, positions, key_positions, cache, kernel) for kind in kinds}
    slopes = None
    if arch.positions == "alibi":
        slopes = torch.tensor(alibi_slopes(arch.heads), dtype=torch.float32, device=ids.device)
    return ForwardContext(ids, before, positions, sights, rotaries, cache, kernel, slopes, routings)


def _sight(
    arch: Architecture,
    windowed: bool,
    mask: Mask,
    positions: Tensor,
    key_positions: Tensor,
    cache: Cache | None,
    kernel: Kernel,
) -> Sight:
    """What the layers with (or without) a window see."""
    window = arch.window if windowed else None
    if isinstance(mask, PackedMask) and key_positions.shape[1] != positions.shape[1]:
        raise ValueError("packed documents don't say who sees what is in the cache: give a mask [B, 1, T, S]")
    # Packed rows alone have few lengths; FlexAttention is compiled anew for each.
    fused = kernel is attend and cache is None and isinstance(mask, PackedMask) and not arch.resolved_attention_dropout
    if fused and isinstance(mask, PackedMask) and flex_wins(positions, softcap=arch.attention_softcap is not None):
        return see_blocks(mask, positions.expand(len(mask.documents), -1), window)
    dense = mask.dense() if isinstance(mask, PackedMask) else mask
    return see(dense, positions, key_positions, window, arch.positions == "alibi")
