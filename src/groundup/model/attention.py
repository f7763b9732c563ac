"""Grouped-query attention: every choice of [model] about queries, keys and values, but the latent kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.context import ForwardContext
from groundup.model.layers import Linear
from groundup.model.masks import Scoring
from groundup.model.norm import make_norm
from groundup.model.positions import rotate


class Attention(nn.Module):
    """Self-attention (``kv_heads == heads`` is multi-head, 1 is multi-query, between is grouped-query, arXiv
    2305.13245).

    Query and key heads are normalised before they are rotated, as Qwen3 does (arXiv 2505.09388); OLMo-2 normalises
    their whole width (arXiv 2501.00656).
    """

    def __init__(self, arch: Architecture, layer: int) -> None:
        super().__init__()
        d, hd = arch.hidden_size, arch.resolved_head_dim
        reads, writes = arch.biases != "none", arch.biases == "all"
        self.layer, self.heads, self.kv_heads, self.head_dim = layer, arch.heads, arch.kv_heads, hd
        self.windowed, self.norm_each = arch.has_window(layer), arch.qk_norm == "head"
        self.q_proj = Linear(d, arch.heads * hd, bias=reads)
        self.k_proj = Linear(d, arch.kv_heads * hd, bias=reads)
        self.v_proj = Linear(d, arch.kv_heads * hd, bias=reads)
        self.o_proj = Linear(arch.heads * hd, d, bias=writes)
        widths = {"none": None, "head": (hd, hd), "width": (arch.heads * hd, arch.kv_heads * hd)}[arch.qk_norm]
        self.q_norm = make_norm(arch, widths[0]) if widths else nn.Identity()
        self.k_norm = make_norm(arch, widths[1]) if widths else nn.Identity()
        self.value_gate = Linear(d, arch.kv_heads, bias=False) if arch.has_value_embedding(layer) else None
        self.sinks = nn.Parameter(torch.zeros(arch.heads)) if arch.attention_sinks else None
        self.scale, self.softcap, self.dropout = (
            arch.attention_scale,
            arch.attention_softcap,
            arch.resolved_attention_dropout,
        )

    def project(self, x: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, heads, T, hd], keys and values [B, kv_heads, T, hd] of hidden states [B, T, D]."""
        q, k, v = self.q_proj(x), self.k_proj(x), self._split(self.v_proj(x), self.kv_heads)
        if self.norm_each:
            q, k = self.q_norm(self._split(q, self.heads)), self.k_norm(self._split(k, self.kv_heads))
        else:
            q, k = self._split(self.q_norm(q), self.heads), self._split(self.k_norm(k), self.kv_heads)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if context.rotaries:
            rotary = context.rotaries[self.windowed]
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(*x.shape[:-1], heads, self.head_dim)

    def forward(self, x: Tensor, context: ForwardContext, extra: Tensor | None = None) -> Tensor:
        """Hidden states [B, T, D] to what attention adds to them, [B, T, D].

        Args:
            extra: [B, T, kv_heads * hd], the tokens' value embeddings. They are added times 2 · sigmoid(gate(x)), a
                number a head that begins at 1 (after nanochat).
        """
        q, k, v = self.project(x, context)
        if extra is not None and self.value_gate is not None:
            gate = 2 * torch.sigmoid(self.value_gate(x))
            v = v + (gate[..., None] * self._split(extra, self.kv_heads)).transpose(1, 2).to(v.dtype)
        if context.cache is not None:
            k, v = context.cache.update(self.layer, k, v)
        dropout = self.dropout if self.training else 0.0
        rule = Scoring(self.scale, self.softcap, context.slopes, self.sinks, dropout)
        mixed = context.kernel(q, k, v, context.sights[self.windowed], rule)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out
