"""More rows for a larger vocabulary; everything else stays the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from groundup.model.transformer import Transformer


@torch.no_grad()
def grow_vocabulary(model: Transformer, pieces: Mapping[int, Sequence[int]], *, used: int | None = None) -> Transformer:
    """A copy of a model with a row for each new token: the mean of the rows of the tokens that its text was before.

    So a new token's logit is the mean of its pieces' logits, and a token without pieces gets the mean of all rows,
    whose logit is at most that of the likeliest token, so that the old tokens' probabilities hardly fall (Hewitt 2021,
    "Initializing New Word Embeddings for Pretrained Language Models",
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html). Embedding, value embeddings, and a head that is not
    tied to the embedding each take the mean of their own rows.

    Args:
        model: stays as it is.
        pieces: new id → ids of the old vocabulary, as `extend` and `adopt` of the tokenizer give them.
        used: how many ids the old vocabulary has, where the table is padded with rows that no token uses; they are
            filled first. None: all rows of the table are used.

    Returns:
        a model of the same device, dtype and mode, its parameters fresh leaves without gradients.

    Raises:
        ValueError: new ids don't follow on from the old ones without a gap, a piece is no old id, or ``used`` is
            beyond the table.
    """
    rows = model.arch.vocabulary_size
    size = rows if used is None else used
    if not 0 < size <= rows:
        raise ValueError(f"{size} ids in use of a table of {rows} rows")
    if sorted(pieces) != list(range(size, size + len(pieces))):
        raise ValueError(f"new ids must follow on from {size} without a gap, not be {sorted(pieces)}")
    for number, parts in pieces.items():
        if not all(0 <= part < size for part in parts):
            raise ValueError(f"the pieces {list(parts)} of id {number} are not all ids below {size}")
    grown = copy.deepcopy(model)
    grown.arch = grown.model.arch = model.arch.replace(vocabulary_size=max(rows, size + len(pieces)))
    tables = [grown.model.embed_tokens, *grown.model.value_embeddings.values()]
    for table in tables:
        assert isinstance(table, nn.Embedding)
        table.num_embeddings = grown.arch.vocabulary_size
        table.weight = _grown(table.weight, pieces, size)
    if not model.arch.tied_embeddings:
        grown.lm_head.out_features = grown.arch.vocabulary_size
        grown.lm_head.weight = _grown(model.lm_head.weight, pieces, size)
    return grown


def _grown(table: Tensor, pieces: Mapping[int, Sequence[int]], size: int) -> nn.Parameter:
    """The table [rows, D] with the rows of new ids set, and as many more as they need; means are taken in float64."""
    known = table[:size].double()
    means = [known[list(parts)].mean(0) if parts else known.mean(0) for _, parts in sorted(pieces.items())]
    new = torch.stack(means).to(table.dtype) if means else table[:0]
    return nn.Parameter(torch.cat((table[:size], new, table[size + len(new) :])), requires_grad=table.requires_grad)
