"""A block's norms, scalars and skips where the architecture says, and whole layers of two layouts."""

import pytest
import torch
import torch.nn.functional as F
from transformers import Gemma2Config, Olmo2Config
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer
from transformers.models.olmo2.modeling_olmo2 import Olmo2DecoderLayer

from groundup.model import Architecture, Block
from groundup.model.context import make_context
from groundup.model.positions import rotary_table

SHAPE = {"vocabulary_size": 9, "layers": 2, "hidden_size": 16, "heads": 4, "kv_heads": 2, "intermediate_size": 24}


def make(layer=0, dtype=torch.float64, **changes):
    arch = Architecture(**{**SHAPE, **changes})
    torch.manual_seed(0)
    block = Block(arch, layer)
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.4)
    return arch, block.to(dtype).eval()


def some(dtype=torch.float64, seed=1):
    return torch.randn(2, 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def context_of(arch):
    return make_context(arch, torch.zeros(2, 6, dtype=torch.long), None, None, None)


FORMULAS = {
    "pre": lambda x, f, a, b: x + f(a(x)),
    "post": lambda x, f, a, b: b(x + f(x)),
    "sandwich": lambda x, f, a, b: x + b(f(a(x))),
    "output": lambda x, f, a, b: x + b(f(x)),
}
NAMES = {
    "pre": ["input_layernorm", "post_attention_layernorm"],
    "post": ["post_attention_layernorm", "post_feedforward_layernorm"],
    "sandwich": [
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ],
    "output": ["post_attention_layernorm", "post_feedforward_layernorm"],
}


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("placement", FORMULAS)
def test_placements(placement, norm):
    arch, block = make(norm_placement=placement, norm=norm)
    norms = {name: module for name, module in block.named_children() if name.endswith("layernorm")}
    assert list(norms) == NAMES[placement]
    context, x = context_of(arch), some()
    before = [norms.get("input_layernorm"), norms.get("pre_feedforward_layernorm")]
    if placement == "pre":
        before = [norms["input_layernorm"], norms["post_attention_layernorm"]]
    after = [norms.get("post_attention_layernorm"), norms.get("post_feedforward_layernorm")]
    between = FORMULAS[placement](x, lambda y: block.self_attn(y, context), before[0], after[0])
    expected = FORMULAS[placement](between, block.mlp, before[1], after[1])
    torch.testing.assert_close(block(x, context), expected, rtol=1e-12, atol=1e-12)


def test_the_residual_scalar_and_the_skip():
    arch, block = make(residual_scalars=True, x0_skip=True)
    plain_arch, plain = make()
    plain.load_state_dict({n: w for n, w in block.state_dict().items() if n not in ("residual_scale", "x0_scale")})
    x, start = some(), some(seed=2)
    expected = plain(block.residual_scale * x + block.x0_scale * start, context_of(plain_arch))
    torch.testing.assert_close(block(x, context_of(arch), start), expected, rtol=1e-12, atol=1e-12)
    assert (block.residual_scale.shape, block.x0_scale.shape) == ((1,), (1,))


@pytest.mark.parametrize("placement", FORMULAS)
def test_gradients(placement):
    arch, block = make(norm_placement=placement, residual_scalars=True, x0_skip=True)
    names, weights = zip(*block.named_parameters(), strict=True)
    context = make_context(arch, torch.zeros(1, 3, dtype=torch.long), None, None, None)

    def run(x, start, *weights):
        return torch.func.functional_call(block, dict(zip(names, weights, strict=True)), (x, context, start))

    x, start = (some(seed=seed)[:1, :3].requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(run, (x, start, *weights), fast_mode=True)


@pytest.mark.parametrize("placement", FORMULAS)
def test_dropout_of_layer_outputs(placement):
    """What a layer adds is dropped before the sum in training, and nothing is in use."""
    arch, block = make(norm_placement=placement, dropout=0.25)
    x, context = some(), context_of(arch)
    assert torch.equal(block(x, context), block(x, context))
    block.train()
    assert not torch.equal(block(x, context), block(x, context))
    ones = torch.ones(2, 6, 16, dtype=torch.float64)
    added = block._add(torch.zeros_like(ones), ones, None)
    assert set(added.unique().tolist()) == {0.0, 1 / 0.75}
    torch.manual_seed(5)
    found = block._add(x, ones, NAMES[placement][-1])
    torch.manual_seed(5)
    norm = getattr(block, NAMES[placement][-1])
    dropped = F.dropout(ones if placement == "post" else norm(ones), 0.25)
    torch.testing.assert_close(found, norm(x + dropped) if placement == "post" else x + dropped)


def run_layer(layer, x, theta):
    cos, sin = (table[:, 0] for table in rotary_table(torch.arange(6)[None], 4, theta))
    causal = torch.zeros(1, 1, 6, 6).masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), float("-inf"))
    out = layer(x, position_embeddings=(cos, sin), attention_mask=causal)
    return out[0] if isinstance(out, tuple) else out


THEIRS = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "vocab_size": 9,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "attn_implementation": "eager",
}


def test_as_olmo_2():
    arch, block = make(dtype=torch.float32, norm_placement="output", qk_norm="width")
    layer = Olmo2DecoderLayer(Olmo2Config(**THEIRS, rms_norm_eps=arch.norm_eps), 0).eval()
    layer.load_state_dict(block.state_dict())
    x = some(torch.float32)
    torch.testing.assert_close(block(x, context_of(arch)), run_layer(layer, x, arch.rope_theta), rtol=0, atol=2e-5)


def test_as_gemma_2():
    arch, block = make(
        dtype=torch.float32,
        norm_placement="sandwich",
        norm_offset=True,
        qk_norm="none",
        feed_forward="geglu_tanh",
        attention_softcap=2.0,
        attention_scale=0.25,
    )
    config = Gemma2Config(
        **THEIRS, head_dim=4, attn_logit_softcapping=2.0, query_pre_attn_scalar=16, rms_norm_eps=arch.norm_eps
    )
    layer = Gemma2DecoderLayer(config, 1).eval()
    layer.load_state_dict(block.state_dict())
    x = some(torch.float32)
    torch.testing.assert_close(block(x, context_of(arch)), run_layer(layer, x, arch.rope_theta), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("more", "weights_drop", "outputs_drop"),
    [
        ({"dropout": 0.5}, True, True),
        ({"dropout": 0.5, "attention_dropout": 0.0}, False, True),
        ({"attention_dropout": 0.5}, True, False),
    ],
)
@pytest.mark.parametrize("latent", [None, {"query_rank": 8, "kv_rank": 8, "rotary_dim": 4}])
def test_dropout_of_attention_weights_and_of_outputs(more, weights_drop, outputs_drop, latent):
    """What has none of its own gives twice the same in training, and what it gives otherwise."""
    kind = {} if latent is None else {"latent": latent, "kv_heads": 4, "qk_norm": "none"}
    arch, block = make(**more, **kind)
    context, x = context_of(arch), some()
    plain = block.self_attn(x, context)
    block.train()
    assert torch.equal(block.self_attn(x, context), plain) is not weights_drop
    assert torch.equal(block._add(x, x, None), x + x) is not outputs_drop
