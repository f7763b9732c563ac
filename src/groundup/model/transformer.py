"""The decoder: embeddings, blocks, final norm, head. Parameter names are those of the Qwen3 layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.model.ahead import AheadBlock
from groundup.model.architecture import Architecture
from groundup.model.attend import attend_reference, repeat_heads
from groundup.model.block import Block
from groundup.model.context import Cache, ForwardContext, Routing, make_context
from groundup.model.embeddings import bigram_embeddings
from groundup.model.layers import Embedding, Linear
from groundup.model.losses import Head, head_logits
from groundup.model.masks import Mask, Scoring, Sight
from groundup.model.norm import RMSNorm, make_norm
from groundup.model.positions import sinusoidal_table


class Decoder(nn.Module):
    """Everything below the head: token ids to normalised hidden states."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.embed_tokens = Embedding(arch.vocabulary_size, arch.hidden_size)
        if arch.positions == "learned":
            self.embed_positions = Embedding(arch.context_length, arch.hidden_size)
        if arch.positions == "sinusoidal":
            self.position_table: Tensor
            table = sinusoidal_table(arch.context_length, arch.hidden_size)
            self.register_buffer("position_table", table, persistent=False)
        if arch.bigram_rows:
            self.embed_bigrams = Embedding(arch.bigram_rows, arch.hidden_size)
        width = arch.kv_heads * arch.resolved_head_dim
        valued = [layer for layer in range(arch.layers) if arch.has_value_embedding(layer)]
        self.value_embeddings = nn.ModuleDict({str(layer): Embedding(arch.vocabulary_size, width) for layer in valued})
        self.embed_norm = RMSNorm(arch.hidden_size, arch.norm_eps, gains=False) if arch.embedding_norm else None
        self.layers = nn.ModuleList(Block(arch, layer) for layer in range(arch.layers))
        self.recomputed = 0  # of these blocks, the first ones, the backward pass makes the activations again
        self.norm = nn.Identity() if arch.norm_placement == "post" else make_norm(arch, arch.hidden_size)
        blocks = nn.ModuleList(AheadBlock(arch) for _ in range(arch.predict_ahead))
        self.ahead = nn.ModuleDict({"layers": blocks} if arch.predict_ahead else {})

    def fill_tables(self) -> None:
        """Compute what is not stored with the weights, on their device: after they were given memory or replaced."""
        if self.arch.positions == "sinusoidal":
            table = sinusoidal_table(self.arch.context_length, self.arch.hidden_size)
            self.position_table = table.to(self.embed_tokens.weight.device)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [B, T, D], scaled where the architecture says so."""
        x: Tensor = self.embed_tokens(ids)
        return x * math.sqrt(self.arch.hidden_size) if self.arch.embedding_scale else x

    def begin(self, context: ForwardContext) -> Tensor:
        """What the first block reads, [B, T, D]."""
        x = self.embed(context.ids)
        if self.arch.positions == "learned":
            x = x + self.embed_positions(context.positions)
        if self.arch.positions == "sinusoidal":
            x = x + self.position_table[context.positions].to(x.dtype)
        if self.arch.bigram_rows:
            table = self.embed_bigrams.weight
            x = x + bigram_embeddings(context.before, context.ids, context.positions, table)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        return F.dropout(x, self.arch.dropout, self.training)

    def forward(self, context: ForwardContext) -> Tensor:
        """Hidden states after the final norm, [B, T, D]."""
        x = start = self.begin(context)
        for layer, block in enumerate(self.layers):
            x = self.runner(layer, block)(x, context, start, self.extra(layer, context.ids))
        hidden: Tensor = self.norm(x)
        return hidden

    def runner(self, layer: int, block: nn.Module) -> Callable[..., Tensor]:
        """The block, or what runs it without keeping its activations (Chen et al. 2016, arXiv 1604.06174)."""
        if layer >= self.recomputed or not torch.is_grad_enabled():
            return block
        random = self.training and (self.arch.dropout > 0 or self.arch.resolved_attention_dropout > 0)
        return partial(checkpoint, block, use_reentrant=False, preserve_rng_state=random)

    def ahead_blocks(self) -> Sequence[nn.Module]:
        """The blocks that predict further tokens, nearest first."""
        return [block for blocks in self.ahead.values() for block in blocks.children()]

    def extra(self, layer: int, ids: Tensor) -> Tensor | None:
        """The tokens' value embeddings [B, T, kv_heads * hd] of a layer that has them."""
        if not self.arch.has_value_embedding(layer):
            return None
        found: Tensor = self.value_embeddings[str(layer)](ids)
        return found


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
            self.lm_head = Linear(arch.hidden_size, arch.vocabulary_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]: the embedding itself when tied."""
        return self.model.embed_tokens.weight if self.arch.tied_embeddings else self.lm_head.weight

    @property
    def head(self) -> Head:
        """What losses need of the head."""
        return Head(self.head_weight, self.arch.logit_softcap)

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Mask = None,
        cache: Cache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            ids: [B, T] int64 token ids.
            positions: [B, T] int64 places in each token's own document; None counts from 0.
            mask: packed documents, or bool [B, 1, T, S], true where a query may see a key; None = each place sees
                itself and all before it, those in the cache included.
            cache: earlier tokens; ``mask`` then spans all S, the new ones included.
            routings: a list to which each mixture of experts adds where it sent the tokens: what its losses need.

        Returns:
            [B, T, D] in the dtype of the weights (or of autocast).
        """
        hidden: Tensor = self.model(make_context(self.arch, ids, positions, mask, cache, routings=routings))
        return hidden

    def look_ahead(
        self, hidden: Tensor, ids: Tensor, *, positions: Tensor | None = None, mask: Mask = None
    ) -> list[Tensor]:
        """Hidden states that predict further tokens: the k-th [B, T, D] knows k more ids of the row than ``hidden``
        does, and predicts the one after them. Places whose further ids are of another document hold nothing of
        use."""
        context = make_context(self.arch, ids, positions, mask, None)
        states = []
        for number, block in enumerate(self.model.ahead_blocks(), start=1):
            hidden = block(hidden, self.model.embed(ids.roll(-number, dims=1)), context)
            states.append(hidden)
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary, [..., D] to [..., V] in the dtype of the product."""
        return head_logits(hidden, self.head)


@torch.no_grad()
def attention_weights(model: Transformer, ids: Tensor) -> list[Tensor]:
    """The attention weights of every layer over one text, by the written-out reference: what figures show.

    Args:
        ids: [T] int64 token ids.

    Returns:
        for each layer [heads, T, T] float32; row t is where token t looked.
    """
    seen: list[Tensor] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, sight: Sight, rule: Scoring) -> Tensor:
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        out, weights = attend_reference(q, k, v, sight.mask, rule, sight.distance)
        seen.append(weights[0].float())
        return out

    model.model(make_context(model.arch, ids[None], None, None, None, kernel))
    return seen
