"""What a stock layout is: which architectures it expresses, its config.json and its tensors, both ways."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from groundup.interchange.layouts.pieces import Made, Shapes, same
from groundup.interchange.layouts.rope import read_rope, write_rope
from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture
from groundup.recipe.model import GATED, ModelShape

FREE = frozenset(
    {
        *("layers", "hidden_size", "heads", "kv_heads", "head_dim", "intermediate_size", "context_length"),
        *("rope_theta", "rope_scaling", "window_pattern", "norm_eps", "tied_embeddings"),
        *("dropout", "attention_dropout"),
        *("predict_ahead", "predict_ahead_weight", "initializer_range", "residual_start", "attention_start"),
    }
)
"""Fields of the architecture that every layout has, or that don't change what a finished model computes."""

PLAIN: Mapping[str, tuple[Any, ...]] = {
    "positions": ("rotary",),
    "local_rope_theta": (None,),
    "qk_norm": ("none",),
    "window": (None,),
    "attention_scale": (None,),
    "attention_softcap": (None,),
    "attention_sinks": (False,),
    "latent": (None,),
    "biases": ("none",),
    "feed_forward": GATED,
    "experts": (None,),
    "norm": ("rms",),
    "norm_placement": ("pre",),
    "norm_gains": (True,),
    "norm_offset": (False,),
    "embedding_scale": (False,),
    "embedding_norm": (False,),
    "residual_scalars": (False,),
    "x0_skip": (False,),
    "value_embeddings": (False,),
    "bigram_rows": (0,),
    "logit_softcap": (None,),
}
"""The values of all other fields in Llama's layout; a layout says where it differs."""

GATES = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu"} | dict.fromkeys(
    ("gelu_pytorch_tanh", "gelu_new", "gelu_fast"), "geglu_tanh"
)
"""`hidden_act` of gated feed-forward layers, and our `feed_forward`."""
_ACTS = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_pytorch_tanh"}

PREFIXES = (("model.", "model."), ("lm_head.", "lm_head."), ("", "model."))
LEFT_OUT = {r".*rotary_emb\.inv_freq": "frequencies are computed, not read"}


class Layout:
    """Llama's layout, or with other class attributes and methods another.

    Most tensors have our own names, so that only differences need be said.
    """

    model_type: ClassVar[str]
    class_name: ClassVar[str]
    differs: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """field of the architecture → its values, where they are not those of PLAIN"""
    activation_key: ClassVar[str] = "hidden_act"
    defaults: ClassVar[Mapping[str, Any]] = {}
    """what the family's class in `transformers` takes for keys that are absent"""
    prefixes: ClassVar[Sequence[tuple[str, str]]] = PREFIXES
    """beginnings of names on disk and what they stand for, the first that fits: of the layout itself, of models in
    other wrapping, and last of models without a head"""
    left_out: ClassVar[Mapping[str, str]] = LEFT_OUT
    """patterns of names that are not needed, and why"""
    square: ClassVar[bool] = False
    """the layout cannot say the width of a head: it is hidden_size / heads"""
    even: ClassVar[bool] = False
    """hidden_size must be a multiple of heads, although heads have a width of their own"""

    def accepts(self, field: str, value: Any) -> bool:
        """Whether a field of the architecture may have this value."""
        if field in FREE:
            return True
        values = {**PLAIN, **self.differs}.get(field)
        if values is None:  # a field that nobody has thought of here: only what changes nothing
            return bool(value == ModelShape.model_fields[field].get_default())
        return value in values

    def reasons(self, arch: Architecture) -> list[str]:
        """What of an architecture the layout cannot express: fields and their values; empty where it can."""
        fields = (field for field in ModelShape.model_fields if not self.accepts(field, getattr(arch, field)))
        return [spelled(field, getattr(arch, field)) for field in fields] + self.more_reasons(arch)

    def more_reasons(self, arch: Architecture) -> list[str]:
        """The same, for what several fields decide together."""
        if self.square and arch.heads * arch.resolved_head_dim != arch.hidden_size:
            return [f"head_dim = {arch.resolved_head_dim} with {arch.heads} heads in a width of {arch.hidden_size}"]
        if self.even and arch.hidden_size % arch.heads:
            return [f"hidden_size = {arch.hidden_size}, which is no multiple of heads = {arch.heads}"]
        return []

    def read(self, settings: Settings) -> dict[str, Any]:
        """Fields of our architecture from a config.json. Raises UserError for what we have no part for."""
        heads, context = settings.whole("num_attention_heads"), settings.whole("max_position_embeddings")
        return {
            **self.sizes(settings),
            **self.ropes(settings, context),
            "heads": heads,
            "kv_heads": settings.whole("num_key_value_heads", default=heads),
            "head_dim": settings.whole("head_dim", default=None),
            "context_length": context,
            "qk_norm": "none",
            "norm_eps": settings.number("rms_norm_eps"),
            "feed_forward": settings.choice(self.activation_key, GATES),
        }

    def ropes(self, settings: Settings, context: int) -> dict[str, Any]:
        """The fields of rotary positions."""
        theta, scaling = read_rope(settings, float(self.defaults.get("rope_theta", 10_000.0)), context)
        return {"rope_theta": theta, "rope_scaling": scaling}

    def sizes(self, settings: Settings) -> dict[str, Any]:
        """The fields that every family names alike."""
        return {
            "vocabulary_size": settings.whole("vocab_size"),
            "layers": settings.layers("num_hidden_layers"),
            "hidden_size": settings.whole("hidden_size"),
            "intermediate_size": settings.whole("intermediate_size"),
            "tied_embeddings": settings.flag("tie_word_embeddings"),
            "initializer_range": settings.number("initializer_range", default=0.02),
        }

    def write(self, arch: Architecture) -> dict[str, Any]:
        """The config.json of an architecture without reasons against it, but for what all families share."""
        return {
            "vocab_size": arch.vocabulary_size,
            "hidden_size": arch.hidden_size,
            "intermediate_size": arch.intermediate_size,
            "num_hidden_layers": arch.layers,
            "num_attention_heads": arch.heads,
            "num_key_value_heads": arch.kv_heads,
            "head_dim": arch.resolved_head_dim,
            self.activation_key: _ACTS[arch.feed_forward],
            "max_position_embeddings": arch.context_length,
            "rms_norm_eps": arch.norm_eps,
            **write_rope(arch),
            "tie_word_embeddings": arch.tied_embeddings,
            "attention_dropout": 0.0,
            "initializer_range": arch.initializer_range,
        }

    def theirs(self, arch: Architecture, shapes: Shapes) -> list[Made]:
        """The layout's tensors, made of ours, whose shapes are given by name."""
        return [same(name, shape) for name, shape in shapes.items()]

    def ours(self, arch: Architecture, shapes: Shapes) -> list[tuple[Made, ...]]:
        """Our tensors, whose shapes are given by name, made of the layout's: for each the ways there are, of which the
        layout's present form is the first."""
        return [(same(name, shape),) for name, shape in shapes.items()]

    def canonical(self, name: str) -> str:
        """The layout's name of a tensor on disk, whose name may begin otherwise."""
        found, stands_for = next(pair for pair in self.prefixes if name.startswith(pair[0]))
        return stands_for + name.removeprefix(found)

    def why_left_out(self, name: str) -> str | None:
        """Why a tensor of this canonical name is not needed; None where nothing is known of it."""
        return next((why for pattern, why in self.left_out.items() if re.fullmatch(pattern, name)), None)


def spelled(field: str, value: Any) -> str:
    """A field and its value as a recipe writes them; of a table the name alone."""
    return f"{field} = {json.dumps(value)}" if isinstance(value, bool | int | float | str) else field
