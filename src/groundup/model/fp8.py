"""Products of 8-bit floats: the linear layers of training on GPUs that multiply them twice as fast as bfloat16.

Each tensor has one scale, taken from its largest number at that moment. What goes forward is e4m3, with more digits;
gradients are e5m2, with more range (Micikevicius et al. 2022, "FP8 Formats for Deep Learning", arXiv 2209.05433,
sections 3 and 4). Weights, what is added up and what is kept of it stay wider.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""All three sizes of a product must be multiples of this."""


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x`` in an 8-bit type, and the float32 scalar that it must be multiplied by: its largest number becomes the
    type's largest. Of zeros alone the scale is 1; a number that is not finite makes it so too."""
    largest = x.abs().amax().float()
    scale = torch.where(largest == 0, 1.0, largest / torch.finfo(dtype).max)
    return (x.float() / scale).to(dtype), scale


def _columns(x: Tensor) -> Tensor:
    """The same matrix, its columns in one piece: what the kernels take on the right."""
    return x.t().contiguous().t()


def _product(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], dtype: torch.dtype, fast: bool = False) -> Tensor:
    """[M, K] times [K, N], each with its scale, in ``dtype``. ``fast`` adds up with fewer digits, where a GPU can."""
    product: Tensor = torch._scaled_mm(
        a[0].contiguous(), _columns(b[0]), scale_a=a[1], scale_b=b[1], out_dtype=dtype, use_fast_accum=fast
    )
    return product


class Product(torch.autograd.Function):
    """x Wᵀ in 8 bits, and both gradients of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """x [N, D] and weight [F, D] to [N, F] in bfloat16. The 8-bit numbers are kept, not the wider ones."""
        ctx.dtypes = x.dtype, weight.dtype
        left, right = quantise(x, FORWARD), quantise(weight, FORWARD)
        ctx.save_for_backward(*left, *right)
        return _product(left, (right[0].t(), right[1]), torch.bfloat16, fast=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """dx = g W and dW = gᵀ x, [N, D] and [F, D] in the dtypes of x and weight."""
        x, x_scale, weight, weight_scale = ctx.saved_tensors
        g, scale = quantise(grad, BACKWARD)
        dx = _product((g, scale), (weight, weight_scale), torch.bfloat16)
        dw = _product((g.t(), scale), (x, x_scale), torch.float32)
        return dx.to(ctx.dtypes[0]), dw.to(ctx.dtypes[1])


def linear_fp8(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` in 8 bits, its result in bfloat16; in autocast's dtype where a size doesn't suit the kernels.

    Args:
        x: [..., D]; weight: [F, D]; bias: [F] or None.
    """
    rows = x.numel() // x.shape[-1]
    if rows % MULTIPLE or weight.shape[0] % MULTIPLE or weight.shape[1] % MULTIPLE:
        return F.linear(x, weight, bias)
    apply: Callable[..., Tensor] = Product.apply
    with torch.autocast(x.device.type, enabled=False):
        out = apply(x.reshape(rows, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias.to(out.dtype)
