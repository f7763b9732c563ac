"""Gemma 3's text models (Gemma team 2025, arXiv 2503.19786), alone or inside of a model that sees pictures."""

from __future__ import annotations

from typing import Any

from groundup.interchange.layouts.layout import LEFT_OUT, PREFIXES, Layout
from groundup.interchange.layouts.rope import (
    FULL,
    SLIDING,
    layer_types,
    read_parameters,
    read_windows,
    write_parameters,
)
from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture

_PICTURES = "of the part that sees pictures"
_WRAPPED = ("vision_tower.", "multi_modal_projector.")


class Gemma3(Layout):
    """Norms on both sides with gains 1 + weight, scaled embeddings, windows whose layers have their own rope."""

    model_type = "gemma3_text"
    class_name = "Gemma3ForCausalLM"
    differs = {
        "qk_norm": ("head",),
        "norm_placement": ("sandwich",),
        "norm_offset": (True,),
        "embedding_scale": (True,),
    }
    defaults = {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    }
    prefixes = (
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
        *((f"model.{part}", part) for part in _WRAPPED),
        *((part, part) for part in _WRAPPED),
        *PREFIXES,
    )
    left_out = LEFT_OUT | {r"vision_tower\..*": _PICTURES, r"multi_modal_projector\..*": _PICTURES}
    activation_key = "hidden_activation"
    even = True

    def accepts(self, field: str, value: Any) -> bool:
        if field in ("window", "local_rope_theta", "logit_softcap"):
            return True
        if field == "attention_scale" and value is not None:  # the key is the whole number under the root
            return bool(round(value**-2) >= 1 and abs(round(value**-2) ** -0.5 - value) < 1e-12)
        return super().accepts(field, value)

    def read(self, settings: Settings) -> dict[str, Any]:
        settings.only("attention_bias", (False,), default=False)
        settings.only("use_bidirectional_attention", (False, None))
        settings.only("attn_logit_softcapping", (None,))  # `transformers` has the key, but no code that reads it
        fields = super().read(settings)
        width, scalar = fields["head_dim"], settings.number("query_pre_attn_scalar")
        period, layers = settings.whole("sliding_window_pattern", "_sliding_window_pattern"), fields["layers"]
        if period < 1 or scalar <= 0:
            key = "sliding_window_pattern" if period < 1 else "query_pre_attn_scalar"
            raise settings.refusal(key, settings.get(key), "a number above 0")
        windowed = [bool((layer + 1) % period) for layer in range(layers)]
        return {
            **fields,
            **read_windows(settings, settings.whole("sliding_window", default=None), windowed),
            "qk_norm": "head",
            "norm_placement": "sandwich",
            "norm_offset": True,
            "embedding_scale": True,
            "attention_scale": None if scalar == width else scalar**-0.5,
            "logit_softcap": settings.number("final_logit_softcapping", default=None),
        }

    def ropes(self, settings: Settings, context: int) -> dict[str, Any]:
        """Layers with a window have a base of their own, and are not stretched."""
        tables, stretch = settings.table("rope_parameters"), settings.table("rope_scaling")
        if strange := sorted(tables.keys() - {FULL, SLIDING}):
            raise settings.refusal(f"rope_parameters.{strange[0]}", tables[strange[0]], f"{FULL} and {SLIDING} only")
        table = Settings(tables, f"{settings.where}: rope_parameters")
        theta = settings.number("rope_theta", default=1_000_000.0)
        near = settings.number("rope_local_base_freq", default=10_000.0)
        full = read_parameters(settings, {**table.table(FULL), **stretch}, theta, context)
        sliding = read_parameters(settings, table.table(SLIDING), near, context)
        if sliding != full and sliding[1] is not None:
            raise settings.refusal(f"rope_parameters.{SLIDING}", tables[SLIDING], "rope_type default")
        return {
            "rope_theta": full[0],
            "rope_scaling": full[1],
            "local_rope_theta": None if sliding == full else sliding[0],
        }

    def write(self, arch: Architecture) -> dict[str, Any]:
        full = write_parameters(arch.rope_theta, arch.rope_scaling)
        near = full if arch.local_rope_theta is None else write_parameters(arch.local_rope_theta, None)
        scalar = arch.resolved_head_dim if arch.attention_scale is None else round(arch.attention_scale**-2)
        config = super().write(arch)
        period = len(arch.window_pattern)
        if arch.window is not None and arch.window_pattern == "S" * (period - 1) + "L":  # what older readers know
            config["sliding_window_pattern"] = period
        return config | {
            "rope_local_base_freq": near["rope_theta"],
            "rope_parameters": {FULL: full, SLIDING: near},
            "query_pre_attn_scalar": scalar,
            "sliding_window": arch.window or arch.context_length,
            "layer_types": layer_types(arch),
            "attn_logit_softcapping": None,
            "final_logit_softcapping": arch.logit_softcap,
            "attention_bias": False,
        }
