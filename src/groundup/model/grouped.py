"""One matrix product for each group of rows, as one operation that autograd and the compiler understand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model.layers import product_dtype

FEWEST = 16
"""Rows of a product on a CPU, the last ones zeros where a group has fewer. MKL adds up short products in another order
than long ones; so a token's numbers don't depend on how many others, later ones too, chose the same group."""


def grouped_product(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Rows of group g times the transpose of weights[g]; under autocast in its dtype, as ``F.linear``.

    On a GPU PyTorch's kernel of one launch where it has one (bfloat16, widths that are multiples of 8), else a product
    a group.

    Args:
        x: [N, D], sorted by group.
        weights: [G, F, D].
        ends: [G] int32, where each group's rows end.

    Returns:
        [N, F].
    """
    dtype = product_dtype(x)
    x, weights = x.to(dtype), weights.to(dtype)
    if x.is_cuda and x.dtype == torch.bfloat16 and x.shape[1] % 8 == 0 and weights.shape[1] % 8 == 0:
        fused: Tensor = F.grouped_mm(x, weights.transpose(1, 2), offs=ends)
        return fused
    product: Tensor = _product(x, weights, ends)
    return product


def _spans(ends: Tensor) -> list[tuple[int, int]]:
    return list(pairwise([0, *ends.tolist()]))


@torch.library.custom_op("groundup::grouped_product", mutates_args=())
def _product(x: Tensor, weights: Tensor, ends: Tensor, flipped: bool = False) -> Tensor:
    """Rows of each group times the transpose of its matrix, or with ``flipped`` times the matrix itself."""
    out = x.new_empty(len(x), weights.shape[2 if flipped else 1])
    for group, (begin, end) in enumerate(_spans(ends)):
        matrix = weights[group] if flipped else weights[group].T
        if (missing := FEWEST - (end - begin)) > 0:
            out[begin:end] = torch.mm(F.pad(x[begin:end], (0, 0, 0, missing)), matrix)[: end - begin]
        else:
            torch.mm(x[begin:end], matrix, out=out[begin:end])
    return out


@_product.register_fake
def _(x: Tensor, weights: Tensor, ends: Tensor, flipped: bool = False) -> Tensor:
    return x.new_empty(len(x), weights.shape[2 if flipped else 1])


@torch.library.custom_op("groundup::grouped_outer", mutates_args=())
def _outer(y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    """For each group yᵀ x of its rows: y [N, F], x [N, D] to [G, F, D]."""
    out = x.new_empty(len(ends), y.shape[1], x.shape[1])
    for group, (begin, end) in enumerate(_spans(ends)):
        torch.mm(y[begin:end].T, x[begin:end], out=out[group])
    return out


@_outer.register_fake
def _(y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(len(ends), y.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    """Of a product that is not flipped; a flipped one stands in a backward pass alone."""
    x, weights, ends = ctx.saved_tensors
    return _product(grad, weights, ends, True), _outer(grad, x, ends), None, None


_product.register_autograd(_backward, setup_context=_keep)
