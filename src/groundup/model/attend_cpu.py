"""Attention for bfloat16 training on a CPU: PyTorch's fused forward pass, and a backward pass of its own.

The fused kernel's own backward takes six times its forward and more on such a machine. Five matrix products around one
elementwise pass, which the compiler fuses, take half of that (docs/performance.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from groundup.model.layers import product_dtype
from groundup.model.masks import Sight


def pays(q: Tensor, k: Tensor) -> bool:
    """Whether :func:`attend_cpu` is the faster way to train: in bfloat16, where products are so much faster than the
    kernel's own, up to lengths whose scores, which the backward pass makes whole, stay near the caches."""
    longest = LONGEST if torch.compiler.is_compiling() else LONGEST_EAGER
    return (
        torch.is_grad_enabled()
        and q.device.type == "cpu"
        and product_dtype(q) == torch.bfloat16
        and q.shape[2] == k.shape[2] <= longest
    )


LONGEST, LONGEST_EAGER = 1024, 128
"""Tokens in a row, compiled, and uncompiled, where the elementwise pass is many."""


class FlashForward(torch.autograd.Function):
    """softmax(scale · QKᵀ + mask) V, whose backward pass makes the weights again from the saved normaliser
    (Dao et al. 2022, "FlashAttention", arXiv 2205.14135, section 3.1 and appendix B.2)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, added: Tensor, scale: float) -> Tensor:
        """q [B, H, T, d], k and v [B, G, T, d] with G dividing H, mask bool [B, 1, T, T] and the same as what is added
        to the scores; returns [B, H, T, d]."""
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, normaliser = kernel(q, k, v, 0.0, False, attn_mask=added, scale=scale)
        ctx.save_for_backward(q, k, v, mask, out, normaliser)
        ctx.scale = scale
        result: Tensor = out
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v. With P the weights, S the scores, O the output:

        dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P ∘ (dP - rowsum(dO ∘ O)),  dQ = scale · dS K,  dK = scale · dSᵀ Q.
        """
        q, k, v, mask, out, normaliser = ctx.saved_tensors
        (batch, heads, length, width), groups = q.shape, k.shape[1]
        wide = torch.promote_types(q.dtype, torch.float32)
        drift = (grad.to(wide) * out.to(wide)).sum(-1, keepdim=True)

        def by_group(x: Tensor) -> Tensor:  # heads that share keys stand below each other, as one matrix
            return x.contiguous().view(batch, groups, heads // groups * length, x.shape[-1])

        k, v = k.contiguous(), v.contiguous()
        q, grad = by_group(q), by_group(grad)
        every = (batch, heads, length, length)
        scores, slopes = (q @ k.mT).view(every), (grad @ v.mT).view(every)
        weights = torch.where(mask, torch.exp(scores.to(wide) * ctx.scale - normaliser[..., None]), 0.0)
        # Masked again, where it changes nothing, so that the compiler sees one loop and not two.
        moved = torch.where(mask, weights * (slopes.to(wide) - drift) * ctx.scale, 0.0)
        moved, weights = by_group(moved.to(q.dtype)), by_group(weights.to(q.dtype))
        return (moved @ k).view(batch, heads, length, width), moved.mT @ q, weights.mT @ grad, None, None, None


def attend_cpu(q: Tensor, k: Tensor, v: Tensor, sight: Sight, scale: float | None) -> Tensor:
    """The sum of :func:`~groundup.model.attend.attend` with a mask and without slopes, sinks, caps or dropout."""
    assert sight.mask is not None
    q, k, v = (x.to(torch.bfloat16) for x in (q, k, v))
    added = torch.zeros(sight.mask.shape, dtype=q.dtype).masked_fill(~sight.mask, float("-inf"))
    apply: Callable[..., Tensor] = FlashForward.apply
    return apply(q, k, v, sight.mask, added, 1 / math.sqrt(q.shape[-1]) if scale is None else scale)
