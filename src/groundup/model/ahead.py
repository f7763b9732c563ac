"""Predicting further tokens: one more block for each, used in training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.block import Block
from groundup.model.context import ForwardContext
from groundup.model.layers import Linear
from groundup.model.norm import RMSNorm


class AheadBlock(nn.Module):
    """norm(block(projection([norm(h); norm(e)]))), with e the embedding of the next token that h does not know yet
    (DeepSeek-V3, arXiv 2412.19437, section 2.2, eq. 21-23). Embedding and head are the model's own.

    The block has a plain feed-forward layer, and sees what the last layer sees.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        width = arch.hidden_size
        self.hidden_norm = RMSNorm(width, arch.norm_eps)
        self.embedding_norm = RMSNorm(width, arch.norm_eps)
        self.projection = Linear(2 * width, width, bias=False)
        plain = arch.replace(experts=None, value_embeddings=False, x0_skip=False, residual_scalars=False)
        self.block = Block(plain, arch.layers - 1)
        self.norm = RMSNorm(width, arch.norm_eps)

    def forward(self, hidden: Tensor, embedding: Tensor, context: ForwardContext) -> Tensor:
        """Hidden states and embeddings of the tokens after them, both [B, T, D], to hidden states [B, T, D]."""
        both = torch.cat((self.hidden_norm(hidden), self.embedding_norm(embedding).to(hidden.dtype)), dim=-1)
        out: Tensor = self.norm(self.block(self.projection(both), context))
        return out
