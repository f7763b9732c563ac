"""Matrices and tables as PyTorch has them, without the first values that nobody uses; and a word to the compiler."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """``nn.Linear`` that draws nothing where it has no memory yet: on the meta device that would only cost a second
    to import what it takes."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Embedding(nn.Embedding):
    """``nn.Embedding``, the same."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


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
