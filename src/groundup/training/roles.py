"""What a weight is for, by its name and shape: what norms are reported by, and what learning rates go by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from torch import Tensor, nn

Role = Literal[
    "embeddings", "head", "attention", "feed_forward", "experts", "projections", "routers", "others", "gains"
]
"""
embeddings     tables that ids or positions are looked up in; a head tied to one is the same weight
head           the output matrix, where it is a weight of its own
attention      matrices of attention, of the source too
feed_forward   matrices of feed-forward layers, shared experts among them
experts        stacks of experts' matrices
projections    other matrices of layers: where a block that predicts ahead joins its two inputs
routers        the few rows that give a number each to an expert or a head
others         matrices outside the layers that are none of these
gains          gains, biases and scalars
"""
ROLES: tuple[Role, ...] = get_args(Role)
HIDDEN: frozenset[Role] = frozenset({"attention", "feed_forward", "experts", "projections"})
"""Matrices between two hidden states: Muon's. Routers and gates give a number each for a few experts or heads, and
rotating those outputs into one another means nothing."""
TABLES: frozenset[Role] = frozenset({"embeddings", "head"})
"""Matrices with a row for each id or position."""

ROUTERS = (".mlp.gate.weight", ".value_gate.weight")
ATTENTION = (".self_attn.", ".cross_attn.")


def role_of(name: str, weight: Tensor) -> Role:
    """The role of a weight. ``name`` is that of ``named_parameters``, of a decoder or an encoder-decoder."""
    if weight.ndim < 2:
        return "gains"
    if name.startswith("lm_head"):
        return "head"
    if ".layers." not in name:
        return "embeddings" if "embed" in name else "others"
    if name.endswith(ROUTERS):
        return "routers"
    if any(part in name for part in ATTENTION):
        return "attention"
    if ".mlp." in name:
        return "experts" if ".mlp.experts." in name else "feed_forward"
    return "projections"


def by_role(named: Iterable[tuple[str, nn.Parameter]]) -> dict[Role, list[nn.Parameter]]:
    """The weights of each role that there is, in the order of ``ROLES``."""
    found: dict[Role, list[nn.Parameter]] = {role: [] for role in ROLES}
    for name, weight in named:
        found[role_of(name, weight)].append(weight)
    return {role: weights for role, weights in found.items() if weights}
