"""Learning a byte-level BPE vocabulary (Sennrich et al. 2016, arXiv:1508.07909; bytes as in GPT-2).

Text is first split into words by a pattern, then each word's UTF-8 bytes are merged, most frequent pair
first. The file is Hugging Face's tokenizer.json, which `transformers`, vLLM and llama.cpp read as it is. The
merges come from `tokenizers` itself: `rustbpe` trains faster, but breaks ties between equally frequent pairs
in another order, so its ids differ from those of the library that defines the format.
"""

from collections.abc import Iterable

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from groundup.run import UserError
from groundup.tokenizer.special import special_tokens

# Qwen2's split: English contractions; letters with one leading mark; single digits; punctuation; white space.
# llama.cpp implements this very pattern under the name "qwen2".
SPLIT_PATTERNS = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
}
ALPHABET = 256  # one token for every byte, so that nothing is ever unknown


def train_bpe(
    texts: Iterable[str], vocabulary_size: int, *, reserved: int = 9, split_pattern: str = "qwen2"
) -> tokenizers.Tokenizer:
    """Learn `vocabulary_size` tokens in all, in this order of ids: special tokens, 256 bytes, merges.

    A pair seen only once is not merged, so a very small text gives a smaller vocabulary. Equal texts in equal
    order give an equal vocabulary. Raises UserError where the size leaves no room for a merge.
    """
    specials = special_tokens(reserved)
    if vocabulary_size <= len(specials) + ALPHABET:
        raise UserError(
            f"a vocabulary of {vocabulary_size} tokens has no room for merges",
            where="tokenizer.vocabulary_size",
            expected=f"more than {len(specials) + ALPHABET}: the special tokens and {ALPHABET} bytes",
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERNS[split_pattern]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_of_character() -> dict[str, int]:
    """GPT-2's byte alphabet read backwards: the printable stand-in of each byte → the byte.

    Printable Latin-1 bytes stand for themselves; the other 68 are numbered from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    return table | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}
