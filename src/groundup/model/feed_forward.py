"""The feed-forward layer: what each token does by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.architecture import Architecture
from groundup.model.layers import Linear
from groundup.recipe.model import GATED


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)."""
    return F.gelu(x, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021, "Primer", arXiv 2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "squared_relu": squared_relu,
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": gelu_tanh,
}
"""Of the gated ones, what the gate goes through."""


class FeedForward(nn.Module):
    """down(act(up(x))), or gated: down(act(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202, eq. 6)."""

    def __init__(self, arch: Architecture, inner: int) -> None:
        super().__init__()
        bias = arch.biases == "all"
        self.activation = ACTIVATIONS[arch.feed_forward]
        self.gate_proj = Linear(arch.hidden_size, inner, bias=bias) if arch.feed_forward in GATED else None
        self.up_proj = Linear(arch.hidden_size, inner, bias=bias)
        self.down_proj = Linear(inner, arch.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        if self.gate_proj is None:
            inner = self.activation(self.up_proj(x))
        else:
            inner = self.activation(self.gate_proj(x)) * self.up_proj(x)
        out: Tensor = self.down_proj(inner)
        return out
