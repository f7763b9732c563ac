"""The tokenizer chapter: a sentence taken apart, merges, statistics of this run's vocabulary, packed rows."""

from __future__ import annotations

import json
import math
import re
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from groundup.book.text import token_text
from groundup.corpus import read_documents
from groundup.recipe import Recipe
from groundup.run import UserError
from groundup.tokenizer import PackedRows, Tokenizer, TokenShards
from groundup.tokenizer.alphabet import SPACE
from groundup.tokenizer.report import advice_for, count_ids

Facts = dict[str, Any]
SENTENCE_CHARACTERS = 110
FIRST_MERGES = 48
FREQUENT = 30
ROWS_SHOWN = 8


def tokenizer(run: Path, recipe: Recipe, metrics: Facts) -> Facts | None:
    """All that the chapter shows, from RUN/tokenizer and RUN/corpus; None where there is no tokenizer yet."""
    try:
        tool = Tokenizer.load(run / "tokenizer")
        shards = TokenShards(run / "tokenizer" / "shards" / "train")
        sentence = _sentence(run)
    except UserError:
        return None
    content = json.loads(tool.json)
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in content["model"]["merges"]]
    counts = count_ids(shards, tool.vocabulary_size)
    ids = tool.encode(sentence)
    specials = tool.special_ids()
    return {
        "metrics": metrics,
        "vocabulary_size": tool.vocabulary_size,
        "specials": [{"name": name, "id": number} for name, number in specials.items() if "reserved" not in name],
        "reserved": sum("reserved" in name for name in specials),
        "merges": len(merges),
        "pattern": _pattern(content),
        "pieces": tool.sentencepiece,
        "adopted": recipe.tokenizer is not None and recipe.tokenizer.adopt is not None,
        "advice": advice_for(recipe, tool, counts),
        "sentence": sentence,
        "tokens": [{"text": token_text(tool.token(number)), "id": number} for number in ids],
        "sentence_bytes": len(sentence.encode()),
        "steps": _merge_steps(tool, sentence, merges),
        "first_merges": [
            {"left": token_text(tool.bytes_of(left)), "right": token_text(tool.bytes_of(right)), "rank": rank}
            for rank, (left, right) in enumerate(merges[:FIRST_MERGES], 1)
        ],
        **_statistics(tool, counts, set(specials.values())),
        **_fertility(run, tool),
        "rows": _rows(shards, run, recipe),
    }


def _sentence(run: Path) -> str:
    """The first sentence of a validation document that is long enough to be worth taking apart."""
    for document in islice(read_documents(run / "corpus", "validation"), 50):
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", document.text):
            if 30 <= len(sentence) <= SENTENCE_CHARACTERS:
                return sentence
    document = next(read_documents(run / "corpus", "train"))
    return document.text[:SENTENCE_CHARACTERS]


def _words(tool: Tokenizer, sentence: str) -> list[str]:
    """The words of a sentence as tokenizer.json spells them."""
    library = tokenizers.Tokenizer.from_str(tool.json)
    if library.normalizer is not None:
        sentence = library.normalizer.normalize_str(sentence)
    if library.pre_tokenizer is None:  # tokens may hold several words
        return re.findall(f"{SPACE}*[^{SPACE}]+", sentence)
    return [piece for piece, _ in library.pre_tokenizer.pre_tokenize_str(sentence)]


def _merge_steps(tool: Tokenizer, sentence: str, merges: list[tuple[str, ...]]) -> Facts:
    """How the sentence's longest word is put together, merge by merge: the rule of BPE at work."""
    words = _words(tool, sentence)
    word = max(words, key=len, default="")
    ranks = {pair: rank for rank, pair in enumerate(merges, 1)}
    pieces = list(word)
    steps: list[Facts] = [
        {"pieces": [token_text(tool.bytes_of(piece)) for piece in pieces], "rank": None, "pair": None}
    ]
    while True:
        pairs = [(ranks[pair], pair) for pair in zip(pieces, pieces[1:], strict=False) if pair in ranks]
        if not pairs:
            break
        rank, (left, right) = min(pairs)
        merged: list[str] = []
        for piece in pieces:
            if merged and merged[-1] == left and piece == right:
                merged[-1] = left + right
            else:
                merged.append(piece)
        pieces = merged
        shown = [token_text(tool.bytes_of(each)) for each in (left, right, *pieces)]
        steps.append({"pieces": shown[2:], "rank": rank, "pair": shown[:2]})
    return {
        "word": token_text(tool.bytes_of(word)),
        "states": steps,
        "words": [token_text(tool.bytes_of(piece)) for piece in words],
    }


def _pattern(content: Facts) -> str:
    """The expression that splits text into words, as tokenizer.json has it; "" for GPT-2's own and for none."""
    splitter = content.get("pre_tokenizer") or {}
    parts = splitter.get("pretokenizers", [splitter])
    return "\n".join(part["pattern"]["Regex"] for part in parts if "Regex" in part.get("pattern", {}))


def _statistics(tool: Tokenizer, counts: NDArray[np.int64], specials: set[int]) -> Facts:
    """The most frequent tokens, their rank and frequency (Zipf's law), and how long tokens are."""
    total = int(counts.sum())
    order = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number] > 0]
    texts = [number for number in order if number not in specials]
    marks = sorted({round(10 ** (step / 12)) for step in range(int(12 * math.log10(max(1, len(order)))) + 1)})
    sizes = np.array(tool.token_bytes())
    longest = int(sizes.max(initial=1))
    used = counts * (sizes > 0)
    return {
        "counted": total,
        "frequent": [
            {"text": token_text(tool.token(number)), "count": int(counts[number])} for number in texts[:FREQUENT]
        ],
        "zipf": [[rank, int(counts[order[rank - 1]]) / total] for rank in marks if rank <= len(order)],
        "token_bytes": [
            {
                "bytes": size,
                "vocabulary": float(np.mean(sizes[sizes > 0] == size)),
                "text": float(used[sizes == size].sum() / max(1, used.sum())),
            }
            for size in range(1, min(longest, 16) + 1)
        ],
        "longest": [token_text(tool.token(int(number))) for number in np.argsort(-sizes, kind="stable")[:8]],
    }


def _fertility(run: Path, tool: Tokenizer) -> Facts:
    """Tokens a word and bytes a token over validation text, beside what single bytes would take."""
    texts = [document.text for document in islice(read_documents(run / "corpus", "validation"), 2000)]
    tokens = sum(map(len, tool.encode_batch(texts)))
    words = sum(len(text.split()) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    return {
        "fertility": tokens / max(1, words),
        "bytes_per_token": size / max(1, tokens),
        "bytes_per_word": size / max(1, words),
    }


def _rows(shards: TokenShards, run: Path, recipe: Recipe) -> Facts | None:
    """The first packed rows of the first training stage: lengths of the documents' pieces in each."""
    section = recipe.pretrain
    if section is None or section.packing == "padded":
        return None
    length = section.sequence_length or recipe.model.context_length
    try:
        packed = PackedRows(shards, length, recipe.run.seed, packing=section.packing)
    except UserError:
        return None
    count = min(ROWS_SHOWN, packed.rows(0))
    return {
        "length": length,
        "rows": [[piece.length for piece in packed.pieces(row)] for row in range(count)],
        "padding": packed.padding(0),
        "cuts": packed.cuts(0),
        "count": packed.rows(0),
    }
