"""OLMo 2 (OLMo team 2024, arXiv 2501.00656)."""

from __future__ import annotations

from typing import Any

from groundup.interchange.layouts.layout import Layout
from groundup.interchange.layouts.llama import Llama
from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture


class Olmo2(Layout):
    """Norms stand behind attention and feed-forward; queries and keys are normalised over their whole width."""

    model_type = "olmo2"
    class_name = "Olmo2ForCausalLM"
    differs = {"qk_norm": ("width",), "norm_placement": ("output",)}
    defaults = Llama.defaults | {"vocab_size": 50_304, "rms_norm_eps": 1e-5}
    square = True

    def read(self, settings: Settings) -> dict[str, Any]:
        settings.only("attention_bias", (False,), default=False)
        return super().read(settings) | {"qk_norm": "width", "norm_placement": "output"}

    def write(self, arch: Architecture) -> dict[str, Any]:
        config = super().write(arch)
        del config["head_dim"]
        return config | {"attention_bias": False}
