"""Who sees whom (documents of packed rows, branches of a document, windows), and how scores become weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """bool [T, S], true where query row may look at key column: the queries are the last T of S places, and each
    sees itself and all before it."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def document_mask(documents: Tensor, branches: Tensor | None = None) -> Tensor:
    """Which key each query of a packed row may see: earlier or the same place, of the same document.

    Args:
        documents: [B, T] integers, the document of each token (0 = padding, which sees only padding).
        branches: [B, T] integers or None. Tokens of branch 0 are a shared prefix that all branches of the document
            see; different branches do not see each other. This is how two answers share one prompt.

    Returns:
        bool [B, 1, T, T], true where query row may look at key column.
    """
    same = documents[:, :, None] == documents[:, None, :]
    if branches is not None:
        same = same & ((branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None]))
    length = documents.shape[1]
    return (same & causal_mask(length, length, documents.device))[:, None]


@dataclass(frozen=True)
class PackedMask:
    """The mask of packed rows by its documents, so that a kernel may skip what nobody sees; see
    :func:`document_mask`."""

    documents: Tensor
    branches: Tensor | None = None

    def dense(self) -> Tensor:
        """bool [B, 1, T, T]."""
        return document_mask(self.documents, self.branches)


Mask = Tensor | PackedMask | None
"""bool [B, 1, T, S], or packed documents, or None: each place sees itself and all before it."""


@dataclass(frozen=True)
class Sight:
    """What the queries of one layer see."""

    mask: Tensor | None
    """bool, broadcastable to [B, H, T, S], true where a query sees a key; None is :func:`causal_mask`"""
    distance: Tensor | None = None
    """[B, 1, T, S] float32, positions from key to query: what ALiBi's slopes multiply"""
    blocks: Any = None
    """FlexAttention's block mask in place of ``mask``, where that kernel is used"""
    positions: Tensor | None = None
    """[B, T], with ``blocks`` in place of ``distance``"""


@dataclass(frozen=True)
class Scoring:
    """How a layer turns queries and keys into weights."""

    scale: float | None = None
    """multiplies the scores; None is 1 / sqrt(width of a head)"""
    softcap: float | None = None
    """scores become c · tanh(score / c) (Gemma 2, arXiv 2408.00118, section 2)"""
    slopes: Tensor | None = None
    """[H] ALiBi: the score falls by slope · distance (Press et al. 2021, arXiv 2108.12409)"""
    sinks: Tensor | None = None
    """[H] the score of looking at nothing, which takes its share of the weights (gpt-oss, arXiv 2508.10925)"""
    dropout: float = 0.0
    """share of the weights set to 0, the others scaled up"""


def see(mask: Tensor | None, positions: Tensor, key_positions: Tensor, window: int | None, distances: bool) -> Sight:
    """The sight of a layer, from a dense mask.

    A window counts positions, not columns: the branches of a document stand beside each other in a row.

    Args:
        mask: bool [B, 1, T, S] or None for :func:`causal_mask`.
        positions: [B or 1, T] of the queries; key_positions: [B or 1, S] of the keys.
        window: how many positions a query sees back, itself included; None is all.
        distances: whether they are needed.
    """
    if window is None and not distances:
        return Sight(mask)
    back = (positions[:, :, None] - key_positions[:, None, :])[:, None]  # [B, 1, T, S]
    if window is not None:
        near = back < window
        if mask is None:
            mask = causal_mask(positions.shape[1], key_positions.shape[1], positions.device)
        mask = mask & near
    return Sight(mask, back.float() if distances else None)
