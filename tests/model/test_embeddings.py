"""What is added to embeddings and values: pairs of tokens, tables of values, scale and norm."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.inference import KVCache
from groundup.model import Architecture, PackedMask, fresh_model
from groundup.model.context import make_context
from groundup.model.embeddings import bigram_embeddings, bigram_rows, ids_before
from groundup.model.norm import RMSNorm

SHAPE = {"vocabulary_size": 31, "layers": 3, "hidden_size": 16, "heads": 4, "kv_heads": 2, "intermediate_size": 24}


def make(**changes):
    model = fresh_model(Architecture(**{**SHAPE, **changes}), 0).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


def begin(model, ids, **where):
    context = make_context(model.arch, ids, where.get("positions"), where.get("mask"), None)
    return model.model.begin(context)


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)), min_size=1), st.integers(1, 10**6))
def test_rows_of_pairs(pairs, rows):
    before, ids = torch.tensor(pairs).T
    found = bigram_rows(before[None], ids[None], rows)[0]
    assert found.tolist() == [(a * 2_246_822_519 + b * 3_266_489_917 + 1) % rows for a, b in pairs]


def test_pairs_fill_their_table_evenly():
    """65 536 pairs over 1000 rows: each gets 65.5, more or less, and (a, b) is seldom where (b, a) is, nor pairs of
    neighbours in one row, as chance would have it."""
    ids = torch.arange(256)
    rows = bigram_rows(ids.repeat_interleave(256)[None], ids.repeat(256)[None], 1000)
    counts = torch.bincount(rows[0], minlength=1000)
    assert 40 < counts.min() <= counts.max() < 95
    table = rows.view(256, 256)
    assert (table == table.T).double().mean() < 1 / 256 + 2 / 1000
    for down in range(5):
        for right in range(-4, 5):
            if (down, right) > (0, 0):
                moved = table.roll((down, right), (0, 1))
                assert (moved == table)[8:-8, 8:-8].double().mean() < 0.005


def test_bigram_embeddings():
    table = torch.randn(50, 16, dtype=torch.float64).requires_grad_()
    ids, places = torch.tensor([[3, 5, 3, 9]]), torch.tensor([[0, 1, 0, 1]])
    before = torch.tensor([[29, 3, 5, 3]])
    found = bigram_embeddings(before, ids, places, table)
    assert found[0, [0, 2]].abs().max() == 0
    for t, (a, b) in ((1, (3, 5)), (3, (3, 9))):
        assert torch.equal(found[0, t], table[(a * 2_246_822_519 + b * 3_266_489_917 + 1) % 50])
    assert torch.autograd.gradcheck(lambda w: bigram_embeddings(before, ids, places, w), (table,))


@given(st.data())
@settings(max_examples=40)
def test_the_id_before_is_of_the_same_document_and_branch(data):
    ids, documents, branches, places, expected = [], [], [], [], []
    for number in range(1, data.draw(st.integers(1, 3)) + 1):
        prefix = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=3))
        parts = [(0, prefix)]
        for branch in range(1, data.draw(st.integers(0, 2)) + 1):
            parts.append((branch, data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=3))))
        for branch, tokens in parts:
            text = tokens if branch == 0 else prefix + tokens
            start = len(text) - len(tokens)
            expected += [None if t == 0 else text[t - 1] for t in range(start, len(text))]
            ids += tokens
            documents += [number] * len(tokens)
            branches += [branch] * len(tokens)
            places += range(start, len(text))
    mask = PackedMask(torch.tensor([documents]), torch.tensor([branches]))
    found = ids_before(torch.tensor([ids]), mask)[0].tolist()
    assert [f for f, e in zip(found, expected, strict=True) if e is not None] == [e for e in expected if e is not None]
    unbranched = ids_before(torch.tensor([ids]), PackedMask(torch.tensor([documents])))[0].tolist()
    assert unbranched == [0, *ids[:-1]] == ids_before(torch.tensor([ids]), None)[0].tolist()


def test_no_place_reads_a_later_id_even_in_a_row_that_begins_in_the_middle():
    """Positions that don't begin at 0: the first place knows of no id before it."""
    model, places = make(bigram_rows=50), torch.arange(7, 12)[None]
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[1, 2, 3, 4, 6]])
    with torch.no_grad():
        assert torch.equal(begin(model, ids, positions=places)[:, :4], begin(model, other, positions=places)[:, :4])


def test_a_cache_remembers_the_id_before():
    model = make(bigram_rows=50)
    cache = KVCache(model.arch, 2, 5, dtype=torch.float64, device=torch.device("cpu"))
    ids, columns = torch.tensor([[7, 8, 9, 10, 11], [0, 0, 5, 6, 7]]), torch.arange(5)
    firsts = torch.tensor([0, 2])
    places = (columns - firsts[:, None]).clamp(min=0)
    parts = []
    for start, end in ((0, 2), (2, 3), (3, 5)):
        mask = torch.ones(2, 1, end - start, end, dtype=torch.bool)
        context = make_context(model.arch, ids[:, start:end], places[:, start:end], mask, cache)
        parts.append(model.model.begin(context))
        cache.advance(end - start)
    found = torch.cat(parts, 1)
    torch.testing.assert_close(found[:1], begin(model, ids[:1]))
    torch.testing.assert_close(found[1:, 2:], begin(model, ids[1:, 2:]))


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
def test_what_the_first_block_reads(positions, norm, scale):
    model = make(positions=positions, embedding_norm=norm, embedding_scale=scale, bigram_rows=20)
    ids = torch.tensor([[3, 1, 4, 1]])
    expected = model.model.embed_tokens.weight[ids] * (4 if scale else 1)
    if positions == "learned":
        expected = expected + model.model.embed_positions.weight[:4]
    if positions == "sinusoidal":
        expected = expected + model.model.position_table[:4]
    expected = expected + bigram_embeddings(
        torch.tensor([[0, 3, 1, 4]]), ids, torch.arange(4)[None], model.model.embed_bigrams.weight
    )
    if norm:
        expected = RMSNorm(16, model.arch.norm_eps, gains=False)(expected)
    torch.testing.assert_close(begin(model, ids), expected, rtol=1e-12, atol=1e-12)


def test_value_embeddings():
    """Every other layer, the last included; v + 2 · sigmoid(gate · x) · row, a number for each head."""
    model = make(value_embeddings=True)
    assert list(model.model.value_embeddings) == ["0", "2"]
    assert model.model.layers[1].self_attn.value_gate is None
    ids, x = torch.tensor([[3, 1, 4, 1]]), torch.randn(1, 4, 16, dtype=torch.float64)
    attention, seen = model.model.layers[2].self_attn, []

    def kernel(q, k, v, sight, rule):
        seen.append(v)
        return q

    context = make_context(model.arch, ids, None, None, None, kernel)
    attention(x, context, model.model.extra(2, ids))
    rows = model.model.value_embeddings["2"].weight[ids].view(1, 4, 2, 4)
    gate = 2 * torch.sigmoid(x @ attention.value_gate.weight.T)
    expected = attention.v_proj(x).view(1, 4, 2, 4) + gate[..., None] * rows
    torch.testing.assert_close(seen[0], expected.transpose(1, 2), rtol=1e-12, atol=1e-12)
    assert model.model.extra(1, ids) is None
    fresh = fresh_model(model.arch, 0)
    assert fresh.model.layers[0].self_attn.value_gate.weight.abs().max() == 0  # a factor of 1


def test_dropout_of_embeddings():
    model, ids = make(dropout=0.5), torch.tensor([[3, 1, 4, 1]])
    exact = begin(model, ids)
    model.train()
    dropped = begin(model, ids)
    assert ((dropped == 0) | torch.isclose(dropped, 2 * exact)).all()
    assert 0 < (dropped == 0).double().mean() < 1
