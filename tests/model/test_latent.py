"""Multi-head latent attention: DeepSeek-V2's own module, the compressed cache, and gradients."""

import math

import pytest
import torch
from transformers.models.deepseek_v2.configuration_deepseek_v2 import DeepseekV2Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

from groundup.inference import KVCache
from groundup.model import Architecture
from groundup.model.context import make_context
from groundup.model.latent import LatentAttention
from groundup.model.positions import rotary_table

SHAPE = {
    "vocabulary_size": 9,
    "layers": 2,
    "hidden_size": 24,
    "heads": 3,
    "kv_heads": 3,
    "head_dim": 10,
    "qk_norm": "none",
    "context_length": 16,
}
LATENTS = {
    "plain": {"kv_rank": 14, "rotary_dim": 6},
    "queries": {"kv_rank": 14, "query_rank": 12, "rotary_dim": 6, "value_dim": 7},
}


def make(latent, **changes):
    arch = Architecture(**{**SHAPE, "latent": LATENTS[latent], **changes})
    torch.manual_seed(0)
    attention = LatentAttention(arch, 0)
    with torch.no_grad():
        for weight in attention.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.4)
    return arch, attention.double()


def some(batch=2, length=7):
    ids = torch.zeros(batch, length, dtype=torch.long)
    return ids, torch.randn(batch, length, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("latent", LATENTS)
def test_as_transformers_deepseek_v2(latent):
    """Equal in float32. DeepSeek turns the neighbours (x_2i, x_2i+1), this layout the pairs (x_i, x_i + d/2): the rows
    that make what turns change places."""
    arch, ours = make(latent)
    ours = ours.float()
    config = DeepseekV2Config(
        hidden_size=24,
        num_attention_heads=3,
        num_key_value_heads=3,
        q_lora_rank=arch.latent.query_rank,
        kv_lora_rank=14,
        qk_rope_head_dim=6,
        qk_nope_head_dim=10,
        v_head_dim=arch.value_dim,
        attn_implementation="eager",
    )
    theirs = DeepseekV2Attention(config, 0).eval()
    order = torch.tensor([0, 3, 1, 4, 2, 5])  # the place of theirs from which each of theirs is read in ours
    state = {name: weight.clone() for name, weight in ours.state_dict().items()}
    state["kv_a_proj_with_mqa.weight"][14:] = state["kv_a_proj_with_mqa.weight"][14:][order]
    queries = "q_proj.weight" if arch.latent.query_rank is None else "q_b_proj.weight"
    heads = state[queries].view(3, 16, -1)
    heads[:, 10:] = heads[:, 10:][:, order]
    theirs.load_state_dict(state)
    ids, x = some()
    cos, sin = rotary_table(torch.arange(7)[None].expand(2, -1), 6, arch.rope_theta)
    turns = torch.complex(cos[:, 0, :, :3], sin[:, 0, :, :3])
    causal = torch.zeros(2, 1, 7, 7).masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), float("-inf"))
    expected = theirs(x.float(), attention_mask=causal, position_embeddings=turns)[0]
    found = ours(x.float(), make_context(arch, ids, None, None, None))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("mscale", [1.0, 0.707])
def test_yarn_as_transformers_deepseek_v3(latent, mscale):
    """What DeepSeek's checkpoints mean: `mscale` and `mscale_all_dim` are equal, so that the rotation has no gain and
    the whole score is multiplied by (0.1 · mscale · ln factor + 1)². For V3 (mscale 1) that is our default."""
    gain = 0.1 * mscale * math.log(40.0) + 1
    scaling = {"kind": "yarn", "factor": 40, "original_context": 8}
    given = {} if mscale == 1.0 else {"attention_factor": gain}
    arch, ours = make(latent, rope_scaling={**scaling, **given}, context_length=320)
    ours = ours.float()
    assert ours.scale == pytest.approx(16**-0.5 * gain**2)
    config = DeepseekV3Config(
        hidden_size=24,
        num_attention_heads=3,
        num_key_value_heads=3,
        q_lora_rank=arch.latent.query_rank,
        kv_lora_rank=14,
        qk_rope_head_dim=6,
        qk_nope_head_dim=10,
        v_head_dim=arch.value_dim,
        max_position_embeddings=320,
        rope_interleave=False,
        attn_implementation="eager",
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": arch.rope_theta,
            "factor": 40.0,
            "original_max_position_embeddings": 8,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": mscale,
            "mscale_all_dim": mscale,
        },
    )
    theirs = DeepseekV3Attention(config, 0).eval()
    theirs.load_state_dict(ours.state_dict())
    ids, x = some()
    places = torch.arange(7)[None].expand(2, -1)
    causal = torch.zeros(2, 1, 7, 7).masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), float("-inf"))
    table = DeepseekV3RotaryEmbedding(config)(x.float(), places)
    expected = theirs(x.float(), attention_mask=causal, position_embeddings=table)[0]
    found = ours(x.float(), make_context(arch, ids, None, None, None))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("changes", [{}, {"attention_sinks": True, "window": 3}, {"attention_softcap": 1.0}])
def test_over_a_cache_nothing_is_expanded_and_all_is_equal(latent, changes):
    arch, attention = make(latent, **changes)
    ids, x = some()
    whole = attention(x, make_context(arch, ids, None, None, None))
    cache = KVCache(arch, 2, 7, dtype=torch.float64, device=torch.device("cpu"))
    for begin, end in ((0, 1), (1, 2), (2, 6), (6, 7)):
        places = torch.arange(begin, end)[None]
        mask = (torch.arange(end) <= places[0][:, None])[None, None]
        context = make_context(arch, ids[:, begin:end], places, mask, cache)
        out = attention(x[:, begin:end], context)
        cache.advance(end - begin)
        torch.testing.assert_close(out, whole[:, begin:end], rtol=0, atol=1e-12)


def test_the_cache_holds_kv_rank_and_rotary_dim_numbers_a_token():
    arch, _ = make("queries")
    assert arch.cache_shapes() == [((1, 14), (1, 6))] * 2
    cache = KVCache(arch, 5, 11, dtype=torch.float32, device=torch.device("cpu"))
    held = sum(tensor.numel() for tensor in (*cache.keys, *cache.values))
    assert held == 2 * 5 * 11 * (14 + 6)
    plain = arch.replace(latent=None)
    assert sum(h * w for shapes in plain.cache_shapes() for h, w in shapes) == 2 * 2 * 3 * 10


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("cached", [False, True])
def test_gradients(latent, cached):
    """Also through the matrices that are applied to queries and outputs over a cache."""
    arch, attention = make(latent)
    names, weights = zip(*attention.named_parameters(), strict=True)
    ids, x = some(1, 4)

    def run(x, *weights):
        named = dict(zip(names, weights, strict=True))
        if not cached:
            return torch.func.functional_call(attention, named, (x, make_context(arch, ids, None, None, None)))
        cache = Grown()
        causal = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
        first = make_context(arch, ids[:, :2], torch.tensor([[0, 1]]), causal[..., :2, :2], cache)
        one = torch.func.functional_call(attention, named, (x[:, :2], first))
        second = make_context(arch, ids[:, 2:], torch.tensor([[2, 3]]), causal[..., 2:, :], cache)
        return torch.cat((one, torch.func.functional_call(attention, named, (x[:, 2:], second))), 1)

    assert torch.autograd.gradcheck(run, (x[:1, :4].requires_grad_(), *weights), fast_mode=True)
    if cached:
        whole = attention(x[:1, :4], make_context(arch, ids, None, None, None))
        torch.testing.assert_close(run(x[:1, :4], *weights), whole, rtol=0, atol=1e-12)


class Grown:
    """A cache that grows by concatenation, through which gradients flow."""

    def __init__(self):
        self.held = None
        self.places = torch.zeros(1, 0, dtype=torch.long)

    def extend(self, ids, positions):
        self.places = torch.cat((self.places, positions), 1)
        return ids, self.places

    def update(self, layer, keys, values):
        new = (keys, values)
        self.held = new if self.held is None else tuple(torch.cat(two, 2) for two in zip(self.held, new, strict=True))
        return self.held


def test_what_does_not_go_with_it():
    for changes in ({"kv_heads": 1}, {"positions": "alibi"}, {"qk_norm": "head"}, {"value_embeddings": True}):
        with pytest.raises(ValueError, match="latent attention"):
            Architecture(**{**SHAPE, "latent": LATENTS["plain"], **changes})
