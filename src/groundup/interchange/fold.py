"""Options that a stock layout lacks, worked into weights that it has. Each fold is exact up to rounding, and
`residual_scalars` up to the epsilon of norms besides.

What is folded follows from two architectures: the model's, and the nearest that a layout expresses. With s the scale
that embeddings are multiplied by (sqrt(D) or 1), before and after:

* no gains: gains of 1. A gain of 1 + weight: the weight itself, or the other way.
* no biases: biases of 0. Sinusoidal positions: a table of learned ones.
* `attention_scale` a: the gains of queries, or without those the matrix that makes them, times a · sqrt(head width),
  since layouts divide scores by that root.
* `embedding_norm`: the table's rows are normalised, where the head has a table of its own.
* `embedding_scale`: the table times s / s'. Where the head is the same table, the final norm's gains times s' / s.
* `residual_scalars` λ: block i takes up λ_i · x. With P_i = λ_1 … λ_i, the stream y_i = x_i · c / P_i needs no scalars,
  if what block i adds is multiplied by c / P_i, since the norm before each layer doesn't see a factor of its input. c =
  λ_1, by which the embedding is multiplied, so that the first block, where the stream is small and a norm's epsilon
  is felt, computes what it did.
* `experts.scale`: the experts' last matrices times it.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from groundup.interchange.layouts.layout import Layout
from groundup.interchange.tensor_files import Index, TensorFiles
from groundup.model import Architecture
from groundup.model.count import model_parts
from groundup.model.positions import sinusoidal_table
from groundup.run import UserError

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_BIASES = ("none", "qkv", "all")
_EMBEDDING = "model.embed_tokens.weight"


def nearest(arch: Architecture, layout: Layout) -> Architecture:
    """The architecture that folding makes of one for a layout; reasons against that stay reasons."""
    target = arch.replace(predict_ahead=0, attention_start="zero")
    if not any(arch.has_window(layer) for layer in range(arch.layers)):
        target = target.replace(window=None, window_pattern="S", local_rope_theta=None)
    if arch.experts is not None:
        target = target.replace(experts={**arch.experts.model_dump(), "scale": 1.0})
    summed = arch.positions in ("learned", "sinusoidal") or arch.bigram_rows > 0
    tied, placement = arch.tied_embeddings, arch.norm_placement
    folds: list[tuple[str, object, bool]] = [
        ("norm_gains", True, True),
        ("norm_offset", not arch.norm_offset, True),
        ("positions", "learned", arch.positions == "sinusoidal"),
        ("attention_scale", None, arch.latent is None),
        ("embedding_norm", False, not tied and not summed),
        ("embedding_scale", not arch.embedding_scale, not tied or placement != "post"),
        ("residual_scalars", False, placement in ("pre", "sandwich") and not arch.x0_skip),
        *(("biases", more, True) for more in _BIASES[_BIASES.index(arch.biases) + 1 :]),
    ]
    for field, value, exact in folds:
        if exact and not layout.accepts(field, getattr(target, field)) and layout.accepts(field, value):
            with contextlib.suppress(ValueError):  # what doesn't go together stays a reason against the layout
                target = target.replace(**{field: value})
    return target


def fields_folded(arch: Architecture, target: Architecture) -> list[str]:
    """The options that differ, in words."""
    silent = {"predict_ahead", "attention_start", "window", "window_pattern", "local_rope_theta"}
    fields = [field for field in type(arch).model_fields if field not in silent]
    differing = [field for field in fields if getattr(arch, field) != getattr(target, field)]
    return ["experts.scale" if field == "experts" else field for field in differing]  # nothing else of the table folds


@dataclass(frozen=True)
class _Change:
    """What becomes of one tensor w: ((fill, or w + before) or its rows normalised) · factor - after."""

    fill: float | None = None
    before: float = 0.0
    factor: float = 1.0
    after: float = 0.0
    normalised: bool = False
    table: bool = False

    @property
    def nothing(self) -> bool:
        return self == _Change() or (self.fill is None and self == _Change(before=self.before, after=self.before))


class Folded:
    """The tensors of a model as those of another architecture, made while they are read.

    Args:
        files: the model's own.
        arch: its architecture.
        target: what :func:`nearest` gives.

    Raises UserError for a residual scalar that is not above 0.
    """

    def __init__(self, files: TensorFiles, arch: Architecture, target: Architecture) -> None:
        self.files, self.arch, self.target = files, arch, target
        self.shapes = {part.name: part.shape for part in model_parts(target)}
        self.had = {part.name for part in model_parts(arch)}
        folds = arch.residual_scalars and not target.residual_scalars
        self.products = _products(files, arch.layers) if folds else None

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor's file; of the embedding where the tensor is filled in."""
        return self.files.dtype(name if name in self.had else _EMBEDDING)

    def read(self, name: str, index: Index = (), dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of the target or a part of it, in ``dtype`` or that of its file; changes are made in float64."""
        dtype = dtype or self.dtype(name)
        change = self._change(name)
        if change.nothing:
            return _cast(self.files.read(name, index), dtype, name)
        if change.table:
            values = sinusoidal_table(self.arch.context_length, self.arch.hidden_size).double()[index]
        elif change.fill is not None:
            values = torch.full(self.shapes[name], change.fill, dtype=torch.float64)[index]
        else:
            values = self.files.read(name, index).double() + change.before
        if change.normalised:
            scale = math.sqrt(self.arch.hidden_size) if self.arch.embedding_scale else 1.0
            values = values * scale
            values = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + self.arch.norm_eps)
        return _cast(values * change.factor - change.after, dtype, name)

    def _change(self, name: str) -> _Change:
        part = name.removesuffix(".weight").removesuffix(".bias")
        match = _LAYER.fullmatch(part)
        factor = self._inner(match[2], int(match[1])) if match else self._outer(part)
        new = name not in self.had
        if part == "model.embed_tokens":
            return _Change(factor=factor, normalised=self.arch.embedding_norm and not self.target.embedding_norm)
        if part == "model.embed_positions":
            return _Change(factor=factor, table=new)
        if name.endswith(".weight") and "norm" in part.rpartition(".")[2]:
            before, after = float(self.arch.norm_offset), float(self.target.norm_offset)
            return _Change(1.0 if new else None, before, factor, after)
        return _Change(fill=0.0 if new else None, factor=factor)

    def _outer(self, part: str) -> float:
        """What a tensor outside of the layers is multiplied by."""
        first = 1.0 if self.products is None else self.products[0]
        root = math.sqrt(self.arch.hidden_size)
        before, after = (root if each.embedding_scale else 1.0 for each in (self.arch, self.target))
        if part == "model.embed_positions":
            return first
        if part == "model.embed_tokens":
            normalised = self.arch.embedding_norm and not self.target.embedding_norm
            return first / after if normalised else first * before / after
        if part == "model.norm" and self.arch.tied_embeddings:
            return after / (first * before)
        return 1.0

    def _inner(self, part: str, layer: int) -> float:
        """What a tensor of a layer is multiplied by; of a norm its gain and its bias."""
        arch = self.arch
        factor = 1.0
        if self.products is not None and part in _ADDED[arch.norm_placement]:
            factor *= self.products[0] / self.products[layer]
        if part == "mlp.experts.down_proj" and arch.experts and self.target.experts:
            factor *= arch.experts.scale / self.target.experts.scale
        queries = "self_attn.q_proj" if arch.qk_norm == "none" else "self_attn.q_norm"
        if part == queries and arch.attention_scale is not None and self.target.attention_scale is None:
            factor *= arch.attention_scale * math.sqrt(arch.key_dim)
        return factor


_WRITES = {"self_attn.o_proj", "mlp.down_proj", "mlp.experts.down_proj", "mlp.shared_experts.down_proj"}
_ADDED = {"pre": _WRITES, "sandwich": {"post_attention_layernorm", "post_feedforward_layernorm"}}
"""What a block adds to the residual stream is proportional to these."""


def _products(files: TensorFiles, layers: int) -> list[float]:
    """The products of the residual scalars up to each layer."""
    scalars = [float(files.read(f"model.layers.{layer}.residual_scale")) for layer in range(layers)]
    for layer, scalar in enumerate(scalars):
        if not scalar > 0:
            raise UserError(
                f"residual_scalars = true, and that of layer {layer} is {scalar:g}: no stock layout exists for that",
                expected="numbers above 0, which can be worked into the matrices",
            )
    return list(accumulate(scalars, mul))


def _cast(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Raise UserError where a finite number becomes infinite."""
    cast = values.to(dtype)
    if dtype == torch.float16 and values.dtype != dtype and bool((values.isfinite() & ~cast.isfinite()).any()):
        most = values.abs().max().item()
        raise UserError(
            f"{name} has the value {most:g}, and fp16 ends at 65504", expected="bf16 or fp32", mend='dtype = "bf16"'
        )
    return cast
