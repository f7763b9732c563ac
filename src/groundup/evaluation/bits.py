"""Bits per byte over validation documents: how well a model predicts text, whatever its tokenizer."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence

from groundup.evaluation.likelihood import Row, row_logprobs
from groundup.model import IGNORE, Transformer
from groundup.run import Interval, bootstrap_ratio, progress
from groundup.tokenizer import Tokenizer

MAX_DOCUMENTS = 500
MAX_TOKENS = 200_000
"""Bounds on what is measured: enough for an interval of about one percent, quick on any machine."""
LOOKED_AT = 50_000
"""Documents among which the measured ones are drawn."""


def sample_documents(validation: Iterable[str], tokenizer: Tokenizer, *, seed: int) -> list[list[int]]:
    """The ids of at most MAX_DOCUMENTS documents and MAX_TOKENS tokens, drawn from the first LOOKED_AT.

    Drawn evenly (a reservoir), because documents of one source often stand together. The same seed draws the
    same.
    """
    rng = random.Random(f"{seed}/validation")
    kept: list[str] = []
    for number, text in enumerate(itertools.islice(validation, LOOKED_AT)):
        if len(kept) < MAX_DOCUMENTS:
            kept.append(text)
        elif (place := rng.randrange(number + 1)) < MAX_DOCUMENTS:
            kept[place] = text
    rng.shuffle(kept)
    documents: list[list[int]] = []
    room = MAX_TOKENS
    for ids in tokenizer.encode_batch(kept):
        if room > 1 and len(ids) > 1:
            documents.append(ids[:room])
            room -= len(ids)
    return documents


def bits_per_byte_of(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Sequence[Sequence[int]],
    *,
    seed: int,
    begins: Sequence[int] = (),
) -> Interval:
    """Σ nats / (ln 2 · Σ bytes) over documents of token ids, with a bootstrap interval by document.

    Each document is read on its own; one longer than the context in pieces that overlap by one token, so that
    every token but a document's first, before which there is nothing to predict it from, is scored exactly
    once. Special tokens count 0 bytes and 0 nats.

    ``begins`` are special ids that the model expects before a document; the first token after them, which a model
    without any has no chance to predict, is not scored here either.

    Raises ValueError where nothing is scored.
    """
    sizes = tokenizer.token_bytes()
    rows: list[Row] = []
    owners: list[int] = []
    for number, ids in enumerate(documents):
        for row in _pieces(ids, model.arch.context_length, sizes, begins):
            rows.append(row)
            owners.append(number)
    with progress("bits per byte", len(rows), "rows") as bar:
        logprobs = row_logprobs(model, rows, bar.advance)
    bits, lengths = [0.0] * len(documents), [0] * len(documents)
    for owner, (_, targets), logprob in zip(owners, rows, logprobs, strict=True):
        bits[owner] -= logprob / math.log(2)
        lengths[owner] += sum(sizes[target] for target in targets if target != IGNORE)
    full = [number for number, length in enumerate(lengths) if length]
    return bootstrap_ratio([bits[i] for i in full], [lengths[i] for i in full], seed=seed)


def _pieces(ids: Sequence[int], context: int, sizes: Sequence[int], begins: Sequence[int] = ()) -> Iterable[Row]:
    """A document as rows of at most ``context`` tokens, each target in one row."""
    whole = [*begins, *ids]
    for begin in range(0, len(whole) - 1, context):
        piece = whole[begin : begin + context]
        following = whole[begin + 1 : begin + 1 + context]
        # What follows ``begins`` stands at their number: the document's first token.
        first = len(begins) - begin
        targets = [target if sizes[target] and place != first else IGNORE for place, target in enumerate(following, 1)]
        yield piece[: len(following)], targets
