"""The fast encoder: gigatoken where it knows a tokenizer's split pattern and gives the same ids, else nothing.

gigatoken (https://github.com/marcelroed/gigatoken) encodes some 100 MB of text a second on one core, forty times as
much as Hugging Face's `tokenizers`, whose ids are the measure of what is right. It refuses tokenizers that it can't
follow.
"""

from __future__ import annotations

import json
from typing import Any

import gigatoken
import numpy as np
import tokenizers
from numpy.typing import NDArray

# What splitters get wrong first: endings, spaces of all kinds before all kinds, digits, scripts, marks, emoji.
_PROBES = (
    "The cat's WE'LL don't I'M you'd O'Neil's ſ'ſ 'S 'LL",
    "a  b   c\n\n\n d\t\te \r\n\r\n f \n \n",
    "12 345 6,789 ½ Ⅷ ٣٤٥ x1y22z333 ²³",
    "naïve Ελληνικά Привет, мир! שלום العربية हिन्दी ไทย 中文字 かな 한국어 e\u0301 \u200d\ufeff\xa0\u2003\u3000\u2028x",
    "def f(x):\n    return {'a': [1, 2]}  # -> !!! ... ---\n\n\tif a != b && c:\n",
    "🧑‍🚀🇩🇪👍🏽 \x00\x01\x7f\x85 <|endoftext|> <|user|> ÀÉÎõü ǅ ʰ",
)
RENEWED = 2**26  # characters after which the engine begins anew


class FastEngine:
    """gigatoken with bounded memory: it keeps every word that it has seen, so it is begun anew from time to time."""

    def __init__(self, content: str) -> None:
        """Raises RuntimeError or ValueError where gigatoken refuses the tokenizer.json."""
        self._content = content
        self._engine = gigatoken.Tokenizer.from_json(content)
        self._seen = 0

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text. Raises TypeError for one with lone surrogates."""
        self._count(len(text))
        found: NDArray[np.uint32] = self._engine.encode(text)
        return found

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of many texts, on all cores. Raises TypeError as `encode` does."""
        self._count(sum(map(len, texts)))
        found: list[list[int]] = self._engine.encode_batch_list(texts)
        return found

    def _count(self, characters: int) -> None:
        self._seen += characters
        if self._seen > RENEWED:
            self._engine, self._seen = gigatoken.Tokenizer.from_json(self._content), characters


def fast_engine(content: str, exact: tokenizers.Tokenizer) -> FastEngine | None:
    """The fast engine for a tokenizer.json; None where there is none.

    Special tokens are taken out of it, so that no text can become one. `exact` is the same file's tokenizer with
    `encode_special_tokens` on; probes are encoded by both, and an engine that differs is not used.
    """
    description = json.loads(content)
    if not _is_plain(description):
        return None
    description["added_tokens"] = [token for token in description.get("added_tokens") or () if not token["special"]]
    try:
        engine = FastEngine(json.dumps(description))
    except (RuntimeError, ValueError):  # a split pattern or a part that it doesn't know
        return None
    probes = [*_PROBES, *(f"a{token['content']}b {token['content']} " for token in description["added_tokens"])]
    for probe in probes:
        if engine.encode(probe).tolist() != exact.encode(probe, add_special_tokens=False).ids:
            return None
    return engine


def _is_plain(description: dict[str, Any]) -> bool:
    """Whether a tokenizer.json has the one form that is trusted to be followed: a regex's words, then their bytes.

    Of other parts before or beside them the engine leaves some out, and probes can't tell for every vocabulary.
    """
    parts = (description.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if len(parts) != 2 or [part.get("type") for part in parts] != ["Split", "ByteLevel"]:
        return False
    split, level = parts
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    return (
        split.get("behavior") == "Isolated"
        and not split.get("invert")
        and level.get("use_regex") is False
        and not level.get("add_prefix_space")
        and description.get("normalizer") is None
        and not any(token[flag] for token in description.get("added_tokens") or () for flag in flags)
    )
