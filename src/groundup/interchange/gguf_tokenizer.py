"""The vocabulary of a GGUF file: what llama.cpp must know to make the ids that our tokenizer makes.

llama.cpp reads no regular expression from the file. It has its own copies of those of known models, chosen by name
(``tokenizer.ggml.pre``), so a vocabulary can be written if its words are split as one of those models splits them.
Its own converter finds the name by the ids of a test text, which a vocabulary of one's own never has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gguf import TokenType
from tokenizers import models

from groundup.run import UserError
from groundup.tokenizer import Tokenizer, chat_template
from groundup.tokenizer.alphabet import BYTE
from groundup.tokenizer.patterns import SPLIT_PATTERNS
from groundup.tokenizer.special import END, ENDOFTEXT, PAD


class Splitting(NamedTuple):
    """A way to split words that llama.cpp knows."""

    name: str
    """``tokenizer.ggml.pre``"""
    pattern: str
    whole_words: bool
    """a word that is a token is not merged, as `ignore_merges` of a tokenizer.json says"""


SPLITTINGS = (
    Splitting("qwen2", SPLIT_PATTERNS["qwen2"], whole_words=False),
    Splitting("dbrx", SPLIT_PATTERNS["gpt4"], whole_words=False),
    Splitting("llama-bpe", SPLIT_PATTERNS["llama3"], whole_words=True),
    Splitting("gpt-2", SPLIT_PATTERNS["gpt2"], whole_words=False),
)
"""Those whose ids were compared with ours through llama.cpp, character by character.

Its "gpt-4o" is not the pattern o200k: it tells capitals from small letters in ASCII alone, and splits words at
combining marks, so that ids differ in nearly every line of Hindi, Tamil or Thai.
"""


@dataclass(frozen=True)
class GgufVocabulary:
    """The keys ``tokenizer.*`` of a file."""

    model: str
    """gpt2 for byte-level BPE, llama for SentencePiece's"""
    pre: str | None
    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    """of byte-level BPE"""
    scores: list[float]
    """of SentencePiece's: of two pairs that could be merged, the one that makes the token of the higher score is"""
    ids: dict[str, int]
    """role → id: bos, eos, eot, pad"""
    chat_template: str


def gguf_vocabulary(tokenizer: Tokenizer, rows: int) -> GgufVocabulary:
    """The vocabulary of a tokenizer, filled up to the rows of the model's embedding table.

    A document begins and ends with the same token, a message ends with another: the end of both ends a generation,
    for llama.cpp knows them by their spelling too.

    Raises UserError for a tokenizer whose ids llama.cpp would not make, with what stands in the way.
    """
    description = json.loads(tokenizer.json)
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in description["model"]["merges"]]
    tokens, types = _tokens(description, tokenizer.vocabulary_size)
    for number in range(len(tokens), rows):
        tokens.append(f"<|no_token_{number}|>")
        types.append(TokenType.UNUSED)
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise UserError(f"two tokens of a GGUF file would be spelled {twice!r}", where="tokenizer.json")
    roles = {"bos": ENDOFTEXT, "eos": END, "eot": END, "pad": PAD}
    pieces = tokenizer.sentencepiece
    if pieces:
        types = [TokenType.BYTE if BYTE.fullmatch(token) else kind for token, kind in zip(tokens, types, strict=True)]
    return GgufVocabulary(
        model="llama" if pieces else "gpt2",
        pre=None if pieces else _splitting(description).name,
        tokens=tokens,
        types=types,
        merges=[] if pieces else [" ".join(pair) for pair in merges],
        scores=_scores(tokens, merges) if pieces else [],
        ids={role: tokenizer.special_id(token) for role, token in roles.items()},
        chat_template=chat_template(learned_marks=False),
    )


def _tokens(description: dict[str, Any], count: int) -> tuple[list[str], list[TokenType]]:
    """Spelling and type of each id."""
    tokens, types = [""] * count, [TokenType.NORMAL] * count
    for token, number in description["model"]["vocab"].items():
        tokens[number] = token
    for added in description.get("added_tokens") or ():
        number, special = added["id"], added["special"]
        tokens[number] = added["content"]
        types[number] = TokenType.CONTROL if special else TokenType.USER_DEFINED
        flags = [flag for flag in ("single_word", "lstrip", "rstrip", "normalized") if added[flag] and not special]
        if flags:
            raise UserError(
                f"the added token {added['content']!r} is {' and '.join(flags)}, which llama.cpp does not know",
                where="tokenizer.json",
            )
    return tokens, types


def _scores(tokens: Sequence[str], merges: Sequence[tuple[str, ...]]) -> list[float]:
    """The order of the merges as scores of what they make: llama.cpp merges whatever makes a token, the highest first.

    So its ids are ours unless two pairs of one token stand apart in the order, which SentencePiece never writes. Exact
    in float32 for 2^24 merges.
    """
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def _splitting(description: dict[str, Any]) -> Splitting:
    """The way to split words that makes our ids. Raises UserError where there is none."""
    pattern = _pattern(description)
    whole = description["model"].get("ignore_merges") is True
    known = [each for each in SPLITTINGS if each.pattern == pattern]
    same = [each for each in known if each.whole_words == whole]
    if not same and known and _all_merged(description):
        same = known  # each word that is a token is merged into it, so it makes no difference
    if not same:
        names = ", ".join(name for name in SPLIT_PATTERNS if SPLIT_PATTERNS[name] in {s.pattern for s in SPLITTINGS})
        raise UserError(
            "llama.cpp does not know how this tokenizer splits words, and would make other ids",
            where="tokenizer.json: pre_tokenizer",
            expected=f"one of its own ways: split_pattern = {names}",
            mend="export to Hugging Face's layout, or train with such a split_pattern (and no digits beside it)",
        )
    return same[0]


def _pattern(description: dict[str, Any]) -> str | None:
    """The regular expression by which a tokenizer.json splits, if it is just one."""
    if description.get("normalizer") is not None or description["model"]["type"] != "BPE":
        return None
    part = description.get("pre_tokenizer") or {}
    parts: Sequence[dict[str, Any]] = part.get("pretokenizers", [part])
    match [part.get("type") for part in parts]:
        case ["ByteLevel"] if parts[0].get("use_regex", True) and not parts[0].get("add_prefix_space", True):
            return SPLIT_PATTERNS["gpt2"]  # which ByteLevel splits by itself
        case ["Split", "ByteLevel"] if (
            parts[0].get("behavior") == "Isolated"
            and not parts[0].get("invert")
            and not parts[1].get("use_regex", True)
            and not parts[1].get("add_prefix_space", True)
        ):
            pattern: str | None = parts[0]["pattern"].get("Regex")
            return pattern
    return None


def _all_merged(description: dict[str, Any]) -> bool:
    """Whether merges alone make every token, but added ones, of its own spelling."""
    model, added = description["model"], {token["content"] for token in description.get("added_tokens") or ()}
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    plain = models.BPE(model["vocab"], merges)
    return all(len(plain.tokenize(token)) == 1 for token in model["vocab"] if token not in added)
