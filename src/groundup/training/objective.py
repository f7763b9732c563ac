"""What the loop minimises: a batch to a summed loss and the count it is divided by."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from groundup.model import Transformer, cross_entropy_sum, document_mask

Tensors = dict[str, Tensor]
INDICES = ("ids", "targets", "positions", "slots")


class Rows(Protocol):
    """A batch of packed rows: a dataclass of arrays [rows, …] that can be cut into micro-batches."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __len__(self) -> int: ...

    @property
    def length(self) -> int:
        """Places in a row."""
        ...

    @property
    def tokens(self) -> int:
        """Inputs that are no padding."""
        ...

    def slice(self, start: int, end: int) -> Self:
        """Rows ``start`` to ``end`` (excluded)."""
        ...


class Source(Protocol):
    """Where updates come from; update ``step`` is a pure function of its number."""

    def update(self, step: int) -> Rows: ...


class Objective(Protocol):
    """A training objective. Both methods see whole rows, so any cut between rows gives the same sum."""

    def count(self, rows: Any) -> int:
        """How many terms the loss of these rows sums over: its share of the update's denominator."""
        ...

    def loss(self, model: Transformer, batch: Tensors) -> tuple[Tensor, Tensors]:
        """The loss summed over the rows, and other sums to report, each a scalar tensor. Compiled as a whole."""
        ...


def to_tensors(rows: Rows, device: str) -> Tensors:
    """The arrays of a batch as tensors on the device, by field name; what indexes there becomes int64."""
    tensors = {f.name: torch.from_numpy(np.ascontiguousarray(getattr(rows, f.name))).to(device) for f in fields(rows)}
    return {name: tensor.long() if name in INDICES else tensor for name, tensor in tensors.items()}


class NextToken:
    """Cross-entropy of the next token, over every target that is not ignored: pretraining, and SFT by its mask."""

    def count(self, rows: Any) -> int:
        return int(rows.supervised)

    def loss(self, model: Transformer, batch: Tensors) -> tuple[Tensor, Tensors]:
        hidden = model(batch["ids"], positions=batch["positions"], mask=document_mask(batch["documents"]))
        return cross_entropy_sum(hidden, model.head_weight, batch["targets"]), {}
