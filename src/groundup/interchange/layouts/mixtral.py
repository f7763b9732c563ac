"""Mixtral (Jiang et al. 2024, arXiv 2401.04088)."""

from __future__ import annotations

from typing import Any

from groundup.interchange.layouts.experts import expert_reasons, ours_with_experts, theirs_with_experts
from groundup.interchange.layouts.llama import Mistral, every_window
from groundup.interchange.layouts.pieces import Made, Shapes
from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture

_PARTS = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


class Mixtral(Mistral):
    """Mistral with experts in all layers, whose matrices are w1 (gate), w3 (up) and w2 (down)."""

    model_type = "mixtral"
    class_name = "MixtralForCausalLM"
    defaults = {key: value for key, value in Mistral.defaults.items() if key != "sliding_window"} | {
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
    }

    def accepts(self, field: str, value: Any) -> bool:
        return value is not None if field == "experts" else super().accepts(field, value)

    def more_reasons(self, arch: Architecture) -> list[str]:
        return super().more_reasons(arch) + expert_reasons(arch, dense=False, free=False)

    def read(self, settings: Settings) -> dict[str, Any]:
        settings.get("router_jitter_noise")  # of training
        table = {
            "count": settings.whole("num_local_experts", "num_experts"),
            "per_token": settings.whole("num_experts_per_tok"),
            "balance_weight": settings.number("router_aux_loss_coef"),
            "z_weight": 0.0,
        }
        return super().read(settings) | every_window(settings) | {"experts": table}

    def write(self, arch: Architecture) -> dict[str, Any]:
        table = arch.experts
        assert table is not None
        return super().write(arch) | {
            "intermediate_size": table.intermediate_size or arch.intermediate_size,
            "num_local_experts": table.count,
            "num_experts_per_tok": table.per_token,
            "router_aux_loss_coef": table.balance_weight,
            "router_jitter_noise": 0.0,
            "output_router_logits": False,
        }

    def theirs(self, arch: Architecture, shapes: Shapes) -> list[Made]:
        return theirs_with_experts(shapes, _one, _on_disk)

    def ours(self, arch: Architecture, shapes: Shapes) -> list[tuple[Made, ...]]:
        return ours_with_experts(shapes, _one, _on_disk)


def _on_disk(name: str) -> str:
    """The router's name in files, which is another than in memory."""
    return name.replace(".mlp.gate.", ".block_sparse_moe.gate.")


def _one(block: str, part: str) -> str:
    """The name of an expert's matrix, with a place for its number."""
    return f"{block.replace('.mlp.', '.block_sparse_moe.')}experts.{{}}.{_PARTS[part]}.weight"
