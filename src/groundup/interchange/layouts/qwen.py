"""Qwen2 (arXiv 2407.10671), Qwen3 (arXiv 2505.09388), and Qwen3's mixture of experts."""

from __future__ import annotations

from typing import Any

from groundup.interchange.layouts.experts import expert_reasons, ours_with_experts, theirs_with_experts
from groundup.interchange.layouts.layout import Layout
from groundup.interchange.layouts.llama import Llama, every_window
from groundup.interchange.layouts.pieces import Made, Shapes
from groundup.interchange.layouts.rope import layer_types, mixed_windows, read_windows, windows
from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture


class Qwen2(Layout):
    """Llama's tensors, with biases on queries, keys and values. Any layers may have the window."""

    model_type = "qwen2"
    class_name = "Qwen2ForCausalLM"
    differs = {"biases": ("qkv",)}
    defaults = Llama.defaults | {
        "vocab_size": 151_936,
        "intermediate_size": 22_016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32_768,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }
    square = True

    def accepts(self, field: str, value: Any) -> bool:
        return field == "window" or super().accepts(field, value)

    def read(self, settings: Settings) -> dict[str, Any]:
        return super().read(settings) | {"biases": "qkv"} | self.windows(settings)

    def windows(self, settings: Settings) -> dict[str, Any]:
        """Layers from `max_window_layers` on have the window, where `layer_types` doesn't say."""
        used, window = settings.flag("use_sliding_window"), settings.whole("sliding_window", default=None)
        first, layers = settings.whole("max_window_layers"), settings.layers("num_hidden_layers")
        window = window if used else None
        return read_windows(settings, window, [window is not None and i >= first for i in range(layers)])

    def write(self, arch: Architecture) -> dict[str, Any]:
        config = super().write(arch)
        windowed = windows(arch)
        if self.square:
            del config["head_dim"]
        first = windowed.index(True) if any(windowed) else arch.layers
        return config | {
            "use_sliding_window": any(windowed),
            "sliding_window": arch.window if any(windowed) else None,
            "max_window_layers": first,
            "layer_types": layer_types(arch),
        }


class Qwen3(Qwen2):
    """Queries and keys are normalised head by head; no biases."""

    model_type = "qwen3"
    class_name = "Qwen3ForCausalLM"
    differs = {"qk_norm": ("head",)}
    defaults = Qwen2.defaults | {"head_dim": 128}
    square = False

    def read(self, settings: Settings) -> dict[str, Any]:
        settings.only("attention_bias", (False,), default=False)
        return super().read(settings) | {"biases": "none", "qk_norm": "head"}

    def write(self, arch: Architecture) -> dict[str, Any]:
        return super().write(arch) | {"attention_bias": False}


class Qwen3Moe(Qwen3):
    """Qwen3 with experts in all layers but the first few. Every layer has the window, or none."""

    model_type = "qwen3_moe"
    class_name = "Qwen3MoeForCausalLM"
    defaults = Llama.defaults | {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32_768,
        "sliding_window": 4096,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "router_aux_loss_coef": 0.001,
    }

    def accepts(self, field: str, value: Any) -> bool:
        return value is not None if field == "experts" else super().accepts(field, value)

    def more_reasons(self, arch: Architecture) -> list[str]:
        return super().more_reasons(arch) + mixed_windows(arch) + expert_reasons(arch)

    def read(self, settings: Settings) -> dict[str, Any]:
        fields = super().read(settings)
        table = {
            "count": settings.whole("num_experts", "num_local_experts"),
            "per_token": settings.whole("num_experts_per_tok"),
            "intermediate_size": settings.whole("moe_intermediate_size"),
            "dense_layers": _dense_layers(settings, fields["layers"]),
            "renormalise": settings.flag("norm_topk_prob"),
            "balance_weight": settings.number("router_aux_loss_coef"),
            "z_weight": 0.0,
        }
        return fields | {"experts": table}

    def windows(self, settings: Settings) -> dict[str, Any]:
        if settings.flag("use_sliding_window"):
            return every_window(settings)
        settings.get("sliding_window", "max_window_layers")
        return read_windows(settings, None, [False] * settings.layers("num_hidden_layers"))

    def write(self, arch: Architecture) -> dict[str, Any]:
        table = arch.experts
        assert table is not None
        config = super().write(arch)
        del config["layer_types"], config["max_window_layers"]
        return config | {
            "num_experts": table.count,
            "num_experts_per_tok": table.per_token,
            "moe_intermediate_size": table.intermediate_size or arch.intermediate_size,
            "norm_topk_prob": table.renormalise,
            "decoder_sparse_step": 1,
            "mlp_only_layers": list(range(table.dense_layers)),
            "router_aux_loss_coef": table.balance_weight,
            "output_router_logits": False,
        }

    def theirs(self, arch: Architecture, shapes: Shapes) -> list[Made]:
        return theirs_with_experts(shapes, _one_expert)

    def ours(self, arch: Architecture, shapes: Shapes) -> list[tuple[Made, ...]]:
        return ours_with_experts(shapes, _one_expert)


def _one_expert(block: str, part: str) -> str:
    """The name of an expert's matrix, with a place for its number."""
    return f"{block}experts.{{}}.{part}.weight"


def _dense_layers(settings: Settings, layers: int) -> int:
    """How many layers have no experts. Raises UserError unless those are the first ones."""
    step: int = settings.whole("decoder_sparse_step", default=1)
    only = settings.get("mlp_only_layers", default=[])
    if step < 1 or not isinstance(only, list):
        key = "decoder_sparse_step" if step < 1 else "mlp_only_layers"
        raise settings.refusal(key, settings.get(key), "a whole number from 1 on" if step < 1 else "a list of layers")
    dense = [layer in only or (layer + 1) % step != 0 for layer in range(layers)]
    count: int = sum(dense)
    if dense != [True] * count + [False] * (layers - count) or count == layers:
        key = "mlp_only_layers" if step == 1 else "decoder_sparse_step"
        raise settings.refusal(key, settings.get(key), "layers without experts only before those with experts")
    return count
