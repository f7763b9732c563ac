"""What the loop minimises: a batch to a summed loss and the count it is divided by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from groundup.model import (
    IGNORE,
    PackedMask,
    Routing,
    Transformer,
    balance_loss,
    cross_entropy_sum,
    flops_per_token,
    router_z_loss,
    targets_ahead,
)

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
    """A training objective, for models of a kind. Count and loss see whole rows, so any cut between rows gives the same
    sum."""

    def count(self, rows: Any) -> int:
        """How many terms the loss of these rows sums over: its share of the update's denominator."""
        ...

    def loss(self, model: Any, batch: Tensors) -> tuple[Tensor, Tensors]:
        """The loss summed over the rows, and other sums to report, each a scalar tensor. Compiled as a whole."""
        ...

    def flops(self, model: Any, rows: Any) -> float:
        """Training FLOPs of these rows, padding not counted."""
        ...


def to_tensors(rows: Rows, device: str) -> Tensors:
    """The arrays of a batch as tensors on the device, by field name; what indexes there becomes int64."""
    tensors = {f.name: torch.from_numpy(np.ascontiguousarray(getattr(rows, f.name))).to(device) for f in fields(rows)}
    return {name: tensor.long() if name in INDICES else tensor for name, tensor in tensors.items()}


def micro_batches(rows: Rows, count: int, device: str) -> Iterator[Tensors]:
    """The rows as tensors on the device, ``count`` at a time. A GPU is sent the next ones, from page-locked memory by a
    stream of their own, while it works on those before."""
    parts = (rows.slice(start, start + count) for start in range(0, len(rows), count))
    if device != "cuda":
        yield from (to_tensors(part, device) for part in parts)
        return
    cuda: Any = torch.cuda  # whose streams have no types
    working, sending = cuda.current_stream(), cuda.Stream()
    sent: deque[tuple[Tensors, Any]] = deque()
    for part in chain(parts, (None,)):
        if part is not None:
            with cuda.stream(sending):
                locked = {name: tensor.pin_memory() for name, tensor in to_tensors(part, "cpu").items()}
                batch = {name: tensor.to(device, non_blocking=True) for name, tensor in locked.items()}
                sent.append((batch, sending.record_event()))
        if part is None or len(sent) > 1:
            batch, arrived = sent.popleft()
            working.wait_event(arrived)
            for tensor in batch.values():
                tensor.record_stream(working)
            yield batch


def decoder_flops(model: Transformer, rows: Rows) -> float:
    """Training FLOPs of rows that a decoder reads once."""
    return rows.tokens * flops_per_token(model.arch, rows.length)


class NextToken:
    """Cross-entropy of the next token, over every target that is not ignored: pretraining, and SFT by its mask.

    A model that predicts further ahead, or has experts, adds those losses by the weights of its architecture; they are
    reported beside ``cross_entropy``, the one that all models share.
    """

    def count(self, rows: Any) -> int:
        return int(rows.supervised)

    def flops(self, model: Transformer, rows: Rows) -> float:
        return decoder_flops(model, rows)

    def loss(self, model: Transformer, batch: Tensors) -> tuple[Tensor, Tensors]:
        mask = PackedMask(batch["documents"])
        routings: list[Routing] = []
        hidden = model(batch["ids"], positions=batch["positions"], mask=mask, routings=routings)
        plain = total = cross_entropy_sum(hidden, model.head, batch["targets"])
        reported: Tensors = {}
        for name, weight, value in (
            *router_losses(model, routings, batch),
            *ahead_losses(model, hidden, batch, mask),
        ):
            total = total + weight * value
            reported[name] = value
        return total, {"cross_entropy": plain, **reported} if reported else {}


def router_losses(model: Transformer, routings: list[Routing], batch: Tensors) -> Iterator[tuple[str, float, Tensor]]:
    """(name, weight, sum) of what keeps experts evenly used and routers' scores small, averaged over the layers.

    A row's loss counts as often as it has targets, so that divided by the update's targets it is a mean over rows.
    """
    table = model.arch.experts
    if table is None:
        return
    terms, real = (batch["targets"] != IGNORE).sum(1), batch["documents"] > 0
    balance = torch.stack([balance_loss(routing.logits, routing.chosen, real) for routing in routings])
    squares = torch.stack([router_z_loss(routing.logits, real) for routing in routings])
    yield "balance", table.balance_weight, (balance.mean(0) * terms).sum()
    yield "router_z", table.z_weight, (squares.mean(0) * terms).sum()


def ahead_losses(
    model: Transformer, hidden: Tensor, batch: Tensors, mask: PackedMask
) -> Iterator[tuple[str, float, Tensor]]:
    """(name, weight, sum) of the cross-entropy of further tokens, averaged over how far ahead they are."""
    if not model.arch.predict_ahead:
        return
    states = model.look_ahead(hidden, batch["ids"], positions=batch["positions"], mask=mask)
    sums = [
        cross_entropy_sum(state, model.head, targets_ahead(batch["targets"], batch["documents"], number))
        for number, state in enumerate(states, start=1)
    ]
    yield "ahead", model.arch.predict_ahead_weight, torch.stack(sums).mean()
