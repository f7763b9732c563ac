"""The original encoder-decoder: its formulas in float64, its masks, its cache, its loss, its beginning."""

import math

import pytest
import torch

from groundup.model import (
    IGNORE,
    EncoderDecoder,
    EncoderDecoderArchitecture,
    Head,
    Memory,
    MultiHeadAttention,
    attend_reference,
    encoder_decoder_flops,
    initialise_encoder_decoder,
    smoothed_cross_entropy_sum,
)

ARCH = EncoderDecoderArchitecture(
    layers=2,
    hidden_size=16,
    heads=2,
    intermediate_size=24,
    context_length=12,
    dropout=0.5,
    source_vocabulary=11,
    target_vocabulary=11,
)
SOURCE = torch.tensor([[5, 6, 7, 2, 0], [9, 4, 8, 10, 2]])
TARGET = torch.tensor([[1, 4, 5, 6], [1, 7, 0, 0]])


def changed(**changes) -> EncoderDecoderArchitecture:
    return EncoderDecoderArchitecture.model_validate(ARCH.model_dump() | changes)


def made(arch: EncoderDecoderArchitecture = ARCH, seed: int = 1) -> EncoderDecoder:
    """A model in float64, every gain and bias off its beginning so that none can be left out unseen."""
    model = EncoderDecoder(arch)
    initialise_encoder_decoder(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.double().eval()


def test_attention_is_the_formula_head_by_head():
    """Concat(head_1 … head_h) W^O with head_i = softmax(Q W_i^Q (K W_i^K)ᵀ / √d_k) V W_i^V, in plain loops."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(ARCH).double()
    value, key, query = torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    value, key, query = value.double(), key.double(), query.double()
    mask = torch.rand(2, 1, 3, 5) > 0.4
    mask[..., 0] = True
    heads = []
    for head in range(2):
        rows = slice(8 * head, 8 * head + 8)
        q, k, v = (
            x @ projection.weight[rows].T
            for x, projection in ((query, attention.q_proj), (key, attention.k_proj), (value, attention.v_proj))
        )
        scores = torch.zeros(2, 3, 5, dtype=torch.float64)
        for b in range(2):
            for t in range(3):
                for s in range(5):
                    scores[b, t, s] = q[b, t] @ k[b, s] / math.sqrt(8) if mask[b, 0, t, s] else -math.inf
        heads.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ v)
    expected = torch.cat(heads, dim=-1) @ attention.o_proj.weight.T
    assert torch.allclose(attention(value, key, query, mask), expected, atol=1e-12)


def by_hand(model: EncoderDecoder, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Hidden states of one pair [1, T, D], sublayer by sublayer, with the written-out attention."""
    width = model.arch.hidden_size

    def attend(part: MultiHeadAttention, query, memory, mask):
        q, k, v = (
            projection(x).view(1, -1, 2, 8).transpose(1, 2)
            for projection, x in ((part.q_proj, query), (part.k_proj, memory), (part.v_proj, memory))
        )
        return part.o_proj(attend_reference(q, k, v, mask)[0].transpose(1, 2).reshape(1, -1, width))

    def norm(part, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + part.eps).sqrt() * part.weight + part.bias

    def mlp(part, x):
        inner = (x @ part.up_proj.weight.T + part.up_proj.bias).clamp(min=0)
        return inner @ part.down_proj.weight.T + part.down_proj.bias

    def embed(ids):
        angles = [[place / 10_000 ** (2 * (i // 2) / width) for i in range(width)] for place in range(ids.shape[1])]
        table = [[math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(row)] for row in angles]
        return model.embed_target.weight[ids] * math.sqrt(width) + torch.tensor(table, dtype=torch.float64)

    everything = torch.ones(1, 1, 1, source.shape[1], dtype=torch.bool)
    x = embed(source)
    for block in model.encoder.layers:
        x = norm(block.self_attn_layer_norm, x + attend(block.self_attn, x, x, everything))
        x = norm(block.mlp_layer_norm, x + mlp(block.mlp, x))
    memory, x = x, embed(target)
    for block in model.decoder.layers:
        x = norm(block.self_attn_layer_norm, x + attend(block.self_attn, x, x, None))
        x = norm(block.cross_attn_layer_norm, x + attend(block.cross_attn, x, memory, everything))
        x = norm(block.mlp_layer_norm, x + mlp(block.mlp, x))
    return x


def test_the_whole_model_is_the_paper_written_out():
    model = made()
    source, target = SOURCE[1:], TARGET[:1]
    # The sinusoids are kept in float32, which is what the tolerance is for.
    assert torch.allclose(model(source, target), by_hand(model, source, target), atol=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    model = made()
    targets = torch.tensor([[4, 5, 6, 2], [7, 2, IGNORE, IGNORE]])

    def loss() -> torch.Tensor:
        logits = model.logits(model(SOURCE, TARGET))[targets != IGNORE]
        return torch.nn.functional.cross_entropy(logits, targets[targets != IGNORE], reduction="sum")

    loss().backward()
    for name, weight in model.named_parameters():
        flat, at = weight.data.view(-1), weight.numel() // 2
        kept, step = flat[at].item(), 1e-5
        values = []
        for sign in (1, -1):
            flat[at] = kept + sign * step
            with torch.no_grad():
                values.append(loss().item())
        flat[at] = kept
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(weight.grad.view(-1)[at].item(), abs=1e-6), name


def test_a_later_word_changes_nothing_before_it():
    model = made()
    before = model(SOURCE, TARGET)
    other = TARGET.clone()
    other[:, 3] = 9
    after = model(SOURCE, other)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_padding_of_the_source_is_not_looked_at():
    model = made()
    alone = model(SOURCE[:1, :4], TARGET[:1])
    assert torch.allclose(model(SOURCE, TARGET)[:1], alone, atol=1e-12)
    unmasked = model.decode(TARGET[:1], Memory(model.encode(SOURCE[:1]).source, torch.ones(1, 1, 1, 5).bool()))
    assert not torch.allclose(unmasked, alone, atol=1e-3)  # the mask did it


def test_word_by_word_with_the_memory_equals_all_at_once():
    model = made()
    whole, memory = model(SOURCE, TARGET), model.encode(SOURCE)
    pieces = [model.decode(TARGET[:, begin:end], memory) for begin, end in ((0, 1), (1, 3), (3, 4))]
    assert memory.length == 4
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-12)


def test_rows_of_the_memory_are_taken_over_in_any_order():
    model = made()
    memory = model.encode(SOURCE)
    model.decode(TARGET[:, :2], memory)
    memory.keep(torch.tensor([1, 0, 1]))
    rows = torch.tensor([[4], [6], [8]])
    begun = TARGET[[1, 0, 1], :2]
    expected = model(SOURCE[[1, 0, 1]], torch.cat((begun, rows), dim=1))[:, 2:]
    assert torch.allclose(model.decode(rows, memory), expected, atol=1e-12)


@pytest.mark.parametrize(("embeddings", "matrices"), [("shared", 1), ("tied", 2), ("separate", 3)])
def test_embeddings_are_shared_as_asked(embeddings, matrices):
    arch = changed(embeddings=embeddings, source_vocabulary=11 if embeddings == "shared" else 13)
    model = made(arch)
    tables = {name: weight for name, weight in model.named_parameters() if name.startswith(("embed", "lm_head"))}
    assert len(tables) == matrices
    assert (model.head.weight is model.embed_target.weight) == (embeddings != "separate")
    assert model.logits(model(SOURCE, TARGET)).shape == (2, 4, 11)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one vocabulary"):
        changed(source_vocabulary=12)
    with pytest.raises(ValueError, match="multiple of heads"):
        changed(heads=3)
    with pytest.raises(IndexError, match="context is 12"):
        made()(torch.ones(1, 13, dtype=torch.int64), TARGET[:1])


def test_dropout_in_training_alone():
    model = made()
    assert torch.equal(model(SOURCE, TARGET), model(SOURCE, TARGET))
    model.train()
    assert not torch.allclose(model(SOURCE, TARGET), model(SOURCE, TARGET))


def test_the_beginning_is_a_function_of_the_seed_and_as_wide_as_glorot_says():
    arch = changed(hidden_size=64, intermediate_size=192, source_vocabulary=400, target_vocabulary=400)
    one, same, other = (EncoderDecoder(arch) for _ in range(3))
    for model, seed in ((one, 1), (same, 1), (other, 2)):
        initialise_encoder_decoder(model, seed)
    for name, weight in one.named_parameters():
        assert torch.equal(weight, dict(same.named_parameters())[name])
        if name.startswith("embed"):
            assert weight.std().item() * math.sqrt(64) == pytest.approx(1.0, rel=0.05)
        elif weight.ndim == 2:
            limit = math.sqrt(6 / sum(weight.shape))
            assert 0.97 * limit < weight.abs().max() <= limit
            assert weight.std().item() == pytest.approx(math.sqrt(2 / sum(weight.shape)), rel=0.05)
            assert not torch.equal(weight, dict(other.named_parameters())[name])
        else:
            assert torch.equal(weight, torch.full_like(weight, 0.0 if name.endswith("bias") else 1.0))


def test_the_smoothed_loss_is_the_cross_entropy_against_the_smoothed_target():
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 3, 5, dtype=torch.float64), Head(torch.randn(7, 5, dtype=torch.float64))
    targets = torch.tensor([[1, 6, IGNORE], [0, IGNORE, 3]])
    expected = 0.0
    for b, t, right in ((0, 0, 1), (0, 1, 6), (1, 0, 0), (1, 2, 3)):
        logprobs = (head.weight @ hidden[b, t]).log_softmax(-1)
        wanted = torch.full((7,), 0.1 / 7, dtype=torch.float64)
        wanted[right] += 0.9
        expected -= float(wanted @ logprobs)
    assert smoothed_cross_entropy_sum(hidden, head, targets, 0.1).item() == pytest.approx(expected, rel=1e-6)
    plain = smoothed_cross_entropy_sum(hidden, head, targets, 0.0)
    halves = sum(smoothed_cross_entropy_sum(hidden[i : i + 1], head, targets[i : i + 1], 0.0) for i in (0, 1))
    assert plain.item() == pytest.approx(halves.item(), rel=1e-6)


def test_flops_count_the_products_of_both_sides():
    """One layer of width 8, inner 16, 10 words, a source of 3 and a target of 2."""
    arch = changed(layers=1, hidden_size=8, intermediate_size=16, source_vocabulary=10, target_vocabulary=10)
    encoder = 3 * (4 * 64 + 2 * 8 * 16)
    decoder = (
        2 * (4 * 64 + 2 * 64 + 2 * 8 * 16) + 3 * 2 * 64
    )  # cross-attention: q and o of the target, k and v of the source
    attention = 2 * 8 * (3 * 3 + 2 * 2 / 2 + 3 * 2)  # scores and sums: two products, causal ones by half
    forward = 2 * (encoder + decoder + 2 * 8 * 10 + attention)
    assert encoder_decoder_flops(arch, 3, 2, 1) == 3 * forward
