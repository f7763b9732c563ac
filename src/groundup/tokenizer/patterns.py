"""How text is split into words before merging. No token reaches across a word's end.

A pattern is a regular expression; its matches, one after the other, are the words. The named ones are those of models
that other programs know: llama.cpp calls them "gpt-2", "llama-bpe", "qwen2" and "gpt-4o".
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from tokenizers import Regex, pre_tokenizers

from groundup.run import UserError

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # of English words
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"  # a space that stands before a word goes with it
_NOT_SMALL, _NOT_LARGE = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"  # a space or a mark before letters is part of the word

# Where the digits go; numbers of how many digits are one word differs most between models.
_TEMPLATES = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": rf"{_ENDINGS}|{_LEAD}\p{{L}}+|DIGITS| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}",
    "o200k": rf"{_LEAD}{_NOT_SMALL}*{_NOT_LARGE}+{_ENDINGS}?|{_LEAD}{_NOT_SMALL}+{_NOT_LARGE}*{_ENDINGS}?"
    rf"|DIGITS| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}",
}
_DIGITS = {"gpt2": r" ?\p{N}+", "gpt4": r"\p{N}{1,3}", "qwen2": r"\p{N}", "o200k": r"\p{N}{1,3}"}
_TEMPLATES["qwen2"] = _TEMPLATES["gpt4"]

SPLIT_PATTERNS = {name: template.replace("DIGITS", _DIGITS[name]) for name, template in _TEMPLATES.items()}
SPLIT_PATTERNS["llama3"] = SPLIT_PATTERNS["gpt4"]
_TEMPLATES["llama3"] = _TEMPLATES["gpt4"]

# One or more of every kind of character, so that a pattern that leaves some out is noticed.
_PROBE = (
    "Aa1 b2\tc3\nd4\r\n.,;!?-_'\"()[]{}<>|\\/@#$%^&*+=~`\0\x7f"
    "  é ß Ж λ א ع न ก 世 が 한 ½ Ⅷ € ∑ \xa0\u2028\u3000 😀\u0301\u200d"
)


def pattern_of(name: str, digits: int | Literal["pattern"] = "pattern") -> str:
    """The regular expression of a named pattern, or of one given as such.

    Args:
        name: a key of `SPLIT_PATTERNS`, or a regular expression that matches every text in full.
        digits: "pattern" leaves numbers to the pattern; n makes words of at most n digits.

    Raises UserError for an unknown name, a broken or an incomplete expression, and for `digits` beside an expression.
    """
    if name in SPLIT_PATTERNS:
        if digits == "pattern":
            return SPLIT_PATTERNS[name]
        return _TEMPLATES[name].replace("DIGITS", r"\p{N}" if digits == 1 else rf"\p{{N}}{{1,{digits}}}")
    where = "tokenizer.split_pattern"
    if re.fullmatch(r"[\w.-]+", name):
        names = ", ".join(SPLIT_PATTERNS)
        raise UserError(f"unknown split pattern {name!r}", where=where, expected=f"{names}, or a regular expression")
    if digits != "pattern":
        raise UserError("digits are for named patterns", where="tokenizer.digits", mend="write them into split_pattern")
    try:
        missed = pre_tokenizers.Split(Regex(name), behavior="removed").pre_tokenize_str(_PROBE)
    except Exception as error:  # noqa: BLE001  # what the library raises for any fault
        raise UserError(f"not a regular expression: {error}", where=where, expected="Oniguruma's syntax") from error
    if missed:
        raise UserError(
            f"the split pattern leaves out {missed[0][0]!r}",
            where=where,
            expected="an expression whose matches cover every text",
            mend=r"end it with |\s+|[^\s]",
        )
    return name


def split_words(text: str, pattern: str) -> list[str]:
    """The words of a text, which joined give the text again."""
    return [word for word, _ in _splitter(pattern).pre_tokenize_str(text)]


@lru_cache(maxsize=8)
def _splitter(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")
