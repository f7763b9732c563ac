"""tiktoken's rank files, and the merges that ranks amount to.

tiktoken merges the two neighbours whose joined bytes have the lowest rank, whichever two they are; a tokenizer.json
names both. A rank file says neither the split pattern nor the special tokens, so those of published ones stand here.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from groundup.run import UserError
from groundup.tokenizer.special import ENDOFTEXT


class KnownRanks(NamedTuple):
    """A published rank file: how many ranks it has, its split pattern, and its special tokens with their ids."""

    ranks: int
    pattern: str
    special: Mapping[str, int]


def _from(first: int, tokens: Iterable[str]) -> dict[str, int]:
    return {token: first + number for number, token in enumerate(tokens)}


_CL100K = [ENDOFTEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
_QWEN = [ENDOFTEXT, "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205))]
_LLAMA = [
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"),
    *("<|eot_id|>", "<|python_tag|>", "<|image|>", *(f"<|reserved_special_token_{n}|>" for n in range(2, 246))),
]

_DIGITS = 9  # of a rank, at most

# By the name of the file without its ending. OpenAI's: openai_public.py of tiktoken. Qwen's: qwen_tokenizer.py of
# dashscope. "tokenizer" is Llama 3's tokenizer.model: llama3/tokenizer.py of llama-models.
KNOWN = {
    "r50k_base": KnownRanks(50_256, "gpt2", {ENDOFTEXT: 50_256}),
    "p50k_base": KnownRanks(50_280, "gpt2", {ENDOFTEXT: 50_256}),
    "cl100k_base": KnownRanks(100_256, "gpt4", _from(100_257, _CL100K) | {"<|endofprompt|>": 100_276}),
    "o200k_base": KnownRanks(199_998, "o200k", {ENDOFTEXT: 199_999, "<|endofprompt|>": 200_018}),
    "qwen": KnownRanks(151_643, "qwen2", _from(151_643, _QWEN)),
    "tokenizer": KnownRanks(128_000, "llama3", _from(128_000, _LLAMA)),
}


def read_ranks(path: Path) -> dict[bytes, int]:
    """The ranks in a file of lines, each a token in base64, a space and its rank.

    Raises UserError, with the line, for what is no such line, and for a token or rank that occurs twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the file can't be read: {error}", where=str(path)) from error
    ranks: dict[bytes, int] = {}
    lines: dict[int, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        token, rank = _parse(line, where)
        if rank in lines:
            raise UserError(f"rank {rank} stands in line {lines[rank]} too", where=where)
        if token in ranks:
            raise UserError(f"the token {token!r} stands in line {lines[ranks[token]]} too", where=where)
        ranks[token], lines[rank] = rank, number
    return ranks


def merges_of(ranks: Mapping[bytes, int]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """The pairs of tokens that make the longer ones, in the order of ranks, and the tokens that no merge makes.

    In a text that becomes a token no merge has reached across its ends, so its bytes were merged as they are when they
    stand alone. The two parts left before the last merge are its pair. A token whose bytes end in more parts comes only
    of a word that it is the whole of, which tiktoken looks up before it merges.
    """
    pairs, unmerged = [], []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) == 1:
            continue
        parts = _two_parts(token, ranks)
        if parts is None:
            unmerged.append(token)
        else:
            pairs.append(parts)
    return pairs, unmerged


def _two_parts(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens that a token's bytes are merged into before they become itself; None where they stay more.

    A queue of the pairs that can be merged, so that tokens of many thousand bytes take no longer than they must.
    """
    size = len(token)
    end = list(range(1, size + 1))  # of the part that begins at each place; 0 where none does any more
    before = list(range(-1, size - 1))  # where the part before it begins

    def rank_at(place: int) -> tuple[int, int, int] | None:
        """The pair whose left part begins at a place: its rank, the place and where its right part ends."""
        middle = end[place]
        if middle == size:
            return None
        rank = ranks.get(token[place : end[middle]])
        return None if rank is None else (rank, place, end[middle])

    queue = [pair for pair in map(rank_at, range(size)) if pair is not None]
    heapq.heapify(queue)
    parts = size
    while parts > 2:
        if not queue:
            return None
        _, place, right = heapq.heappop(queue)
        middle = end[place]
        if middle in (0, size) or end[middle] != right:
            continue  # one of its parts has been merged with another since
        end[place], end[middle] = right, 0
        if right < size:
            before[right] = place
        parts -= 1
        for neighbour in (before[place], place):
            pair = rank_at(neighbour) if neighbour >= 0 else None
            if pair is not None:
                heapq.heappush(queue, pair)
    return token[: end[0]], token[end[0] :]


def _parse(line: bytes, where: str) -> tuple[bytes, int]:
    """The token and the rank of a line."""
    expected = "a token in base64, a space and its rank"
    parts = line.split()
    if len(parts) != 2 or not parts[1].isdigit() or len(parts[1]) > _DIGITS:
        raise UserError(f"the line is {line[:40]!r}", where=where, expected=expected)
    try:
        token = base64.b64decode(parts[0], validate=True)
    except binascii.Error as error:
        raise UserError(f"{parts[0][:40]!r} is not base64: {error}", where=where, expected=expected) from error
    if not token:
        raise UserError("a token of no bytes", where=where, expected=expected)
    return token, int(parts[1])
