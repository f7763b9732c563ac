"""A layer: attention, then feed-forward, each added to the residual stream, and norms where the architecture says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.attention import Attention
from groundup.model.context import ForwardContext
from groundup.model.experts import MixtureOfExperts
from groundup.model.feed_forward import FeedForward
from groundup.model.latent import LatentAttention
from groundup.model.norm import make_norm

NORMS: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    "pre": ("input_layernorm", None, "post_attention_layernorm", None),
    "sandwich": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "output": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "post": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
}
"""Names of the norms before and after attention and before and after the feed-forward layer, by placement, as the
layouts of Llama, Gemma and OLMo name them."""


class Block(nn.Module):
    """One layer of the decoder; :class:`ModelShape` says the formula of each ``norm_placement``."""

    def __init__(self, arch: Architecture, layer: int) -> None:
        super().__init__()
        self.norms, self.after_sum = NORMS[arch.norm_placement], arch.norm_placement == "post"
        self.dropout = arch.dropout
        for name in self.norms:
            if name is not None:
                self.add_module(name, make_norm(arch, arch.hidden_size))
        self.self_attn = LatentAttention(arch, layer) if arch.latent else Attention(arch, layer)
        self.mlp = MixtureOfExperts(arch) if arch.has_experts(layer) else FeedForward(arch, arch.intermediate_size)
        self.residual_scale = nn.Parameter(torch.ones(1)) if arch.residual_scalars else None
        self.x0_scale = nn.Parameter(torch.zeros(1)) if arch.x0_skip else None

    def forward(
        self, x: Tensor, context: ForwardContext, start: Tensor | None = None, extra: Tensor | None = None
    ) -> Tensor:
        """[B, T, D] to [B, T, D].

        Args:
            start: [B, T, D], what the first block read: what an x0 skip adds again.
            extra: the tokens' value embeddings, where this layer has them.
        """
        x = self.before(x, start)
        before_attention, after_attention, before_mlp, after_mlp = self.norms
        x = self._add(x, self.self_attn(self._norm(before_attention, x), context, extra), after_attention)
        inner = self._norm(before_mlp, x)
        if isinstance(self.mlp, MixtureOfExperts):
            return self._add(x, self.mlp(inner, context), after_mlp)
        return self._add(x, self.mlp(inner), after_mlp)

    def before(self, x: Tensor, start: Tensor | None) -> Tensor:
        """The residual stream as the block takes it up: times its scalar, plus the embedding times another."""
        if self.residual_scale is not None:
            x = self.residual_scale.to(x.dtype) * x
        if self.x0_scale is not None and start is not None:
            x = x + self.x0_scale.to(x.dtype) * start
        return x

    def _add(self, x: Tensor, out: Tensor, after: str | None) -> Tensor:
        if self.after_sum:
            return self._norm(after, x + F.dropout(out, self.dropout, self.training))
        return x + F.dropout(self._norm(after, out), self.dropout, self.training)

    def _norm(self, name: str | None, x: Tensor) -> Tensor:
        normed: Tensor = x if name is None else getattr(self, name)(x)
        return normed
