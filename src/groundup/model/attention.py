"""Attention: who looks at whom (masks), and the weighted sum itself."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.norm import RMSNorm
from groundup.model.positions import rotate


class Cache(Protocol):
    """What attention needs of a key-value cache."""

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values [B, kv_heads, T, head_dim] and return all of them so far."""
        ...


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
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return (same & causal)[:, None]


def attend_reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """softmax(QKᵀ / √d + mask) V, written out (Vaswani et al. 2017, eq. 1). Also returns the weights.

    Args:
        q: [B, H, T, d]; k, v: [B, H, S, d].
        mask: bool, broadcastable to [B, H, T, S], true where attention is allowed; None = causal (T == S).

    Returns:
        the sum [B, H, T, d] and the weights [B, H, T, S].
    """
    scores = (q @ k.transpose(-2, -1)).float() / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return weights.to(v.dtype) @ v, weights


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The sum of :func:`attend_reference` by PyTorch's fused kernel, which keeps no weights; shapes as there."""
    return F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=mask, is_causal=mask is None)


class Attention(nn.Module):
    """Grouped-query self-attention with QK-norm (``kv_heads == heads`` is multi-head, 1 is multi-query).

    Query and key heads are normalised before they are rotated, as Qwen3 does (arXiv 2505.09388).
    """

    def __init__(self, arch: Architecture, layer: int) -> None:
        super().__init__()
        d, hd = arch.hidden_size, arch.head_dim
        self.layer, self.heads, self.kv_heads, self.head_dim = layer, arch.heads, arch.kv_heads, hd
        self.rotary = arch.positions == "rotary"
        self.q_proj = nn.Linear(d, arch.heads * hd, bias=False)
        self.k_proj = nn.Linear(d, arch.kv_heads * hd, bias=False)
        self.v_proj = nn.Linear(d, arch.kv_heads * hd, bias=False)
        self.o_proj = nn.Linear(arch.heads * hd, d, bias=False)
        self.q_norm = RMSNorm(hd, arch.norm_eps) if arch.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(hd, arch.norm_eps) if arch.qk_norm else nn.Identity()

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, heads, T, hd], keys and values [B, kv_heads, T, hd] of hidden states [B, T, D]."""
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Hidden states [B, T, D] to the attention output [B, T, D]; see :class:`Transformer` for the rest."""
        q, k, v = self.project(x, rotary)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        if self.kv_heads != self.heads:
            repeat = self.heads // self.kv_heads
            k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        mixed: Tensor = self.o_proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))
        return mixed
