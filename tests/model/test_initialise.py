"""Fresh weights: how each part begins, and attention that begins as look-up."""

import functools

import pytest
import torch

from groundup.model import Architecture, Transformer, attention_weights, fresh_model, initialise, renew_blocks

ARCH = Architecture(
    vocabulary_size=300,
    layers=3,
    hidden_size=128,
    heads=4,
    kv_heads=4,
    head_dim=32,
    intermediate_size=64,
    context_length=256,
    rope_theta=1e6,
    initializer_range=0.3,
    attention_start="lookup",
)


@functools.cache
def fresh(seed=3, **changes):
    model = Transformer(ARCH.replace(**changes))
    initialise(model, seed)
    return model


def different_tokens(count, seed=0):
    return torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:count]


def test_half_of_the_first_heads_look_one_back_the_others_a_few_back():
    first = attention_weights(fresh(), different_tokens(200))[0]
    for head in (0, 1):
        assert first[head].diagonal(-1)[10:].mean() > 0.6
    for head in (2, 3):
        near = sum(first[head].diagonal(-back)[40:].mean() for back in range(1, 6))
        assert near > 0.7
        assert first[head].diagonal(-3)[40:].mean() > first[head].diagonal(-6)[40:].mean()


def weight_on(target, head, said_again_at):
    """Mean over models and texts of 120 tokens of the weight that a head of the second block gives from the last one.

    Of several models, since what one of them draws makes it two or three times as much, or half.
    """
    total = 0.0
    for seed in range(10):
        for text in range(8):
            ids = different_tokens(120, text)
            ids[said_again_at] = ids[40]
            total += attention_weights(fresh(seed), ids)[1][head, -1, target].item() / 80
    return total


def test_an_induction_head_finds_what_followed_the_same_word_before():
    found, unasked = (weight_on(41, head=1, said_again_at=place) for place in (-1, 60))
    assert found > 5 / 120
    assert unasked < found / 3


def test_a_word_just_said_is_found_where_it_stood_before():
    found, unasked = (weight_on(40, head=0, said_again_at=place) for place in (-2, 60))
    assert found > 3 / 120
    assert unasked < found / 3


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_other_queries_of_a_group_begin_at_random_and_add_nothing(kv_heads):
    model, group = fresh(kv_heads=kv_heads), 4 // kv_heads
    for block in model.model.layers:
        output = block.self_attn.o_proj.weight.view(128, 4, 32)
        written = [head for head in range(4) if output[:, head].abs().sum() > 0]
        assert written == list(range(0, 4, group))
        queries = block.self_attn.q_proj.weight.view(4, 32, 128)
        assert torch.isfinite(queries).all()
        assert (queries.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize(("width", "heads"), [(8, 2), (128, 4), (64, 8)])
def test_any_head_width_gives_finite_weights(width, heads):
    model = fresh(head_dim=width, heads=heads, kv_heads=heads)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert torch.isfinite(model(different_tokens(50)[None])).all()


@pytest.mark.parametrize(
    "changes", [{"positions": "learned"}, {"qk_norm": False}, {"head_dim": 256}, {"norm_placement": "sandwich"}]
)
def test_what_look_up_needs_is_asked_for(changes):
    with pytest.raises(ValueError, match='"lookup" needs'):
        ARCH.replace(**changes)


def test_renewed_blocks_are_those_of_the_beginning_and_the_rest_stays():
    model = Transformer(ARCH)
    initialise(model, 3)
    begun = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    renew_blocks(model, 2, seed=3)
    for name, weight in model.state_dict().items():
        renewed = name.startswith(("model.layers.1.", "model.layers.2."))
        assert torch.equal(weight, begun[name] if renewed else begun[name] + 1.0), name
    with pytest.raises(ValueError, match="4 blocks of 3"):
        renew_blocks(model, 4, seed=3)


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich", "output"])
@pytest.mark.parametrize("offset", [False, True])
def test_blocks_begin_by_adding_nothing_and_open_gently(placement, offset):
    """A first update adds to the stream less than what is there, wherever the norms stand."""
    arch = Architecture(**WIDE, norm_placement=placement, norm_offset=offset)
    model = fresh_model(arch, 0)
    ids = torch.randint(0, 500, (4, 64), generator=torch.Generator().manual_seed(0))

    def added():
        """rms of what the first block adds, over that of what comes in."""
        found = []
        with model.model.layers[0].register_forward_hook(lambda _, given, out: found.append((given[0], out))):
            model(ids)
        before, after = found[0]
        if placement == "post":  # which norms the stream itself
            before = before / before.square().mean(-1, keepdim=True).sqrt()
        return ((after - before).square().mean() / before.square().mean()).sqrt().item()

    assert added() < 1e-3
    torch.nn.functional.cross_entropy(model.logits(model(ids))[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 1e-3 * weight.grad.sign()
    assert 1e-4 < added() < 1


@pytest.mark.parametrize("placement", ["sandwich", "output"])
def test_norms_without_gains_cannot_begin_closed(placement):
    with pytest.raises(ValueError, match="norm_gains = true"):
        Architecture(**WIDE, norm_placement=placement, norm_gains=False)
    Architecture(**WIDE, norm_placement=placement, norm_gains=False, residual_start="scaled")


def test_what_architectures_share_begins_alike():
    plain = fresh_model(Architecture(**WIDE), 5).state_dict()
    other = fresh_model(Architecture(**WIDE, positions="learned", tied_embeddings=False), 5).state_dict()
    assert plain.keys() < other.keys()
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    assert not torch.equal(
        plain["model.embed_tokens.weight"],
        fresh_model(Architecture(**WIDE), 6).state_dict()["model.embed_tokens.weight"],
    )


WIDE = {
    "vocabulary_size": 500,
    "layers": 4,
    "hidden_size": 128,
    "heads": 4,
    "kv_heads": 4,
    "intermediate_size": 256,
    "context_length": 64,
}
STARTS = [
    # options, parameter, its standard deviation
    ({}, "model.embed_tokens.weight", 0.02),
    ({"tied_embeddings": False, "initializer_range": 0.3}, "lm_head.weight", 0.3),
    ({"positions": "learned"}, "model.embed_positions.weight", 0.02),
    ({}, "model.layers.2.self_attn.q_proj.weight", 128**-0.5),
    ({}, "model.layers.2.mlp.up_proj.weight", 128**-0.5),
    ({}, "model.layers.2.mlp.down_proj.weight", 0.0),
    ({}, "model.layers.2.self_attn.o_proj.weight", 0.0),
    ({"residual_start": "scaled"}, "model.layers.2.mlp.down_proj.weight", (256 * 8) ** -0.5),
    ({"residual_start": "scaled"}, "model.layers.2.self_attn.o_proj.weight", (128 * 8) ** -0.5),
    ({"experts": {"count": 8, "per_token": 2}}, "model.layers.0.mlp.gate.weight", (0.1 / 128) ** 0.5),
    ({"experts": {"count": 8, "per_token": 2}}, "model.layers.0.mlp.experts.up_proj", 128**-0.5),
    ({"experts": {"count": 8, "per_token": 2}}, "model.layers.0.mlp.experts.down_proj", 0.0),
    (
        {"experts": {"count": 8, "per_token": 2}, "residual_start": "scaled"},
        "model.layers.0.mlp.experts.down_proj",
        (256 * 8) ** -0.5,
    ),
    (
        {"experts": {"count": 8, "per_token": 2, "shared": 2}, "residual_start": "scaled"},
        "model.layers.0.mlp.shared_experts.down_proj.weight",
        (512 * 8) ** -0.5,
    ),
    ({"value_embeddings": True}, "model.value_embeddings.3.weight", 128**-0.5),
    ({"value_embeddings": True}, "model.layers.3.self_attn.value_gate.weight", 0.0),
    ({"bigram_rows": 90}, "model.embed_bigrams.weight", 0.0),
    ({"biases": "all"}, "model.layers.1.mlp.up_proj.bias", 0.0),
    ({"attention_sinks": True}, "model.layers.1.self_attn.sinks", 0.0),
    ({"x0_skip": True}, "model.layers.1.x0_scale", 0.0),
    ({"predict_ahead": 1}, "model.ahead.layers.0.projection.weight", 256**-0.5),
    ({"predict_ahead": 1}, "model.ahead.layers.0.block.mlp.down_proj.weight", 0.0),
    (
        {"qk_norm": "none", "latent": {"kv_rank": 96, "rotary_dim": 16}},
        "model.layers.0.self_attn.kv_b_proj.weight",
        96**-0.5,
    ),
]
CONSTANTS = [
    ({}, "model.norm.weight", 1.0),
    ({}, "model.layers.0.self_attn.q_norm.weight", 1.0),
    ({"norm_offset": True}, "model.layers.0.input_layernorm.weight", 0.0),
    ({"norm": "layer", "biases": "all"}, "model.norm.weight", 1.0),
    ({"norm": "layer", "biases": "all"}, "model.norm.bias", 0.0),
    ({"residual_scalars": True}, "model.layers.0.residual_scale", 1.0),
    ({"predict_ahead": 1, "norm_offset": True}, "model.ahead.layers.0.hidden_norm.weight", 1.0),
    ({"predict_ahead": 1, "norm_offset": True}, "model.ahead.layers.0.block.input_layernorm.weight", 0.0),
]


@pytest.mark.parametrize(("changes", "name", "deviation"), STARTS)
def test_each_part_begins_with_its_deviation(changes, name, deviation):
    """Within five standard errors of n draws, deviation / sqrt(2n), and about 0."""
    weight = fresh_model(Architecture(**{**WIDE, **changes}), 0).get_parameter(name).detach()
    if deviation == 0:
        assert weight.abs().max() == 0
        return
    error = deviation / (2 * weight.numel()) ** 0.5
    assert weight.double().std().item() == pytest.approx(deviation, abs=5 * error)
    assert weight.double().mean().item() == pytest.approx(0, abs=5 * 2**0.5 * error)


@pytest.mark.parametrize(("changes", "name", "value"), CONSTANTS)
def test_gains_and_scalars_begin_at_their_value(changes, name, value):
    weight = fresh_model(Architecture(**{**WIDE, **changes}), 0).get_parameter(name)
    assert weight.unique().tolist() == [value]


EVERYTHING = {
    "positions": "sinusoidal",
    "experts": {"count": 4, "per_token": 2, "shared": 1, "dense_layers": 1},
    "attention_sinks": True,
    "residual_scalars": True,
    "x0_skip": True,
    "value_embeddings": True,
    "bigram_rows": 70,
    "predict_ahead": 1,
    "tied_embeddings": False,
    "residual_start": "scaled",
    "biases": "qkv",
}


def test_without_memory_first_is_the_same_to_the_bit_and_so_is_the_same_seed():
    """Also the table of sinusoids, which no file holds."""
    arch = Architecture(**{**WIDE, **EVERYTHING})
    built = Transformer(arch)
    initialise(built, 5)
    torch.manual_seed(99)
    fresh, again, other = fresh_model(arch, 5), fresh_model(arch, 5), fresh_model(arch, 6)
    assert torch.equal(fresh.model.position_table, built.model.position_table)
    for name, weight in built.named_parameters():
        assert torch.equal(fresh.get_parameter(name), weight)
        assert torch.equal(again.get_parameter(name), weight)
        if weight.unique().numel() > 1:
            assert not torch.equal(other.get_parameter(name), weight)
    ids = different_tokens(20)[None]
    with torch.no_grad():
        assert torch.equal(fresh.eval()(ids), built.eval()(ids))


def test_no_random_state_is_touched():
    state = torch.random.get_rng_state()
    fresh_model(Architecture(**WIDE), 0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 16163.484757162967),
        ({"kv_heads": 4, "tied_embeddings": False}, 26790.709744026735),
        ({"kv_heads": 4, "positions": "learned"}, 27171.465187304708),
        ({"attention_start": "lookup"}, 14488.043031313804),
        ({"kv_heads": 4, "tied_embeddings": False, "attention_start": "lookup"}, -15684.086759962614),
    ],
)
def test_a_seed_gives_the_same_weights_in_every_version(changes, expected):
    """A sum in which each weight of seed 7 counts by its place."""
    shape = {"vocabulary_size": 37, "layers": 2, "hidden_size": 16, "heads": 4, "kv_heads": 2, "head_dim": 4}
    arch = Architecture(**{**shape, "intermediate_size": 24, "context_length": 32, **changes})
    total = 0.0
    for place, (_, weight) in enumerate(sorted(fresh_model(arch, 7).named_parameters()), start=1):
        flat = weight.detach().double().flatten()
        total += place * (flat * torch.arange(1, len(flat) + 1)).sum().item()
    assert total == pytest.approx(expected, rel=1e-6)
