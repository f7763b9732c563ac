"""How a tensor of one layout is put together from those of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from groundup.interchange.tensor_files import Index

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Read = Callable[[str, Index], Tensor]


class Piece(NamedTuple):
    """A tensor, or a part of it."""

    name: str
    shape: Shape
    """of the whole tensor of that name"""
    part: Index = ()
    turned: bool = False
    """two dimensions are exchanged, after the part was taken"""


class Made(NamedTuple):
    """A tensor and its pieces: one as it is, several stacked, or joined along their rows or columns."""

    name: str
    shape: Shape
    pieces: tuple[Piece, ...]
    join: Literal["stack", "rows", "columns"] = "rows"

    def chunks(self, read: Read) -> Iterator[Tensor]:
        """The tensor in chunks along its first dimension, one for each piece where that is possible."""
        pieces = (_turned(piece, read(piece.name, piece.part)) for piece in self.pieces)
        if self.join == "columns":
            yield torch.cat(list(pieces), dim=1)
        else:
            yield from pieces


def same(name: str, shape: Shape, other: str | None = None, *, turned: bool = False) -> Made:
    """A tensor that the other layout has too, under this or another name, as it is or with rows for columns."""
    return Made(name, shape, (Piece(other or name, shape[::-1] if turned else shape, (), turned),))


def _turned(piece: Piece, part: Tensor) -> Tensor:
    return part.T if piece.turned else part
