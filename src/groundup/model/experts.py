"""A mixture of experts: a router sends each token through a few feed-forward layers of many."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.context import ForwardContext, Routing
from groundup.model.feed_forward import ACTIVATIONS, FeedForward
from groundup.model.grouped import grouped_product
from groundup.model.layers import Linear


class Experts(nn.Module):
    """The experts' matrices in stacks, one product for all: each a gated feed-forward layer."""

    def __init__(self, count: int, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.gate_proj = nn.Parameter(torch.empty(count, inner, width))
        self.up_proj = nn.Parameter(torch.empty(count, inner, width))
        self.down_proj = nn.Parameter(torch.empty(count, width, inner))
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        """Rows [N, D] sorted by expert, the rows of expert e before ``ends``[e] ([E] int32), to [N, D]."""
        inner = self.activation(grouped_product(x, self.gate_proj, ends)) * grouped_product(x, self.up_proj, ends)
        return grouped_product(inner, self.down_proj, ends)


class MixtureOfExperts(nn.Module):
    """Σ over the K experts of highest probability p_e(x) · expert_e(x), plus shared experts that all tokens go through.

    p = softmax(router · x) in float32, over all experts; with ``renormalise`` divided by the sum of the K chosen, which
    is Mixtral's softmax over the chosen scores (arXiv 2401.04088, section 2.1; Shazeer et al. 2017, arXiv 1701.06538).
    Shared experts, and a first few dense layers, are DeepSeekMoE's (arXiv 2401.06066). Every token reaches its
    experts, however many choose the same one ("dropless", Gale et al. 2022, arXiv 2211.15841).
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        table = arch.experts
        assert table is not None
        inner = table.intermediate_size or arch.intermediate_size
        self.per_token, self.renormalise, self.scale = table.per_token, table.renormalise, table.scale
        self.gate = Linear(arch.hidden_size, table.count, bias=False)
        self.experts = Experts(table.count, arch.hidden_size, inner, arch.feed_forward)
        self.shared_experts = FeedForward(arch, table.shared * inner) if table.shared else None

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        logits, chosen, weights = self.route(x)
        if context.routings is not None:
            context.routings.append(Routing(logits, chosen))
        flat, picked = x.flatten(0, 1), chosen.flatten()  # [N, D], [N·K]
        order = picked.argsort(stable=True)
        experts = torch.arange(logits.shape[-1], device=x.device)
        ends = (picked[:, None] == experts).sum(0).cumsum(0).to(torch.int32)
        sent = self.experts(flat[order // self.per_token], ends)  # [N·K, D], by expert
        back = sent[order.argsort()].view(-1, self.per_token, x.shape[-1])  # [N, K, D], by token
        out: Tensor = (back * weights.flatten(0, 1)[..., None].to(back.dtype)).sum(1).view_as(x)
        return out if self.shared_experts is None else out + self.shared_experts(x)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The router's scores [B, T, E] float32, the chosen experts [B, T, K] and their weights [B, T, K] float32."""
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            logits = x.to(wide) @ self.gate.weight.to(wide).T
        weights, chosen = logits.softmax(-1).topk(self.per_token, dim=-1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return logits, chosen, weights * self.scale
