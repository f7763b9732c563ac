"""Experts' matrices: our stacks, a tensor for each expert on disk, and the joined tensors of newer programs."""

from __future__ import annotations

import re
from collections.abc import Callable

from groundup.interchange.layouts.pieces import Made, Piece, Shape, Shapes, same
from groundup.model import Architecture

NameOne = Callable[[str, str], str]
_STACK = re.compile(r"(model\.layers\.\d+\.mlp\.)experts\.(gate_proj|up_proj|down_proj)")


def theirs_with_experts(shapes: Shapes, one: NameOne, on_disk: Callable[[str], str] = str) -> list[Made]:
    """The tensors on disk: one for each expert's matrix, the others as ours.

    Args:
        one: from what stands before `experts` in the name of our stack, and which matrix it is, to the name of one
            expert's on disk, with a place for its number.
        on_disk: our names of the others to those on disk.
    """
    made: list[Made] = []
    for name, shape in shapes.items():
        stack = _STACK.fullmatch(name)
        made += [same(on_disk(name), shape, name)] if stack is None else each_expert(name, shape, one(*stack.groups()))
    return made


def ours_with_experts(shapes: Shapes, one: NameOne, on_disk: Callable[[str], str] = str) -> list[tuple[Made, ...]]:
    """The ways to make each of our tensors of those on disk, or of those that `transformers` holds in memory."""
    ways: list[tuple[Made, ...]] = []
    for name, shape in shapes.items():
        if stack := _STACK.fullmatch(name):
            ways.append((stacked(name, shape, one(*stack.groups())), fused(name, shape, stack[1] + "experts.")))
        else:
            names = dict.fromkeys((on_disk(name), name))
            ways.append(tuple(same(name, shape, each) for each in names))
    return ways


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
