"""Matrices and tables as PyTorch has them, without the first values that nobody uses; and words to and from the
compiler and autocast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.fp8 import linear_fp8


class Linear(nn.Linear):
    """``nn.Linear`` that draws nothing where it has no memory yet: on the meta device that would only cost a second
    to import what it takes. In training it multiplies in 8 bits where :func:`train_in_fp8` has said so."""

    fp8 = False

    def forward(self, input: Tensor) -> Tensor:
        if self.fp8 and self.training:
            return linear_fp8(input, self.weight, self.bias)
        return super().forward(input)

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


def train_in_fp8(model: nn.Module) -> None:
    """Have the projections of all blocks multiply in 8 bits in training. The head, whose logits need the digits, and
    routers and gates, which are small, stay as they are; so do experts."""
    for name, module in model.named_modules():
        if isinstance(module, Linear) and ".layers." in name and name.endswith("_proj"):
            module.fp8 = True


class Embedding(nn.Embedding):
    """``nn.Embedding``, the same."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


def product_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product with ``x`` is computed in: autocast's dtype, where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def written_out(x: Tensor) -> Tensor:
    """``x`` itself. The compiler writes it to memory once, where it would otherwise compute it anew for each reader: a
    cosine for each head of each layer. No gradient goes through it."""
    kept: Tensor = _kept(x) if torch.compiler.is_compiling() else x
    return kept


@torch.library.custom_op("groundup::kept", mutates_args=())
def _kept(x: Tensor) -> Tensor:
    return x.clone()


@_kept.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)
