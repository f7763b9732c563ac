"""Parameters and FLOPs against published counts, `transformers`, what PyTorch counts, and closed forms."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundup.model import Architecture, Transformer, flops_per_token, initialise, parameter_count
from groundup.model.count import attention_flops, mean_keys, model_parts
from groundup.recipe import ModelSection
from groundup.recipe.architectures import architecture, architecture_names

SMALL = Architecture(
    vocabulary_size=96,
    layers=3,
    hidden_size=32,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate_size=48,
    context_length=64,
)
PUBLISHED = [name for name in architecture_names() if architecture(name).parameters is not None]
LATENT = {"kv_rank": 24, "rotary_dim": 8, "value_dim": 12, "query_rank": 20}
VARIANTS = {
    "default": {},
    "untied, biases": {"tied_embeddings": False, "biases": "all", "norm": "layer", "feed_forward": "gelu"},
    "learned positions": {"positions": "learned", "qk_norm": "none"},
    "latent": {"latent": LATENT, "kv_heads": 4, "qk_norm": "none"},
    "small-model options": {
        "value_embeddings": True,
        "bigram_rows": 50,
        "residual_scalars": True,
        "x0_skip": True,
        "attention_sinks": True,
    },
    "post-norm, sinusoidal": {"norm_placement": "post", "positions": "sinusoidal", "qk_norm": "none"},
    "sandwich": {"norm_placement": "sandwich", "norm_offset": True},
}


def of_preset(name: str) -> Architecture:
    return Architecture.from_section(ModelSection(preset=name), architecture(name).vocabulary_size)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
    assert parameter_count(of_preset(name)).total == architecture(name).parameters


def stock_model(name: str):
    """The model that `transformers` builds from a preset's numbers, on the meta device."""
    import transformers as stock

    preset, section = architecture(name), ModelSection(preset=name)
    shared = {
        "vocab_size": preset.vocabulary_size,
        "hidden_size": section.hidden_size,
        "num_hidden_layers": section.layers,
        "num_attention_heads": section.heads,
        "num_key_value_heads": section.kv_heads,
        "intermediate_size": section.intermediate_size,
        "tie_word_embeddings": section.tied_embeddings,
    }
    experts, latent, head = section.experts, section.latent, {"head_dim": section.resolved_head_dim}
    if preset.family == "gpt2":
        kind = "GPT2"
        shared = {
            "vocab_size": preset.vocabulary_size,
            "n_positions": section.context_length,
            "n_embd": section.hidden_size,
            "n_layer": section.layers,
            "n_head": section.heads,
        }
    elif preset.family == "deepseek":
        kind = "DeepseekV2"
        shared |= {
            "n_routed_experts": experts.count,
            "num_experts_per_tok": experts.per_token,
            "moe_intermediate_size": experts.intermediate_size,
            "n_shared_experts": experts.shared,
            "first_k_dense_replace": experts.dense_layers,
            "kv_lora_rank": latent.kv_rank,
            "q_lora_rank": latent.query_rank,
            "qk_rope_head_dim": latent.rotary_dim,
            "qk_nope_head_dim": section.head_dim,
            "v_head_dim": latent.value_dim,
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.707,
                "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
            },
        }  # fmt: skip
    elif name == "mixtral-8x7b":
        kind = "Mixtral"
        shared |= head | {"num_local_experts": experts.count, "num_experts_per_tok": experts.per_token}
    elif name == "qwen3-30b-a3b":
        kind = "Qwen3Moe"
        shared |= head | {"num_experts": experts.count, "moe_intermediate_size": experts.intermediate_size}
    else:
        kinds = {"llama": "Llama", "qwen3": "Qwen3", "mistral": "Mistral", "olmo-2": "Olmo2", "gemma-3": "Gemma3"}
        kind = kinds[preset.family]
        shared |= {} if kind == "Olmo2" else head
    config = "Gemma3Text" if kind == "Gemma3" else kind
    with torch.device("meta"):
        causal = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
        return getattr(stock, causal)(getattr(stock, f"{config}Config")(**shared))


def counts_as_stock(name: str) -> bool:
    return sum(weight.numel() for weight in stock_model(name).parameters()) == parameter_count(of_preset(name)).total


@pytest.mark.parametrize("name", ["gpt2", "qwen3-0.6b", "olmo-2-1b", "gemma-3-1b", "deepseek-v2-lite"])
def test_presets_are_as_large_as_in_transformers(name):
    assert counts_as_stock(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_preset_is_as_large_as_in_transformers(name):
    assert counts_as_stock(name)


def test_deepseek_scores_are_scaled_as_in_transformers():
    attention = stock_model("deepseek-v2-lite").model.layers[0].self_attn
    assert of_preset("deepseek-v2-lite").attention_scale == pytest.approx(attention.scaling, rel=1e-12)


def test_active_parameters_of_published_mixtures():
    """Mixtral's "13B active" and Qwen3's "A3B": all but (count - per token) experts of each layer."""
    mixtral, qwen = parameter_count(of_preset("mixtral-8x7b")), parameter_count(of_preset("qwen3-30b-a3b"))
    assert mixtral.active == mixtral.total - 32 * 6 * 3 * 4096 * 14336 == 12_879_925_248
    assert qwen.active == qwen.total - 48 * 120 * 3 * 2048 * 768 == 3_353_032_704


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("ladder-1m", 1), ("ladder-3m", 3), ("ladder-10m", 10), ("ladder-30m", 30), ("ladder-100m", 100),
        ("ladder-300m", 300), ("ladder-1b", 1000),
    ],
)  # fmt: skip
def test_rungs_are_as_large_as_their_names_say(name, millions):
    assert parameter_count(of_preset(name)).total == pytest.approx(millions * 1e6, rel=0.1)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_kinds_add_up_to_the_built_model(changes):
    arch = SMALL.replace(**changes)
    count = parameter_count(arch)
    assert count.total == count.active == sum(weight.numel() for weight in Transformer(arch).parameters())
    assert {part.name: part.shape for part in model_parts(arch)} == {
        name: tuple(weight.shape) for name, weight in Transformer(arch).named_parameters()
    }


def test_kinds_by_hand():
    arch = SMALL.replace(
        tied_embeddings=False,
        positions="learned",
        biases="qkv",
        experts={"count": 4, "per_token": 2, "intermediate_size": 24, "shared": 1, "dense_layers": 1},
        bigram_rows=50,
        residual_scalars=True,
    )
    count = parameter_count(arch)
    expert = 3 * 32 * 24
    assert count.embedding == count.head == 96 * 32
    assert count.positions == 64 * 32
    assert count.attention == 3 * (32 * 16 * (4 + 2 + 2) + 16 * (4 + 2 + 2) + 4 * 16 * 32)
    assert count.feed_forward == 3 * 32 * 48
    assert count.experts == 2 * (4 * 32 + 5 * expert)
    assert count.norms == 3 * (2 * 32 + 2 * 16) + 32
    assert count.other == 50 * 32 + 3
    assert count.idle == 2 * 2 * expert
    assert count.active == count.total - count.idle


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_matrix_flops_are_what_pytorch_counts(changes):
    """Forward and backward of a real model, operation by operation, less the products within attention."""
    model = Transformer(SMALL.replace(**changes))
    initialise(model, seed=0)
    ids = torch.arange(2 * 16).view(2, 16)
    with FlopCounterMode(display=False) as counter:
        model.logits(model(ids)).square().sum().backward()
    counted = {str(kind): number for kind, number in counter.get_flop_counts()["Global"].items()}
    matrices = counted["aten.mm"] + counted.get("aten.addmm", 0)
    scores = sum(attention_flops(model.arch, layer, 16) for layer in range(3))
    assert matrices == 32 * (flops_per_token(model.arch, 16) - scores)


def test_flops_of_a_mixture_are_those_of_the_experts_a_token_meets():
    """As a feed-forward layer as wide as the 2 chosen and 1 shared experts together, and the router."""
    mixture = SMALL.replace(experts={"count": 8, "per_token": 2, "intermediate_size": 24, "shared": 1})
    dense = SMALL.replace(intermediate_size=3 * 24)
    assert flops_per_token(mixture, 10) == flops_per_token(dense, 10) + 6 * 3 * 8 * 32


def test_flops_of_predicting_ahead():
    """One more block of the plain kind, a projection of two widths to one, and the head again."""
    more = SMALL.replace(layers=4)
    block = flops_per_token(more, 10) - flops_per_token(SMALL, 10)
    ahead = flops_per_token(SMALL.replace(predict_ahead=2), 10) - flops_per_token(SMALL, 10)
    assert ahead == 2 * (block + 6 * (2 * 32 * 32 + 96 * 32))


def test_full_attention_keeps_its_convention():
    """6 · layers · heads · head_dim · context, whatever the number of key heads."""
    for kv_heads in (1, 2, 4):
        arch = SMALL.replace(kv_heads=kv_heads)
        assert flops_per_token(arch, 40) - flops_per_token(arch, 20) == 6 * 3 * 4 * 16 * 20


def test_latent_attention_multiplies_its_own_widths():
    arch = SMALL.replace(latent=LATENT, kv_heads=4, qk_norm="none")
    assert attention_flops(arch, 0, 30) == 6 * 4 * (16 + 8 + 12) * 15


@pytest.mark.parametrize("window", [1, 5, 16, 31, 32, 100])
def test_keys_in_sight_of_a_window(window):
    """The mean of min(t, window) over the row, less the half key by which the triangle is counted smaller."""
    arch = SMALL.replace(window=window, window_pattern="SL")
    seen = sum(min(place, window) for place in range(1, 33)) / 32
    assert seen - 0.5 <= mean_keys(arch, 0, 32) <= seen
    assert mean_keys(arch, 1, 32) == 16
    assert mean_keys(arch, 0, 32) == (16 if window >= 32 else window - window**2 / 64)


def test_equal_architectures_are_counted_once():
    first, second = model_parts(SMALL), model_parts(SMALL.replace(layers=4).replace(layers=3))
    assert first is second
    assert replace(parameter_count(SMALL), idle=1).active == parameter_count(SMALL).total - 1
