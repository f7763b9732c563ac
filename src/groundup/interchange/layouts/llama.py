"""Llama (Touvron et al. 2023, arXiv 2302.13971) and Mistral (Jiang et al. 2023, arXiv 2310.06825)."""

from __future__ import annotations

from typing import Any

from groundup.interchange.layouts.layout import Layout
from groundup.interchange.layouts.rope import mixed_windows, read_windows
from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture


class Llama(Layout):
    """The tensors have our names. Biases are on all matrices or on none."""

    model_type = "llama"
    class_name = "LlamaForCausalLM"
    differs = {"biases": ("none", "all")}
    defaults = {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
    }
    even = True

    def read(self, settings: Settings) -> dict[str, Any]:
        attention = settings.flag("attention_bias")
        settings.only("mlp_bias", (attention,), default=False)
        settings.get("pretraining_tp")
        return super().read(settings) | {"biases": "all" if attention else "none"}

    def write(self, arch: Architecture) -> dict[str, Any]:
        biases = arch.biases == "all"
        return super().write(arch) | {"attention_bias": biases, "mlp_bias": biases}


class Mistral(Layout):
    """Llama's tensors without biases; every layer has the window, or none."""

    model_type = "mistral"
    class_name = "MistralForCausalLM"
    defaults = Llama.defaults | {
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    }

    def accepts(self, field: str, value: Any) -> bool:
        return field == "window" or super().accepts(field, value)

    def more_reasons(self, arch: Architecture) -> list[str]:
        return super().more_reasons(arch) + mixed_windows(arch)

    def read(self, settings: Settings) -> dict[str, Any]:
        return super().read(settings) | every_window(settings)

    def write(self, arch: Architecture) -> dict[str, Any]:
        return super().write(arch) | {"sliding_window": arch.window}


def every_window(settings: Settings) -> dict[str, Any]:
    """Our window, of families in which `sliding_window` is that of all layers, and null means none."""
    window = settings.whole("sliding_window", default=None)
    layers = settings.layers("num_hidden_layers")
    found = read_windows(settings, window, [window is not None] * layers)
    if window is not None and found.get("window_pattern") != "S":  # the family's class would not look at the types
        raise settings.refusal("layer_types", settings.get("layer_types"), "sliding_attention in all layers")
    return found
