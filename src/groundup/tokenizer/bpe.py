"""Learning a byte-level BPE vocabulary (Sennrich et al. 2016, arXiv:1508.07909; bytes as in GPT-2).

Text is split into words by a pattern, then each word's UTF-8 bytes are merged, most frequent pair first; `reference`
says the rule in plain Python, and here `rustbpe` follows it, some ten times faster. The result is Hugging Face's
tokenizer.json, which `transformers`, vLLM and llama.cpp read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import rustbpe
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from groundup.run import GroundupError, UserError
from groundup.tokenizer.alphabet import character_of_byte
from groundup.tokenizer.patterns import SPLIT_PATTERNS, pattern_of, split_words
from groundup.tokenizer.ranks import merges_of
from groundup.tokenizer.special import special_tokens
from groundup.tokenizer.tokenizer import Tokenizer, mended

ALPHABET = 256  # one token for every byte, so that nothing is ever unknown
LONGEST_SPACE = 1000  # characters of white space in a row that are learned from; rustbpe's stack ends at a million
_LONG_SPACE = re.compile(rf"\s{{{LONGEST_SPACE + 1},}}")
_WHOLE = r"(?s:.+)"
_DOCUMENTS = 1024  # split at a time, by all cores
_BATCH = 2**20  # characters

Merges = Sequence[tuple[bytes, bytes]]


def train_bpe(
    texts: Iterable[str],
    vocabulary_size: int,
    *,
    reserved: int = 9,
    split_pattern: str = "qwen2",
    digits: int | Literal["pattern"] = "pattern",
    min_frequency: int = 2,
) -> tokenizers.Tokenizer:
    """Learn `vocabulary_size` tokens in all, in this order of ids: special tokens, 256 bytes, merges.

    Equal texts give an equal vocabulary, in whatever order they come. A small text gives a smaller vocabulary: what was
    merged fewer than `min_frequency` times at the end is left out.

    Args:
        texts: read once, and a second time in part where `min_frequency` is above 1; an iterator is kept in memory.
        reserved: spare special tokens.
        split_pattern, digits: see `pattern_of`.

    Raises UserError where the size leaves no room for a merge, and for a wrong pattern.
    """
    specials = special_tokens(reserved)
    room = vocabulary_size - len(specials) - ALPHABET
    if room < 1:
        raise UserError(
            f"a vocabulary of {vocabulary_size} tokens has no room for merges",
            where="tokenizer.vocabulary_size",
            expected=f"more than {len(specials) + ALPHABET}: the special tokens and {ALPHABET} bytes",
        )
    if isinstance(texts, Iterator):
        texts = list(texts)
    pattern = pattern_of(split_pattern, digits)
    merges = learn_merges(texts, room, pattern, own=split_pattern not in SPLIT_PATTERNS)
    learned = assemble(merges, specials, pattern)
    if min_frequency > 1 and merges:
        frequent = _frequent(texts, merges, Tokenizer(learned.to_str()), min_frequency)
        if frequent < len(merges):
            learned = assemble(merges[:frequent], specials, pattern)
    return learned


def learn_merges(texts: Iterable[str], count: int, pattern: str, *, own: bool = False) -> list[tuple[bytes, bytes]]:
    """At most `count` merges of the most frequent pairs, in the order they are learned (see `reference.learn`).

    Args:
        own: the pattern is somebody's own, which rustbpe's regex engine may read in another way than the one that
            encodes; words are then split here, and given to it one by one.
    """
    engine = rustbpe.Tokenizer()
    try:
        if own:
            words = (word for text in _learnable(texts) for word in split_words(text, pattern))
            engine.train_from_iterator(words, ALPHABET + count, buffer_size=2**16, pattern=_WHOLE)
        else:
            engine.train_from_iterator(_learnable(texts), ALPHABET + count, buffer_size=_DOCUMENTS, pattern=pattern)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how a fault of Rust code arrives
            raise
        raise GroundupError(f"learning merges failed: {error}") from error
    return merges_of({bytes(token): rank for token, rank in engine.get_mergeable_ranks()})[0]


def assemble(merges: Merges, specials: Sequence[str], pattern: str) -> tokenizers.Tokenizer:
    """The tokenizer of these merges: special tokens from id 0, bytes by their value, then each merge's token."""
    stand_in = character_of_byte()

    def spelled(token: bytes) -> str:
        return "".join(stand_in[byte] for byte in token)

    alphabet = [bytes([byte]) for byte in range(ALPHABET)]
    tokens = [*specials, *map(spelled, [*alphabet, *(left + right for left, right in merges)])]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, [(spelled(left), spelled(right)) for left, right in merges])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return tokenizer


def _learnable(texts: Iterable[str]) -> Iterator[str]:
    """Texts without white space of endless length, and without lone surrogates, which are no text."""
    for text in texts:
        if _may_hold_long_space(text):
            text = _LONG_SPACE.sub(lambda run: run[0][:LONGEST_SPACE], text)
        yield mended(text)


def _may_hold_long_space(text: str) -> bool:
    """False is certain: a run of white space too long to be learned from would fill one of these windows."""
    half = LONGEST_SPACE // 2
    return any(text[place : place + half].isspace() for place in range(0, len(text), half))


def _frequent(texts: Iterable[str], merges: Merges, tokenizer: Tokenizer, least: int) -> int:
    """How many merges there are up to the last one that was made at least `least` times in the texts.

    Learning makes rarer and rarer pairs, so where the last merge is frequent enough all are, and the texts are read no
    further. A merge was made wherever its token stands now, alone or as a part of a later one.
    """
    first = tokenizer.vocabulary_size - len(merges)
    counts = np.zeros(tokenizer.vocabulary_size, np.int64)
    for batch in _batches(_learnable(texts)):
        for ids in tokenizer.encode_arrays(batch):
            counts += np.bincount(ids, minlength=len(counts))
        if counts[-1] >= least:
            return len(merges)
    number = {tokenizer.token(each): each for each in range(first - ALPHABET, tokenizer.vocabulary_size)}
    made = counts.tolist()
    for place in range(len(merges) - 1, -1, -1):
        if made[first + place] >= least:
            return place + 1
        for part in merges[place]:
            made[number[part]] += made[first + place]
    return 0


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    yield batch
