"""The decoder: embeddings, blocks, final norm, head. Parameter names are those of the Qwen3 layout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.attention import Attention, Cache, attend_reference
from groundup.model.norm import RMSNorm
from groundup.model.positions import rotary_table, sinusoidal_table


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202, eq. 6)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(arch.hidden_size, arch.intermediate_size, bias=False)
        self.up_proj = nn.Linear(arch.hidden_size, arch.intermediate_size, bias=False)
        self.down_proj = nn.Linear(arch.intermediate_size, arch.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, arch: Architecture, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(arch.hidden_size, arch.norm_eps)
        self.self_attn = Attention(arch, layer)
        self.post_attention_layernorm = RMSNorm(arch.hidden_size, arch.norm_eps)
        self.mlp = FeedForward(arch)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor] | None, mask: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Everything below the head: token ids to normalised hidden states."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(arch.vocabulary_size, arch.hidden_size)
        if arch.positions == "learned":
            self.embed_positions = nn.Embedding(arch.context_length, arch.hidden_size)
        if arch.positions == "sinusoidal":
            self.position_table: Tensor
            table = sinusoidal_table(arch.context_length, arch.hidden_size)
            self.register_buffer("position_table", table, persistent=False)
        self.layers = nn.ModuleList(Block(arch, layer) for layer in range(arch.layers))
        self.norm = RMSNorm(arch.hidden_size, arch.norm_eps)


class Transformer(nn.Module):
    """A decoder-only language model.

    ``forward`` gives hidden states, not logits: whoever needs logits applies the head where they are needed, so that
    no [B, T, V] tensor exists that nobody reads.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.model = Decoder(arch)
        if not arch.tied_embeddings:
            self.lm_head = nn.Linear(arch.hidden_size, arch.vocabulary_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]: the embedding itself when tied."""
        return self.model.embed_tokens.weight if self.arch.tied_embeddings else self.lm_head.weight

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            ids: [B, T] int64 token ids.
            positions: [B, T] int64 places in each token's own document; None counts from 0.
            mask: bool [B, 1, T, S], true where a query may see a key; None = causal over the row.
            cache: keys and values of earlier tokens; ``mask`` then spans all S of them.

        Returns:
            [B, T, D] in the dtype of the weights (or of autocast).
        """
        x, rotary = self.embed(ids, positions)
        for block in self.model.layers:
            x = block(x, rotary, mask, cache)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def embed(self, ids: Tensor, positions: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What the first block reads: embeddings [B, T, D], and the rotary table where positions are rotary."""
        decoder, arch = self.model, self.arch
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        x: Tensor = decoder.embed_tokens(ids)
        if arch.positions == "rotary":
            return x, rotary_table(positions, arch.head_dim, arch.rope_theta)
        if arch.positions == "learned":
            return x + decoder.embed_positions(positions), None
        return x + decoder.position_table[positions].to(x.dtype), None

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary, [..., D] to [..., V] in the dtype of the product."""
        return F.linear(hidden, self.head_weight)


@torch.no_grad()
def attention_weights(model: Transformer, ids: Tensor) -> list[Tensor]:
    """The attention weights of every layer over one text, by the written-out reference: what figures show.

    Args:
        ids: [T] int64 token ids.

    Returns:
        for each layer [heads, T, T] float32; row t is where token t looked.
    """
    x, rotary = model.embed(ids[None])
    seen = []
    for block in model.model.layers:
        assert isinstance(block, Block)
        q, k, _ = block.self_attn.project(block.input_layernorm(x), rotary)
        k = k.repeat_interleave(model.arch.heads // model.arch.kv_heads, dim=1)
        seen.append(attend_reference(q, k, k, None)[1][0].float())
        x = block(x, rotary, None)
    return seen
