"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

import re
from typing import Any

from groundup.interchange.layouts.layout import Layout
from groundup.interchange.layouts.pieces import Made, Piece, Shapes, same
from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "relu2": "squared_relu"} | dict.fromkeys(
    ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "gelu_tanh"
)
_WRITTEN = {"relu": "relu", "gelu": "gelu", "squared_relu": "relu2", "gelu_tanh": "gelu_new"}
_OUTER = {
    "model.embed_tokens": "transformer.wte",
    "model.embed_positions": "transformer.wpe",
    "model.norm": "transformer.ln_f",
    "lm_head": "lm_head",
}
_INNER = {
    "input_layernorm": "ln_1",
    "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
_DROPS = ("resid_pdrop", "embd_pdrop")
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_PARTS = ("q_proj", "k_proj", "v_proj")


class Gpt2(Layout):
    """Matrices are stored with inputs as rows, and those of queries, keys and values as one."""

    model_type = "gpt2"
    class_name = "GPT2LMHeadModel"
    differs = {
        "positions": ("learned",),
        "norm": ("layer",),
        "biases": ("all",),
        "feed_forward": tuple(_WRITTEN),
    }
    defaults = {
        "vocab_size": 50_257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "tie_word_embeddings": True,
    }
    prefixes = (("transformer.", "transformer."), ("lm_head.", "lm_head."), ("", "transformer."))
    left_out = {r"transformer\.h\.\d+\.attn\.(bias|masked_bias)": "the causal mask is computed, not read"}
    square = True

    def more_reasons(self, arch: Architecture) -> list[str]:
        grouped = [f"kv_heads = {arch.kv_heads}"] if arch.kv_heads != arch.heads else []
        stretched = ["rope_scaling"] if arch.rope_scaling is not None else []
        return super().more_reasons(arch) + grouped + stretched

    def read(self, settings: Settings) -> dict[str, Any]:
        settings.only("scale_attn_weights", (True,), default=True)
        settings.only("scale_attn_by_inverse_layer_idx", (False,), default=False)
        settings.only("add_cross_attention", (False,), default=False)
        settings.get("reorder_and_upcast_attn", "n_ctx")  # the same scores, in another order
        for key in settings.values:
            if key.startswith("summary_"):
                settings.get(key)  # of a head that scores a text
        width, heads = settings.whole("n_embd", "hidden_size"), settings.whole("n_head", "num_attention_heads")
        drops, of_weights = {settings.number(key) for key in _DROPS}, settings.number("attn_pdrop")
        if len(drops) > 1:
            settings.read -= set(_DROPS)
        return {
            "vocabulary_size": settings.whole("vocab_size"),
            "layers": settings.layers("n_layer", "num_hidden_layers"),
            "hidden_size": width,
            "heads": heads,
            "kv_heads": heads,
            "intermediate_size": settings.whole("n_inner", default=4 * width),
            "context_length": settings.whole("n_positions", "max_position_embeddings"),
            "positions": "learned",
            "qk_norm": "none",
            "biases": "all",
            "feed_forward": settings.choice("activation_function", ACTIVATIONS),
            "norm": "layer",
            "norm_eps": settings.number("layer_norm_epsilon"),
            "dropout": min(drops) if len(drops) == 1 else 0.0,
            "attention_dropout": None if drops == {of_weights} else of_weights,
            "tied_embeddings": settings.flag("tie_word_embeddings"),
            "initializer_range": settings.number("initializer_range", default=0.02),
            "residual_start": "scaled",
        }

    def write(self, arch: Architecture) -> dict[str, Any]:
        return {
            "vocab_size": arch.vocabulary_size,
            "n_positions": arch.context_length,
            "n_ctx": arch.context_length,
            "n_embd": arch.hidden_size,
            "n_layer": arch.layers,
            "n_head": arch.heads,
            "n_inner": arch.intermediate_size,
            "activation_function": _WRITTEN[arch.feed_forward],
            "layer_norm_epsilon": arch.norm_eps,
            "resid_pdrop": arch.dropout,
            "embd_pdrop": arch.dropout,
            "attn_pdrop": arch.resolved_attention_dropout,
            "scale_attn_weights": True,
            "tie_word_embeddings": arch.tied_embeddings,
            "initializer_range": arch.initializer_range,
        }

    def theirs(self, arch: Architecture, shapes: Shapes) -> list[Made]:
        made = []
        for name, shape in shapes.items():
            if "self_attn.q_proj" in name:
                made.append(_joined(name, shapes))
            elif (theirs := _named(name)) is not None:
                turned = _is_turned(name, shape)
                made.append(same(theirs, shape[::-1] if turned else shape, name, turned=turned))
        return made

    def ours(self, arch: Architecture, shapes: Shapes) -> list[tuple[Made, ...]]:
        made: list[tuple[Made, ...]] = []
        for name, shape in shapes.items():
            theirs = _named(name)
            whole = _part(name, shape) if theirs is None else same(name, shape, theirs, turned=_is_turned(name, shape))
            made.append((whole,))
        return made


def _named(name: str) -> str | None:
    """GPT-2's name of a tensor of ours; None for queries, keys and values, which are one."""
    module, _, kind = name.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{kind}"
    match = _LAYER.fullmatch(module)
    return f"transformer.h.{match[1]}.{_INNER[match[2]]}.{kind}" if match and match[2] in _INNER else None


def _is_turned(name: str, shape: tuple[int, ...]) -> bool:
    """Whether GPT-2 has the matrix with inputs as rows."""
    return len(shape) == 2 and name.startswith("model.layers.")


def _joined(name: str, shapes: Shapes) -> Made:
    """c_attn of the layer whose q_proj is named."""
    names = [name.replace("q_proj", part) for part in _PARTS]
    pieces = tuple(Piece(part, shapes[part], (), len(shapes[part]) == 2) for part in names)
    rows = sum(shapes[part][0] for part in names)
    return Made(_c_attn(name), (*shapes[name][1:], rows), pieces, "columns" if name.endswith("weight") else "rows")


def _part(name: str, shape: tuple[int, ...]) -> Made:
    """Queries, keys or values, out of c_attn."""
    place = next(i for i, part in enumerate(_PARTS) if part in name)
    rows = shape[0]
    span = slice(place * rows, (place + 1) * rows)
    piece = Piece(_c_attn(name), (*shape[1:], 3 * rows), (*(slice(None) for _ in shape[1:]), span), len(shape) == 2)
    return Made(name, shape, (piece,))


def _c_attn(name: str) -> str:
    layer = name.split(".")[2]
    return f"transformer.h.{layer}.attn.c_attn.{name.rpartition('.')[2]}"
