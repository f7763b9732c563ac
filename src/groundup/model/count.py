"""What a model is made of and what it costs: parameters and FLOPs, read off the model itself.

The model is built on the meta device, where tensors have shapes but no storage, so that 70B parameters are counted on
a laptop, and so that the count is right whatever the architecture's options.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import nn

from groundup.model.architecture import Architecture
from groundup.model.norm import LayerNorm, RMSNorm
from groundup.model.transformer import Transformer


@dataclass(frozen=True)
class Part:
    """One parameter tensor.

    Attributes:
        name: as in the state dict.
        kind: the field of :class:`ParameterCount` it belongs to.
        layer: of the decoder, counted from 0; None outside the layers.
        active: how many of its parameters one token goes through: all but those of experts not chosen.
        multiplies: whether it is a matrix that activations are multiplied by; tables that are looked up, gains and
            biases are none.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    layer: int | None
    active: int
    multiplies: bool

    @property
    def parameters(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part of the model, each once: a tied head has none of its own.

    ``attention`` and ``feed_forward`` hold matrices and biases, ``experts`` the mixtures with their routers and shared
    experts, ``norms`` all norms, those of queries and keys included. ``other`` is what the remaining options add:
    bigram and value tables, learned scalars, blocks that predict ahead. ``idle`` are those of the experts that one
    token does not go through; they are counted in ``experts`` too.
    """

    embedding: int
    positions: int
    attention: int
    feed_forward: int
    experts: int
    norms: int
    head: int
    other: int
    idle: int

    @property
    def total(self) -> int:
        """All parameters."""
        kinds = (self.embedding, self.positions, self.attention, self.feed_forward, self.experts)
        return sum(kinds) + self.norms + self.head + self.other

    @property
    def active(self) -> int:
        """Parameters that one token goes through."""
        return self.total - self.idle


@lru_cache(maxsize=32)
def model_parts(arch: Architecture) -> tuple[Part, ...]:
    """Every parameter tensor of a model, in the order of its state dict."""
    with torch.device("meta"):
        model = Transformer(arch)
    return tuple(
        _part(arch, f"{path}.{name}" if path else name, tuple(weight.shape), module)
        for path, module in model.named_modules()
        for name, weight in module.named_parameters(recurse=False)
    )


@lru_cache(maxsize=256)
def parameter_count(arch: Architecture) -> ParameterCount:
    """Count the parameters of a model without giving it memory."""
    parts = model_parts(arch)
    kinds = [field.name for field in dataclasses.fields(ParameterCount) if field.name != "idle"]
    sums = {kind: sum(part.parameters for part in parts if part.kind == kind) for kind in kinds}
    return ParameterCount(**sums, idle=sum(part.parameters - part.active for part in parts))


def flops_per_token(arch: Architecture, context: int) -> float:
    """Training FLOPs (forward and backward) for one token of a row of ``context`` tokens, causal convention.

    Six for each parameter that multiplies activations, the head included whether tied or not, of experts only those
    the token goes through (Kaplan et al. 2020, arXiv 2001.08361, eq. 2.1-2.2), and :func:`attention_flops` for each
    layer. Blocks that predict ahead apply the head once more each. Tables that are looked up cost nothing.
    """
    scores = sum(attention_flops(arch, layer, context) for layer in range(arch.layers))
    scores += arch.predict_ahead * attention_flops(arch, arch.layers - 1, context)
    return 6.0 * _matrix_parameters(arch) + scores


def palm_flops_per_token(arch: Architecture, context: int) -> float:
    """Training FLOPs for one token of a row of ``context`` tokens, by the convention of PaLM (Chowdhery et al. 2022,
    arXiv 2204.02311, appendix B): 6N + 12 · layers · heads · head_dim · context.

    N is as in :func:`flops_per_token`, parameters that multiply. Every layer's scores count as the full square, whether
    a token sees what comes after it or not, and beyond windows: more than is computed, but what most others report.
    """
    layers = arch.layers + arch.predict_ahead
    return 6.0 * _matrix_parameters(arch) + 6.0 * layers * arch.heads * (arch.key_dim + arch.value_dim) * context


def attention_flops(arch: Architecture, layer: int, context: int) -> float:
    """Training FLOPs of one layer's attention scores and of their product with the values, for one token.

    6 · heads · (key width + value width) · :func:`mean_keys`; where a layer sees everything and both widths are equal,
    6 · heads · head_dim · context for the lower triangle (half of PaLM's 12, appendix B of arXiv 2204.02311).
    """
    return 6.0 * arch.heads * (arch.key_dim + arch.value_dim) * mean_keys(arch, layer, context)


def mean_keys(arch: Architecture, layer: int, context: int) -> float:
    """Keys that a token of a row of ``context`` tokens sees in a layer, the mean over the row.

    context / 2 where it sees all before it, the area of the triangle; with a window w < context, the triangle less that
    of what is out of sight: w - w² / (2 · context).
    """
    window = arch.window if arch.has_window(layer) else None
    if window is None or window >= context:
        return context / 2
    return window - window**2 / (2 * context)


@lru_cache(maxsize=256)
def _matrix_parameters(arch: Architecture) -> int:
    """Parameters that multiply one token's activations in training, the head's once for each token it predicts."""
    inner = sum(part.active for part in model_parts(arch) if part.multiplies and part.kind != "head")
    return inner + (1 + arch.predict_ahead) * arch.vocabulary_size * arch.hidden_size


def _part(arch: Architecture, name: str, shape: tuple[int, ...], module: nn.Module) -> Part:
    found = re.match(r"model\.layers\.(\d+)\.", name)
    layer = int(found[1]) if found else None
    active = prod(shape)
    if arch.experts is not None and ".mlp.experts." in name:
        active = active // arch.experts.count * arch.experts.per_token
    multiplies = len(shape) > 1 and not isinstance(module, nn.Embedding)
    return Part(name, shape, _kind(arch, name, layer, module), layer, active, multiplies)


def _kind(arch: Architecture, name: str, layer: int | None, module: nn.Module) -> str:
    outside = {"model.embed_tokens": "embedding", "model.embed_positions": "positions", "lm_head": "head"}
    if (place := name.rpartition(".")[0]) in outside:
        return outside[place]
    if layer is None and place != "model.norm":
        return "other"
    if isinstance(module, RMSNorm | LayerNorm):
        return "norms"
    if ".self_attn." in name:
        return "attention"
    if ".mlp." in name and layer is not None:
        return "experts" if arch.has_experts(layer) else "feed_forward"
    return "other"
