"""Who sees whom, pair by pair."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.inference import KVCache
from groundup.model import Architecture, PackedMask, fresh_model
from groundup.model.flex import see_blocks
from groundup.model.masks import see


@st.composite
def packed(draw):
    """A row of documents, each a prefix and perhaps branches: documents, branches and positions."""
    documents, branches, places = [], [], []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        prefix = draw(st.integers(1, 4))
        parts = [(0, range(prefix))]
        for branch in range(1, draw(st.integers(0, 2)) + 1):
            parts.append((branch, range(prefix, prefix + draw(st.integers(1, 3)))))
        for branch, steps in parts:
            documents += [number] * len(steps)
            branches += [branch] * len(steps)
            places += steps
    padding = draw(st.integers(0, 2))
    return [torch.tensor([x + [0] * padding]) for x in (documents, branches, places)]


def sees(documents, branches, places, window, query, key):
    """The definition."""
    if key > query or documents[query] != documents[key]:
        return False
    if branches is not None and branches[key] not in (0, branches[query]):
        return False
    return window is None or places[query] - places[key] < window


@given(packed(), st.one_of(st.none(), st.integers(1, 5)), st.booleans())
@settings(max_examples=30)
def test_packed_rows(row, window, branching):
    documents, branches, places = row
    mask = PackedMask(documents, branches if branching else None)
    dense = see(mask.dense(), places, places, window, distances=True)
    blocks = see_blocks(mask, places, window)
    assert blocks.blocks is not None
    assert blocks.mask is None
    listed = [x[0].tolist() if x is not None else None for x in (documents, mask.branches, places)]
    length = documents.shape[1]
    for query in range(length):
        for key in range(length):
            expected = sees(*listed, window, query, key)
            assert dense.mask[0, 0, query, key].item() == expected
            at = (torch.tensor(n) for n in (0, 0, query, key))
            assert blocks.blocks.mask_mod(*at).item() == expected
            assert dense.distance[0, 0, query, key].item() == listed[2][query] - listed[2][key]


@pytest.mark.parametrize("window", [None, 1, 3])
def test_a_plain_row(window):
    places = torch.arange(6)[None]
    sight, blocks = see(None, places, places, window, distances=False), see_blocks(None, places, window)
    assert (sight.mask is None) == (window is None)
    assert sight.distance is None
    for query in range(6):
        for key in range(6):
            expected = key <= query and (window is None or query - key < window)
            if sight.mask is not None:
                assert sight.mask[0, 0, query, key].item() == expected
            assert blocks.blocks.mask_mod(*(torch.tensor(n) for n in (0, 0, query, key))).item() == expected


def test_a_window_over_a_cache_counts_positions_not_columns():
    """Two rows padded on the left by 0 and 2: the same token sees as many keys in both."""
    positions = torch.tensor([[4], [4]])
    keys = torch.tensor([[0, 1, 2, 3, 4, 0, 0], [0, 0, 0, 1, 2, 3, 4]])
    real = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1]]).bool()[:, None, None]
    sight = see(real, positions, keys, 2, distances=False)
    assert sight.mask.squeeze().tolist() == [
        [False, False, False, True, True, False, False],
        [False, False, False, False, False, True, True],
    ]


def test_packed_documents_over_a_cache_are_refused():
    """They are of the new tokens alone, and would let one token see every document in the cache."""
    arch = Architecture(vocabulary_size=9, layers=1, hidden_size=8, heads=2, kv_heads=2, intermediate_size=8)
    model, cache = fresh_model(arch, 0), KVCache(arch, 1, 4, dtype=torch.float32, device=torch.device("cpu"))
    ids = torch.tensor([[1, 2, 3]])
    model(ids, positions=torch.arange(3)[None], mask=PackedMask(torch.tensor([[1, 1, 2]])), cache=cache)
    cache.advance(3)
    with pytest.raises(ValueError, match="packed documents don't say"):
        model(ids[:, :1], positions=torch.tensor([[1]]), mask=PackedMask(torch.tensor([[2]])), cache=cache)
