"""Matrices and tables as PyTorch has them, without the first values that nobody uses."""

from __future__ import annotations

from torch import nn


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
