"""Where a token stands: angles that queries and keys turn by, a vector added to its embedding, or a penalty on
distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from groundup.model.layers import written_out
from groundup.recipe.model import RopeScaling

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, each [B, 1, T, width]."""


def rotary_table(
    positions: Tensor, width: int, theta: float, scaling: RopeScaling | None = None, *, gained: bool = True
) -> Rotary:
    """Cosines and sines of the rotary embedding (Su et al. 2021, arXiv 2104.09864, eq. 34), half-split form.

    Args:
        positions: [B, T] integer positions.
        width: channels that turn, even.
        theta: base of the geometric series of frequencies.
        scaling: how the frequencies are stretched.
        gained: whether what turns is also multiplied by :func:`attention_gain`.

    Returns:
        cos and sin, each [B, 1, T, width] float32 (one entry for each of the pair (i, i + width / 2)).
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    frequencies, gain = stretched(1.0 / theta**exponents, theta, scaling)
    angles = positions.float()[..., None] * frequencies  # [B, T, width / 2]
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    gain = gain if gained else 1.0
    return written_out(angles.cos() * gain), written_out(angles.sin() * gain)


def stretched(frequencies: Tensor, theta: float, scaling: RopeScaling | None) -> tuple[Tensor, float]:
    """Rotary frequencies [width / 2] after scaling, and what cosines and sines are multiplied by.

    linear: f / s. llama3: with wavelength w = 2π / f, f / s where w > C / low, f where w < C / high, between the two
    a mix that is linear in C / w. yarn: a mix that is linear in the pair's number, between the pairs that turn
    ``beta_fast`` and ``beta_slow`` times over the original context C (Peng et al. 2023, section 3.2).
    """
    if scaling is None:
        return frequencies, 1.0
    slowed = frequencies / scaling.factor
    if scaling.kind == "linear":
        return slowed, 1.0
    original = scaling.original_context
    assert original is not None  # the recipe demands it of these kinds
    if scaling.kind == "llama3":
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        share = ((original * frequencies / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        return (1 - share) * slowed + share * frequencies, 1.0
    width = 2 * len(frequencies)

    def pair(turns: float) -> float:
        """The number of the pair that turns so often over the original context."""
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair(scaling.beta_fast)), 0)
    last = min(math.ceil(pair(scaling.beta_slow)), width - 1)
    number = torch.arange(width // 2, dtype=torch.float32, device=frequencies.device)
    share = ((number - first) / max(last - first, 0.001)).clamp(0, 1)
    return share * slowed + (1 - share) * frequencies, attention_gain(scaling)


def attention_gain(scaling: RopeScaling | None) -> float:
    """What YaRN multiplies queries and keys by, and so the root of what it multiplies scores by: 0.1 ln s + 1 (Peng et
    al. 2023, section 3.4), or the number given. Of other kinds it is 1."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    return 0.1 * math.log(scaling.factor) + 1 if scaling.attention_factor is None else scaling.attention_factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + d/2}) of [B, H, T, d] by its position's angle; the dtype of ``x`` is kept."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = (half.to(x.dtype)[..., : left.shape[-1]] for half in (cos, sin))
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


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


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head's penalty on distance (Press et al. 2021, arXiv 2108.12409, section 3).

    For a power of two the geometric series 2^(-8/heads), 2^(-16/heads), …; else that of the next lower power, then
    every second of the series of twice as many heads.
    """
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / lower) for head in range(lower)]
    return slopes + [2 ** (-4 * (2 * head + 1) / lower) for head in range(heads - lower)]
