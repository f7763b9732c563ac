"""Experts' matrices: our stacks, a tensor for each expert on disk, and the joined tensors of newer programs."""

from __future__ import annotations

import re

from groundup.interchange.layouts.pieces import Made, Piece, Shape
from groundup.model import Architecture

_STACK = re.compile(r"(model\.layers\.\d+\.mlp\.)experts\.(gate_proj|up_proj|down_proj)")


def expert_names(name: str) -> tuple[str, str] | None:
    """What stands before `experts` in the name of one of our stacks, and which matrix it is; None for other tensors."""
    match = _STACK.fullmatch(name)
    return None if match is None else (match[1], match[2])


def each_expert(name: str, shape: Shape, one: str) -> list[Made]:
    """A tensor for each expert, made of our stack [E, …]; ``one`` is a name with a place for the expert's number."""
    return [Made(one.format(e), shape[1:], (Piece(name, shape, (e,)),)) for e in range(shape[0])]


def stacked(name: str, shape: Shape, one: str) -> Made:
    """Our stack, made of a tensor for each expert."""
    return Made(name, shape, tuple(Piece(one.format(e), shape[1:]) for e in range(shape[0])), "stack")


def fused(name: str, shape: Shape, block: str) -> Made:
    """Our stack, made of the tensors that version 5 of `transformers` holds in memory: `down_proj` like ours, and
    `gate_up_proj` [E, 2F, D], of which the gate is the first half."""
    part = name.rpartition(".")[2]
    if part == "down_proj":
        return Made(name, shape, tuple(Piece(block + part, shape, (e,)) for e in range(shape[0])), "stack")
    count, inner, width = shape
    span = slice(0, inner) if part == "gate_proj" else slice(inner, 2 * inner)
    both = (count, 2 * inner, width)
    return Made(name, shape, tuple(Piece(f"{block}gate_up_proj", both, (e, span)) for e in range(count)), "stack")


def expert_reasons(arch: Architecture, *, dense: bool = True, free: bool = True) -> list[str]:
    """What of a table of experts layouts without shared experts cannot express.

    Args:
        dense: whether the first layers may be without.
        free: whether the weights of the chosen experts may be left as they are.
    """
    table = arch.experts
    if table is None:
        return []
    checks = (
        (table.shared == 0, f"experts.shared = {table.shared}"),
        (table.scale == 1, f"experts.scale = {table.scale:g}"),
        (dense or table.dense_layers == 0, f"experts.dense_layers = {table.dense_layers}"),
        (free or table.renormalise, "experts.renormalise = false"),
    )
    return [message for good, message in checks if not good]
