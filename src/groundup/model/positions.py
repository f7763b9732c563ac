"""Where a token stands: rotary angles, or a vector added to its embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotary_table(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding (Su et al. 2021, arXiv 2104.09864, eq. 34), half-split form.

    Args:
        positions: [B, T] integer positions.
        head_dim: size of a head, even.
        theta: base of the geometric series of frequencies.

    Returns:
        cos and sin, each [B, 1, T, head_dim] float32 (one entry for each of the pair (i, i + head_dim / 2)).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.float()[..., None] * (1.0 / theta**exponents)  # [B, T, head_dim / 2]
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + d/2}) of [B, H, T, d] by its position's angle; the dtype of ``x`` is kept."""
    left, right = x.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def sinusoidal_table(length: int, width: int) -> Tensor:
    """The fixed table of Attention Is All You Need (Vaswani et al. 2017, section 3.5), [length, width] float32.

    PE(pos, 2i) = sin(pos / 10000^(2i / width)) and PE(pos, 2i + 1) = cos(the same angle).
    """
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate[: width // 2])
    return table
