"""Vocabularies of SentencePiece's BPE (Llama 2, Mistral, Gemma), as a tokenizer.json holds them.

Kudo & Richardson 2018 (arXiv:1808.06226). Their tokens are characters, not bytes: a space is spelled "▁" (U+2581), and
a character without a token falls back to those of its UTF-8 bytes, spelled <0x00> to <0xFF>.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from groundup.run import UserError
from groundup.tokenizer.alphabet import SPACE, piece_of_byte
from groundup.tokenizer.extend import overlap
from groundup.tokenizer.foreign import check_ids, check_text, field_of, flat, read_added, read_merges

_WORD = re.compile(f"{SPACE}*[^{SPACE}]*")
_WORDS = f"{SPACE}*[^{SPACE}]+"  # with all spaces before them
_SINGLE = f"{SPACE}[^{SPACE}]*|[^{SPACE}]+"  # with one space before them, as Metaspace splits


class Pieces(NamedTuple):
    """A tokenizer.json to which special tokens may be added, and what stands in it."""

    json: str
    present: frozenset[str]
    """all tokens, added ones too"""
    prefixed: bool
    """the file puts a space before every text, which this one does not"""


def is_sentencepiece(model: Any) -> bool:
    """Whether the `model` of a tokenizer.json falls back to bytes, as SentencePiece does."""
    return isinstance(model, dict) and model.get("byte_fallback") is True


def read_pieces(file: dict[str, Any], path: Path, specials: Sequence[str]) -> Pieces:
    """A tokenizer.json of SentencePiece's BPE, changed as far as needed for every text to come back exactly.

    - No space is put before a text. The first word of a text is thus encoded as it is after a line break.
    - Merges into special tokens and into those of bytes are left out: text that spells </s> never becomes it.
    - Added tokens spelled with "▁" are found by merges alone, as runs of spaces; a "▁" of the text is three bytes,
      which `Tokenizer` sees to.

    Where no token goes beyond a word, words are split first: that changes no id, and is much faster.

    Args:
        file: what `path` holds.
        specials: our special tokens, which become special where the file has them.

    Raises UserError for parts that would change a text in another way, bytes without a token, and ids with gaps.
    """
    where = str(path)
    model = field_of(file, "model", dict, where)
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(key):
            raise UserError(f"{key} is {model[key]!r}", where=f"{where}: model.{key}", expected="none beside bytes")
    prefixed, splits = _spaces(file, where)
    tokens = check_ids(field_of(model, "vocab", dict, f"{where}: model"), f"{where}: model.vocab")
    for token in tokens:
        check_text(token, f"{where}: model.vocab")
    if missing := [piece_of_byte(byte) for byte in range(256) if piece_of_byte(byte) not in tokens]:
        raise UserError(f"no token {missing[0]}", where=f"{where}: model.vocab", expected="<0x00> to <0xFF>")
    added = _added(file, where, tokens, specials)
    never = {token for token, entry in added.items() if entry["special"]}
    never |= {piece_of_byte(byte) for byte in range(256)}
    merges = []
    for number, (left, right) in enumerate(read_merges(model, where)):
        if unknown := [token for token in (left, right, left + right) if token not in tokens]:
            raise UserError(
                f"the merge names {unknown[0]!r}, which is no token", where=f"{where}: model.merges[{number}]"
            )
        if not never & {left, right, left + right}:
            merges.append([left, right])
    if short := [token for token in never if len(token) == 1]:
        raise UserError(f"text can become the special token {short[0]!r}", where=f"{where}: added_tokens")
    inside = all(_WORD.fullmatch(left + right) for left, right in merges)
    text = _file(model, tokens, merges, added, _SINGLE if splits else _WORDS if inside else None)
    return Pieces(text, frozenset(tokens) | added.keys(), prefixed)


def _file(
    model: dict[str, Any],
    tokens: dict[str, int],
    merges: list[list[str]],
    added: dict[str, dict[str, Any]],
    words: str | None,
) -> str:
    """The tokenizer.json; `words` is the pattern by which text is split first."""
    splitter = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    last = max(tokens.values())  # added tokens that stand among the others: the library numbers the rest on from there
    between = {content: entry["id"] for content, entry in added.items() if entry["id"] < last}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": sorted(added.values(), key=lambda entry: int(entry["id"])),
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            "pre_tokenizer": splitter if words else None,
            "decoder": {"type": "Sequence", "decoders": [*decoders, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {
                "type": "BPE",
                "unk_token": model.get("unk_token"),
                "fuse_unk": True,
                "byte_fallback": True,
                "vocab": tokens | between,
                "merges": merges,
            },
        }
    )


def _spaces(file: dict[str, Any], where: str) -> tuple[bool, bool]:
    """Whether a space is put before every text, and whether words are split at each single space."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prefixed = splits = marked = False
    for part in flat(file.get("normalizer"), "normalizers"):
        if part == {"type": "Prepend", "prepend": SPACE}:
            prefixed = True
        elif part == replace:
            marked = True
        else:
            raise UserError(
                f"the normalizer {_kind(part)!r} changes text, which would not come back",
                where=f"{where}: normalizer",
                expected=f"spaces spelled {SPACE}, and one before the text, nothing else",
            )
    for part in flat(file.get("pre_tokenizer"), "pretokenizers"):
        kind = _kind(part)
        if kind == "Metaspace" and part.get("replacement", SPACE) == SPACE:
            marked, splits = True, part.get("split", True)
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
            prefixed |= scheme != "never"
        elif not (marked and kind == "Split" and part.get("pattern") == {"String": " "}):  # of which none is left
            raise UserError(
                f"the pre-tokenizer {kind!r} is not known beside SentencePiece's tokens",
                where=f"{where}: pre_tokenizer",
                expected="Metaspace, or none",
            )
    if not marked:
        raise UserError(f"nothing spells spaces {SPACE}", where=f"{where}: normalizer", expected=json.dumps(replace))
    return prefixed, splits


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else part


def _added(
    file: dict[str, Any], where: str, tokens: dict[str, int], specials: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The added tokens, ours special, without those of spaces; their ids and the vocabulary's must go together."""
    added = {
        content: entry
        for content, entry in read_added(file, where).items()
        if entry["special"] or SPACE not in content or content not in tokens
    }
    for name in specials:
        if name in added or name in tokens:
            entry = added.get(name, {"id": tokens.get(name), "content": name})
            added[name] = entry | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added[name]["special"] = True
    owner = {number: token for token, number in tokens.items()}
    for content, entry in added.items():
        number = entry["id"]
        if owner.setdefault(number, content) != content or tokens.get(content, number) != number:
            raise UserError(
                f"the added token {content!r} has id {number}, which contradicts {owner[number]!r} in the vocabulary",
                where=f"{where}: added_tokens",
            )
        if SPACE in content and not entry["special"]:
            raise UserError(f"the added token {content!r} would come back with spaces", where=f"{where}: added_tokens")
    special = [content for content, entry in added.items() if entry["special"]]
    if pair := overlap([content for content in added if content not in special], [*special, *specials]):
        raise UserError("the text token {!r} overlaps with the special token {!r}".format(*pair), where=where)
    if gaps := sorted(set(range(len(owner))) - owner.keys()):
        raise UserError(f"no token has id {gaps[0]}, but the last id is {max(owner)}", where=f"{where}: model.vocab")
    return added
