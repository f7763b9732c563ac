"""Multi-head latent attention: what is kept of a token is one short vector, from which all heads read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.context import ForwardContext
from groundup.model.layers import Linear
from groundup.model.masks import Scoring
from groundup.model.norm import make_norm
from groundup.model.positions import attention_gain, rotate


class LatentAttention(nn.Module):
    """Multi-head latent attention of DeepSeek-V2 (arXiv 2405.04434, section 2.1, eq. 9-19).

    Keys and values of all heads are made from one vector of ``kv_rank`` channels a token (eq. 9-11), queries
    optionally from one of ``query_rank`` (eq. 12-13). A part of each query, and one key that all heads share, carry the
    position (eq. 14-17). Only the short vector and that key are cached. Over a cache the matrices that would make keys
    and values are applied to queries and outputs instead, so that nothing is expanded (appendix C): equal to rounding.
    """

    def __init__(self, arch: Architecture, layer: int) -> None:
        super().__init__()
        latent = arch.latent
        assert latent is not None
        d, heads = arch.hidden_size, arch.heads
        self.layer, self.heads, self.windowed = layer, heads, arch.has_window(layer)
        self.plain_dim, self.rotary_dim, self.value_dim = arch.resolved_head_dim, latent.rotary_dim, arch.value_dim
        self.kv_rank, self.query_rank = latent.kv_rank, latent.query_rank
        if latent.query_rank is None:
            self.q_proj = Linear(d, heads * arch.key_dim, bias=False)
        else:
            self.q_a_proj = Linear(d, latent.query_rank, bias=False)
            self.q_a_layernorm = make_norm(arch, latent.query_rank)
            self.q_b_proj = Linear(latent.query_rank, heads * arch.key_dim, bias=False)
        self.kv_a_proj_with_mqa = Linear(d, latent.kv_rank + latent.rotary_dim, bias=False)
        self.kv_a_layernorm = make_norm(arch, latent.kv_rank)
        self.kv_b_proj = Linear(latent.kv_rank, heads * (self.plain_dim + self.value_dim), bias=False)
        self.o_proj = Linear(heads * self.value_dim, d, bias=False)
        self.sinks = nn.Parameter(torch.zeros(heads)) if arch.attention_sinks else None
        # Not all channels turn, and YaRN sharpens the whole score: so its gain is here and not in the rotation.
        gain = attention_gain(arch.rope(self.windowed)[1])
        self.scale = (arch.attention_scale or arch.key_dim**-0.5) * gain**2
        self.softcap, self.dropout = arch.attention_softcap, arch.resolved_attention_dropout

    def forward(self, x: Tensor, context: ForwardContext, extra: Tensor | None = None) -> Tensor:
        """Hidden states [B, T, D] to what attention adds to them, [B, T, D]; there is no ``extra``."""
        rotary, sight = context.rotaries[self.windowed], context.sights[self.windowed]
        batch, length, _ = x.shape
        q = self._queries(x).view(batch, length, self.heads, -1).transpose(1, 2)
        plain, turned = torch.split(q, [self.plain_dim, self.rotary_dim], dim=-1)
        turned = rotate(turned, *rotary)
        short, key = torch.split(self.kv_a_proj_with_mqa(x), [self.kv_rank, self.rotary_dim], dim=-1)
        short, key = self.kv_a_layernorm(short)[:, None], rotate(key[:, None], *rotary)  # [B, 1, T, …]
        if context.cache is not None:
            short, key = context.cache.update(self.layer, short, key)
        rule = Scoring(self.scale, self.softcap, None, self.sinks, self.dropout if self.training else 0.0)
        if short.shape[2] == q.shape[2]:
            made = self.kv_b_proj(short[:, 0]).view(batch, length, self.heads, -1).transpose(1, 2)
            keys, values = torch.split(made, [self.plain_dim, self.value_dim], dim=-1)
            keys = torch.cat((keys, key.expand(-1, self.heads, -1, -1)), dim=-1)
            mixed = context.kernel(torch.cat((plain, turned), dim=-1), keys, values, sight, rule)
        else:
            makers = self.kv_b_proj.weight.view(self.heads, -1, self.kv_rank)
            to_keys, to_values = torch.split(makers, [self.plain_dim, self.value_dim], dim=1)  # [heads, …, kv_rank]
            queries = torch.cat((plain @ to_keys.to(plain.dtype), turned), dim=-1)
            read = context.kernel(queries, torch.cat((short, key), dim=-1), short, sight, rule)
            mixed = read @ to_values.to(read.dtype).transpose(1, 2)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _queries(self, x: Tensor) -> Tensor:
        """[B, T, heads * (plain_dim + rotary_dim)]."""
        queries: Tensor = (
            self.q_proj(x) if self.query_rank is None else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        )
        return queries
