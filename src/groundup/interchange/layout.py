"""The configuration of a model in the words of the Qwen3 layout, as stock tools read it."""

from __future__ import annotations

from typing import Any

import torch

from groundup.model import Architecture

OWN_MODEL_TYPE = "groundup"
"""``model_type`` of an architecture that no stock layout expresses."""


def configuration(
    arch: Architecture,
    dtype: torch.dtype,
    *,
    bos: int | None = None,
    eos: int | None = None,
    pad: int | None = None,
) -> dict[str, Any]:
    """config.json of a model, with our own record of its architecture under the key "groundup".

    The base of the rotary embedding and the dtype are written under their old and their new names: new
    versions of `transformers` write only the new ones, older readers know only the old ones.

    Args:
        dtype: of the tensors in the file.
        bos, eos, pad: ids of special tokens, null where the tokenizer is not at hand.
    """
    own = {"groundup": {"architecture": arch.to_dict()}}
    kind = str(dtype).removeprefix("torch.")
    if not arch.stock_layout:
        return {"model_type": OWN_MODEL_TYPE, "dtype": kind, "torch_dtype": kind, **own}
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": arch.vocabulary_size,
        "hidden_size": arch.hidden_size,
        "intermediate_size": arch.intermediate_size,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": arch.kv_heads,
        "head_dim": arch.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": arch.context_length,
        "rms_norm_eps": arch.norm_eps,
        "rope_theta": arch.rope_theta,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": arch.rope_theta},
        "tie_word_embeddings": arch.tied_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": arch.layers,
        "layer_types": ["full_attention"] * arch.layers,
        "initializer_range": arch.initializer_range,
        "use_cache": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "dtype": kind,
        "torch_dtype": kind,
        **own,
    }


def why_no_stock_layout(arch: Architecture) -> list[str]:
    """What of an architecture the Qwen3 layout cannot express, in words; empty where it can."""
    reasons = []
    if arch.positions != "rotary":
        reasons.append(f"{arch.positions} positions")
    if not arch.qk_norm:
        reasons.append("attention without QK-norm")
    return reasons
