"""Foreign config.json files: every spelling is understood, and what we have no part for is refused by name."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.interchange.fold import nearest
from groundup.interchange.importing import read_architecture
from groundup.interchange.layouts import open_config
from groundup.model import Architecture
from groundup.run import UserError

LLAMA = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN3_MOE = LLAMA | {"model_type": "qwen3_moe", "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
GEMMA = LLAMA | {"model_type": "gemma3_text", "head_dim": 8}
GPT2 = {"model_type": "gpt2", "vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}


def read(config: dict[str, Any]) -> Architecture:
    return read_architecture(*open_config(config, "config.json"))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (LLAMA | {"model_type": "mamba"}, "model_type = 'mamba' is not supported"),
        (LLAMA | {"model_type": None}, "model_type = None"),
        (LLAMA | {"hidden_act": "tanh"}, "hidden_act = 'tanh'"),
        (LLAMA | {"mlp_bias": True}, "mlp_bias = True"),
        (LLAMA | {"attention_bias": True}, "mlp_bias = False"),
        (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        (LLAMA | {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "partial_rotary_factor"),
        (LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic'"),
        (LLAMA | {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type = 'longrope'"),
        (LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "mscale": 1.0}}, "mscale = 1.0"),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate = False"),
        (LLAMA | {"rope_scaling": {"rope_type": "linear"}}, "no factor"),
        (
            LLAMA | {"rope_scaling": {"factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
            "rope_scaling.factor = 2.0",
        ),
        (
            LLAMA | {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            "rope_theta = 10000.0",
        ),
        (LLAMA | {"num_hidden_layers": 10**10}, "1 to 10,000"),
        (QWEN3_MOE | {"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA | {"auto_map": {"AutoModelForCausalLM": "code.Model"}}, "auto_map = 'code.Model'"),
        (LLAMA | {"hidden_size": "16"}, "hidden_size = '16'"),
        (LLAMA | {"num_hidden_layers": True}, "num_hidden_layers = True"),
        (LLAMA | {"num_attention_heads": 3}, "heads = 3 must be a multiple of kv_heads = 2"),
        (LLAMA | {"model_type": "qwen3", "attention_bias": True}, "attention_bias = True"),
        (LLAMA | {"model_type": "olmo2", "attention_bias": True}, "attention_bias = True"),
        (
            LLAMA | {"model_type": "qwen2", "layer_types": ["chunked_attention", "full_attention"]},
            "layer_types = 'chunked_attention'",
        ),
        (LLAMA | {"model_type": "qwen2", "layer_types": ["full_attention"]}, "one for each of 2 layers"),
        (LLAMA | {"model_type": "qwen2", "layer_types": ["sliding_attention"] * 2}, "a sliding_window that is used"),
        (
            LLAMA | {"model_type": "mistral", "layer_types": ["sliding_attention", "full_attention"]},
            "sliding_attention in all layers",
        ),
        (LLAMA | {"model_type": "qwen3_moe", "mlp_only_layers": 3}, "mlp_only_layers = 3"),
        (LLAMA | {"model_type": "qwen3_moe", "decoder_sparse_step": 0}, "decoder_sparse_step = 0"),
        (GEMMA | {"sliding_window_pattern": 0}, "sliding_window_pattern = 0"),
        (GEMMA | {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar = 0"),
        (GEMMA | {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        (GEMMA | {"rope_parameters": {"full_attention": 3}}, "full_attention = 3"),
        (QWEN3_MOE | {"mlp_only_layers": [1]}, "mlp_only_layers = [1]"),
        (QWEN3_MOE | {"decoder_sparse_step": 3}, "decoder_sparse_step = 3"),
        (QWEN3_MOE | {"num_experts_per_tok": 4}, "4 experts of 3"),
        (GEMMA | {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        (GEMMA | {"rope_parameters": {"rope_type": "default"}}, "rope_parameters.rope_type"),
        (
            GEMMA | {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_parameters.sliding_attention",
        ),
        (GEMMA | {"hidden_activation": "relu"}, "hidden_activation = 'relu'"),
        ({"model_type": "gemma3"}, "no text_config"),
        (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        (GPT2 | {"add_cross_attention": True}, "add_cross_attention = True"),
        (GPT2 | {"scale_attn_weights": False}, "scale_attn_weights = False"),
    ],
)  # fmt: skip
def test_what_has_no_part_here_is_refused_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as caught:
        read(config)
    assert named in str(caught.value)
    assert "config.json" in str(caught.value)


def test_old_and_new_names_of_settings() -> None:
    yarn = {"factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 16, "mscale": 1.0, "mscale_all_dim": 0.5}
    old = read(LLAMA | {"head_dim": None, "rope_theta": 7000.0, "rope_scaling": {"type": "yarn", **yarn}})
    new = read(LLAMA | {"rope_parameters": {"rope_type": "yarn", "rope_theta": 7000.0, **yarn}})
    assert old == new
    scaling = old.rope_scaling
    assert scaling is not None
    assert (old.rope_theta, old.head_dim, scaling.beta_fast, scaling.original_context) == (7000.0, None, 16.0, 8)
    grown = math.log(4)
    assert scaling.attention_factor == pytest.approx((0.1 * grown + 1) / (0.05 * grown + 1), abs=1e-15)
    above = read(LLAMA | {"original_max_position_embeddings": 16, "rope_scaling": {"type": "yarn", "factor": 2.0}})
    assert above.rope_scaling is not None
    assert above.rope_scaling.original_context == 16


def test_windows_in_every_spelling() -> None:
    layers = LLAMA | {"num_hidden_layers": 8}
    qwen2 = layers | {"model_type": "qwen2", "sliding_window": 5, "max_window_layers": 6}
    assert read(qwen2).window is None
    used = read(qwen2 | {"use_sliding_window": True})
    assert (used.window, [used.has_window(layer) for layer in range(8)]) == (5, [False] * 6 + [True] * 2)
    assert read(qwen2 | {"use_sliding_window": True, "sliding_window": None}).window is None
    mistral = layers | {"model_type": "mistral"}
    assert read(mistral).window == 4096  # as its class has it
    assert read(mistral | {"sliding_window": None}).window is None
    assert read(mistral | {"sliding_window": 5, "layer_types": ["sliding_attention"] * 8}).window_pattern == "S"
    gemma = layers | {"model_type": "gemma3_text", "sliding_window": 5}
    assert (read(gemma).window_pattern, read(gemma).local_rope_theta) == ("SSSSSL", 10_000.0)
    assert read(gemma | {"_sliding_window_pattern": 2}).window_pattern == "SL"
    assert read(gemma | {"sliding_window_pattern": 4}).window_pattern == "SSSL"


def test_rope_of_gemma() -> None:
    gemma = LLAMA | {"model_type": "gemma3_text", "sliding_window": 5}
    old = read(
        gemma | {"rope_theta": 3e5, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    )
    tables = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    assert old == read(gemma | {"rope_parameters": tables})
    assert (old.rope_theta, old.local_rope_theta, old.rope_scaling and old.rope_scaling.factor) == (3e5, 2e4, 8.0)
    alike = read(gemma | {"rope_parameters": dict.fromkeys(tables, tables["full_attention"])})
    assert (alike.local_rope_theta, alike.rope_scaling) == (None, old.rope_scaling)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.floats()
    | st.sampled_from(["", "yarn", "default", "gelu", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rope_type", "factor", "full_attention", "mscale", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


KINDS = ("mistral", "qwen2", "qwen3", "olmo2", "mixtral")
BASES = [LLAMA, QWEN3_MOE, GEMMA, GPT2, *(LLAMA | {"model_type": kind} for kind in KINDS)]
OPTIONS = ["rope_scaling", "rope_parameters", "rope_theta", "layer_types", "head_dim", "sliding_window", "n_inner"]
OPTIONS += ["partial_rotary_factor", "attention_bias", "mlp_only_layers", "tie_word_embeddings", "use_sliding_window"]


@settings(max_examples=80)
@given(st.data())
def test_settings_of_any_content_give_an_architecture_or_an_error_for_users(data: st.DataObject) -> None:
    """And an architecture, written down again, is read as the same."""
    base = data.draw(st.sampled_from(BASES))
    layout, _ = open_config(base, "config.json")
    keys = sorted({*base, *layout.defaults, *OPTIONS})
    changes = data.draw(st.dictionaries(st.sampled_from(keys), ANY, min_size=1, max_size=3))
    try:
        layout, found = open_config({**base, **changes}, "config.json")
        arch = read_architecture(layout, found)
    except UserError:
        return
    if layout.reasons(arch):
        return
    _, written = open_config(json.loads(json.dumps({"model_type": layout.model_type, **layout.write(arch)})), "again")
    again = read_architecture(layout, written)
    assert nearest(again.replace(head_dim=again.resolved_head_dim), layout) == nearest(
        arch.replace(head_dim=arch.resolved_head_dim), layout
    )
