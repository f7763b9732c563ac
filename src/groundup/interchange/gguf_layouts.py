"""Layouts of llama.cpp: which architectures each expresses, and what our tensors become in it.

llama.cpp has one graph for each layout, fixed in its source (github.com/ggml-org/llama.cpp, src/models/); a file names
the graph and gives its numbers and tensors. What a graph lacks is worked into the tensors where that is exact: most of
it by `fold`, as for Hugging Face's layouts, the rest here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from groundup.interchange.layouts.experts import expert_reasons
from groundup.interchange.layouts.layout import Layout, spelled
from groundup.model import Architecture
from groundup.model.positions import stretched

Kind = Literal["exact", "matrix", "table"]
"""`exact` stays float32 in every file; `table` is the embedding or the head."""
Shapes = Mapping[str, tuple[int, ...]]
Number = int | float | str


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of the file, and how it is made of ours."""

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind = "matrix"
    make: Callable[[Sequence[Tensor]], Tensor] = lambda got: torch.cat([*got])
    """of the sources in float32 to float32 of ``shape``: one below the other, where nothing else is said"""


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}
NORMS = {
    "pre": {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    "output": {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"},
    "sandwich": {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}
ENDS = {
    "model.embed_tokens": "token_embd",
    "model.embed_positions": "position_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
"""Our names of tensors and llama.cpp's: in a layer, of its norms by their placement, and outside of the layers."""
_EXACT = ("position_embd", "ffn_gate_inp")
_TABLES = ("token_embd", "output")


class GgufLayout(Layout):
    """A graph of llama.cpp. Of :class:`Layout` it has what says which architectures it expresses."""

    model_type: ClassVar[str]
    """``general.architecture`` of the file"""
    scalings: ClassVar[tuple[str, ...]] = ("linear", "yarn")
    """kinds of rope_scaling"""

    def accepts(self, field: str, value: Any) -> bool:
        return field == "window" or super().accepts(field, value)  # see `context`

    def more_reasons(self, arch: Architecture) -> list[str]:
        found, scaling = super().more_reasons(arch), arch.rope_scaling
        if scaling is not None and scaling.kind not in self.scalings:
            found.append(f'rope_scaling of kind "{scaling.kind}"')
        if scaling is not None and scaling.kind == "yarn" and (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
            # Which only other graphs read.
            found.append(f"rope_scaling with beta_fast = {scaling.beta_fast:g} and beta_slow = {scaling.beta_slow:g}")
        return found + expert_reasons(arch, dense=False, free=False)

    def context(self, arch: Architecture) -> int:
        """The context that a file states: no more than the window, for the graphs have none, and up to there nothing
        differs."""
        return arch.context_length if arch.window is None else min(arch.window, arch.context_length)

    def numbers(self, arch: Architecture) -> dict[str, Number]:
        """The keys of the layout without its name before them: ``block_count`` for ``qwen3.block_count``."""
        width, table = arch.resolved_head_dim, arch.experts
        inner = (table and table.intermediate_size) or arch.intermediate_size
        found: dict[str, Number] = {
            "context_length": self.context(arch),
            "embedding_length": arch.hidden_size,
            "block_count": arch.layers,
            "feed_forward_length": inner,
            "vocab_size": arch.vocabulary_size,
            "attention.head_count": arch.heads,
            "attention.head_count_kv": arch.kv_heads,
            "attention.key_length": width,
            "attention.value_length": width,
            f"attention.layer_norm{'_rms' if arch.norm == 'rms' else ''}_epsilon": arch.norm_eps,
        }
        if arch.positions == "rotary":
            found |= {"rope.dimension_count": width, "rope.freq_base": arch.rope_theta}
        if table is not None:
            found |= {"expert_count": table.count, "expert_used_count": table.per_token}
            found |= {"expert_feed_forward_length": inner}
        scaling = arch.rope_scaling
        if scaling is not None and scaling.kind != "llama3":  # which is a tensor, see `_frequencies`
            found |= {"rope.scaling.type": scaling.kind, "rope.scaling.factor": scaling.factor}
            if scaling.original_context is not None:
                found |= {"rope.scaling.original_context_length": scaling.original_context}
        return found

    def tensors(self, arch: Architecture, shapes: Shapes) -> list[GgufTensor]:
        """The tensors of a file, made of ours, whose shapes are given by name."""
        found = []
        for source, shape in shapes.items():
            part, _, kind = source.rpartition(".")
            if part.endswith("experts"):  # stacks have no ".weight" behind their names
                part, kind = source, "weight"
            name = _name(arch, part)
            found.append(
                GgufTensor(
                    f"{name}.{kind}",
                    (source,),
                    shape,
                    "exact" if len(shape) == 1 or name.endswith(_EXACT) else "table" if name in _TABLES else "matrix",
                    self.change(arch, part),
                )
            )
        return found

    def change(self, arch: Architecture, part: str) -> Callable[[Sequence[Tensor]], Tensor]:
        """How a tensor, or a bias, is made of ours."""
        queries = "self_attn.q_proj" if arch.qk_norm == "none" else "self_attn.q_norm"
        factor = self.score_factor(arch) if part.endswith(queries) else 1.0
        return lambda got: got[0] * factor

    def score_factor(self, arch: Architecture) -> float:
        """What queries are multiplied by, so that the graph's scores become ours.

        YaRN's gain multiplies queries and keys, thus scores by its square; the graph has it as 0.1 ln(factor) + 1.
        """
        scaling = arch.rope_scaling
        if scaling is None or scaling.kind != "yarn" or scaling.attention_factor is None:
            return 1.0
        return (scaling.attention_factor / (0.1 * math.log(scaling.factor) + 1)) ** 2


class Qwen3(GgufLayout):
    """Our own default."""

    model_type = "qwen3"
    differs = {"qk_norm": ("head",), "feed_forward": ("swiglu",)}


class Qwen3Moe(Qwen3):
    """Every layer a mixture of experts."""

    model_type = "qwen3moe"

    def accepts(self, field: str, value: Any) -> bool:
        return value is not None if field == "experts" else super().accepts(field, value)


class Llama(GgufLayout):
    """Llama, Mistral, Qwen2 and Mixtral: no norm of queries and keys, with biases or without, experts or none."""

    model_type = "llama"
    differs = {"biases": ("none", "qkv", "all"), "feed_forward": ("swiglu",)}
    scalings = (*GgufLayout.scalings, "llama3")

    def accepts(self, field: str, value: Any) -> bool:
        return field == "experts" or super().accepts(field, value)

    def more_reasons(self, arch: Architecture) -> list[str]:
        mixed = [spelled("biases", arch.biases)] if arch.experts and arch.biases != "none" else []
        return super().more_reasons(arch) + mixed

    def tensors(self, arch: Architecture, shapes: Shapes) -> list[GgufTensor]:
        found = super().tensors(arch, shapes)
        if arch.rope_scaling is not None and arch.rope_scaling.kind == "llama3":
            width = (arch.resolved_head_dim // 2,)
            found.append(GgufTensor("rope_freqs.weight", (), width, "exact", lambda _: _frequencies(arch)))
        return found

    def change(self, arch: Architecture, part: str) -> Callable[[Sequence[Tensor]], Tensor]:
        plain = super().change(arch, part)
        if not part.endswith(("q_proj", "k_proj")):
            return plain
        heads = arch.heads if part.endswith("q_proj") else arch.kv_heads
        return lambda got: interleave(plain(got), heads)


class Olmo2(GgufLayout):
    """Norms behind attention and feed-forward; the graph knows no tied head."""

    model_type = "olmo2"
    differs = {"qk_norm": ("width",), "norm_placement": ("output",), "feed_forward": ("swiglu",)}
    square = True

    def tensors(self, arch: Architecture, shapes: Shapes) -> list[GgufTensor]:
        found = super().tensors(arch, shapes)
        if arch.tied_embeddings:
            source = "model.embed_tokens.weight"
            found.append(GgufTensor("output.weight", (source,), shapes[source], "table"))
        return found


class Gemma3(GgufLayout):
    """Norms on both sides, and a window in all layers but every n-th. Files hold gains, not gains less 1."""

    model_type = "gemma3"
    differs = {
        "qk_norm": ("head",),
        "norm_placement": ("sandwich",),
        "feed_forward": ("geglu_tanh",),
        "embedding_scale": (True,),
    }
    scalings = ("linear",)

    def accepts(self, field: str, value: Any) -> bool:
        return field == "local_rope_theta" or super().accepts(field, value)

    def more_reasons(self, arch: Architecture) -> list[str]:
        found, pattern = super().more_reasons(arch), arch.window_pattern
        if arch.window is None:
            found.append("no window")
        elif pattern != "S" * (len(pattern) - 1) + "L" or pattern == "L":
            found.append(spelled("window_pattern", pattern))
        if arch.rope_scaling is not None and arch.local_rope_theta is None:  # layers with a window are not stretched
            found.append("rope_scaling without local_rope_theta")
        return found

    def context(self, arch: Architecture) -> int:
        return arch.context_length

    def numbers(self, arch: Architecture) -> dict[str, Number]:
        assert arch.window is not None
        return super().numbers(arch) | {
            "attention.sliding_window": arch.window,
            "attention.sliding_window_pattern": len(arch.window_pattern),
            "rope.freq_base_swa": arch.local_rope_theta or arch.rope_theta,
        }

    def score_factor(self, arch: Architecture) -> float:
        """The graph takes a model of 62 layers for Gemma 3 27B, whose scores it scales in its own way."""
        own = arch.resolved_head_dim**-0.5
        return own / (arch.hidden_size // arch.heads) ** -0.5 if arch.layers == 62 else 1.0


class Gpt2(GgufLayout):
    """LayerNorm, learned positions, biases; queries, keys and values in one matrix."""

    model_type = "gpt2"
    differs = {
        "positions": ("learned",),
        "norm": ("layer",),
        "feed_forward": ("gelu_tanh",),
        "biases": ("all",),
    }
    square = True

    def tensors(self, arch: Architecture, shapes: Shapes) -> list[GgufTensor]:
        kept = {name: shape for name, shape in shapes.items() if not name.endswith(_PARTS)}
        rows, name = self.context(arch), "model.embed_positions.weight"
        kept[name] = (rows, arch.hidden_size)  # llama.cpp wants as many as the context that the file states
        found = super().tensors(arch, kept)
        for layer in range(arch.layers):
            for kind in ("weight", "bias"):
                sources = tuple(f"model.layers.{layer}.self_attn.{each}_proj.{kind}" for each in "qkv")
                shape = (sum(shapes[source][0] for source in sources), *shapes[sources[0]][1:])
                exact: Kind = "matrix" if kind == "weight" else "exact"
                found.append(GgufTensor(f"blk.{layer}.attn_qkv.{kind}", sources, shape, exact))
        return found

    def change(self, arch: Architecture, part: str) -> Callable[[Sequence[Tensor]], Tensor]:
        rows = self.context(arch)
        return (lambda got: got[0][:rows]) if part == "model.embed_positions" else super().change(arch, part)


_PARTS = tuple(f"{each}_proj.{kind}" for each in "qkv" for kind in ("weight", "bias"))
GGUF_LAYOUTS: tuple[GgufLayout, ...] = (Qwen3(), Llama(), Qwen3Moe(), Olmo2(), Gemma3(), Gpt2())
"""Those whose logits were compared with ours through llama.cpp (tests/interchange/test_gguf.py)."""


def _name(arch: Architecture, part: str) -> str:
    """llama.cpp's name of a part of the model."""
    if part in ENDS:
        return ENDS[part]
    layer, _, inner = part.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{(NAMES | NORMS[arch.norm_placement])[inner]}"


def interleave(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys (or their biases) in the order of the graph's rotation, which turns neighbours, where
    ours turns the two halves of a head: row i of the first half, then row i of the second."""
    width = weight.shape[0] // heads
    halves = weight.reshape(heads, 2, width // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def _frequencies(arch: Architecture) -> Tensor:
    """What each rotary frequency is divided by: Llama 3's scaling is such a tensor in the file."""
    width = arch.resolved_head_dim
    plain = arch.rope_theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return (plain / stretched(plain, arch.rope_theta, arch.rope_scaling)[0]).float()
