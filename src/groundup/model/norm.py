"""Normalisation: by the root mean square, or by mean and variance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.architecture import Architecture


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4).

    The statistics are taken in float32 (or what is wider) whatever the dtype of ``x``, and the result has the dtype of
    ``x`` or that of the weights where it is wider, as in the Qwen3 layout.

    Args:
        width: channels.
        eps: added to the mean square.
        gains: whether there are weights at all.
        offset: the gain is 1 + weight, multiplied before the dtype of ``x`` is restored, as Gemma does.
    """

    def __init__(self, width: int, eps: float, *, gains: bool = True, offset: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if offset else torch.ones(width)) if gains else None
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.weight is None:
            return wide.to(x.dtype)
        if self.offset:
            return (wide * (1.0 + self.weight.to(wide.dtype))).to(x.dtype)
        return self.weight * wide.to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) · weight + bias (Ba et al. 2016, arXiv 1607.06450, eq. 4).

    The bias is there where the architecture's other biases are; OLMo's first norm had none.
    """

    def __init__(self, width: int, eps: float, *, gains: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if gains else None
        self.bias = nn.Parameter(torch.zeros(width)) if gains and bias else None
        self.width, self.eps = width, eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)


def make_norm(arch: Architecture, width: int) -> nn.Module:
    """The architecture's norm over so many channels."""
    if arch.norm == "layer":
        return LayerNorm(width, arch.norm_eps, gains=arch.norm_gains, bias=arch.biases == "all")
    return RMSNorm(width, arch.norm_eps, gains=arch.norm_gains, offset=arch.norm_offset)
