"""Reading a tokenizer.json that others wrote: what of it keeps the promise that every text comes back, and what not."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from groundup.run import UserError

# The parts of a pre-tokenizer that only split, by what decides about them. The others drop or change characters.
_SPLITTERS = {
    "ByteLevel": ("add_prefix_space", "trim_offsets", "use_regex"),
    "Split": ("pattern", "behavior", "invert"),
    "Digits": ("individual_digits",),
    "Punctuation": ("behavior",),
}
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Vocabulary(NamedTuple):
    """What every kind of file is read into, and where in it the parts stand, for errors."""

    tokens: dict[str, int]  # spelled in the byte alphabet; added tokens may be among them
    merges: list[tuple[str, str]]
    added: dict[str, dict[str, Any]]  # content → id and flags
    splitters: list[dict[str, Any]]
    whole_words: bool  # a word that is a token is never merged
    tokens_at: str
    merge_at: Callable[[int], str]


def read_json_vocabulary(file: dict[str, Any], path: Path) -> Vocabulary:
    """A tokenizer.json of byte-level BPE; each part that would break the promise is refused by name.

    Args:
        file: what `path` holds.
    """
    where = str(path)
    model = field_of(file, "model", dict, where)
    if model.get("type", "BPE" if "merges" in model else None) != "BPE":
        raise UserError(f"the model is {model.get('type')!r}", where=f"{where}: model.type", expected="'BPE'")
    refused = {
        "dropout": "ids would be random",
        "continuing_subword_prefix": "tokens would not be the bytes of the text",
        "end_of_word_suffix": "tokens would not be the bytes of the text",
    }
    for key, reason in refused.items():
        if model.get(key):
            raise UserError(f"{key} is {model[key]!r}: {reason}", where=f"{where}: model.{key}", expected="none")
    normalized = _check_normalizer(file.get("normalizer"), where)
    return Vocabulary(
        tokens=check_ids(field_of(model, "vocab", dict, f"{where}: model"), f"{where}: model.vocab"),
        merges=read_merges(model, where),
        added=read_added(file, where, normalized=normalized),
        splitters=_check_splitters(file.get("pre_tokenizer"), f"{where}: pre_tokenizer"),
        whole_words=model.get("ignore_merges") is True,
        tokens_at=f"{where}: model.vocab",
        merge_at=lambda number: f"{where}: model.merges[{number}]",
    )


def read_added(file: dict[str, Any], where: str, *, normalized: bool = False) -> dict[str, dict[str, Any]]:
    """The added tokens by their spelling, each checked; `normalized` where the file's normalizer is NFC."""
    added = {}
    for number, token in enumerate(field_of(file, "added_tokens", list, where) if file.get("added_tokens") else []):
        read = _added(token, f"{where}: added_tokens[{number}]", normalized)
        if read["content"] in added:
            raise UserError(f"{read['content']!r} occurs twice", where=f"{where}: added_tokens[{number}]")
        added[read["content"]] = read
    return added


def read_merges(model: dict[str, Any], where: str) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json's `model`, in either of the two ways they are written in."""
    merges = []
    for number, merge in enumerate(field_of(model, "merges", list, f"{where}: model")):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            at = f"{where}: model.merges[{number}]"
            raise UserError(f"the merge is {merge!r}", where=at, expected="two tokens")
        merges.append((pair[0], pair[1]))
    return merges


def _check_normalizer(normalizer: Any, where: str) -> bool:
    """Whether there is a normalizer, which is NFC; any other is refused."""
    parts = flat(normalizer, "normalizers")
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else part
        if not isinstance(part, dict) or kind != "NFC":
            raise UserError(
                f"the normalizer {kind!r} changes text, which would not come back",
                where=f"{where}: normalizer",
                expected="none, or NFC",
            )
    return bool(parts)


def _check_splitters(pre_tokenizer: Any, where: str) -> list[dict[str, Any]]:
    """The parts of a pre-tokenizer, one after the other, with what is known of them; UserError for one that harms."""
    parts = []
    for part in flat(pre_tokenizer, "pretokenizers"):
        kind = part.get("type") if isinstance(part, dict) else part
        if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _SPLITTERS:
            allowed = ", ".join(_SPLITTERS)
            raise UserError(f"the pre-tokenizer {kind!r} changes text", where=where, expected=f"of {allowed} only")
        if part.get("behavior", "Isolated") == "Removed":
            raise UserError(f"the pre-tokenizer {kind!r} removes what it splits at", where=where)
        if kind == "ByteLevel" and part.get("add_prefix_space", True):
            raise UserError(
                "add_prefix_space: a space would be added to every text", where=where, expected="add_prefix_space false"
            )
        parts.append({"type": kind} | {key: part[key] for key in _SPLITTERS[kind] if key in part})
    if (count := sum(part["type"] == "ByteLevel" for part in parts)) != 1:
        raise UserError(
            f"{count} pre-tokenizers 'ByteLevel'", where=where, expected="one, which makes the tokens bytes"
        )
    return parts


def flat(part: Any, key: str) -> list[Any]:
    """The parts of nested sequences, in the order in which they work; none of null."""
    waiting, flat = [] if part is None else [part], []
    while waiting:
        first = waiting.pop(0)
        if isinstance(first, dict) and first.get("type") == "Sequence" and isinstance(first.get(key), list):
            waiting = first[key] + waiting
        else:
            flat.append(first)
    return flat


def _added(token: Any, where: str, normalized: bool) -> dict[str, Any]:
    """One of a file's added tokens, checked."""
    if not isinstance(token, dict):
        raise UserError(f"an added token is {token!r}", where=where, expected="an object")
    content, number = field_of(token, "content", str, where), field_of(token, "id", int, where)
    flags = {flag: field_of({flag: token.get(flag, False)}, flag, bool, where) for flag in FLAGS}
    if not content:
        raise UserError("an added token without content", where=where)
    check_text(content, where)
    if not flags["special"] and (flags["lstrip"] or flags["rstrip"]):
        raise UserError(
            f"{content!r} swallows the white space around it", where=where, expected="lstrip and rstrip false"
        )
    if normalized and not unicodedata.is_normalized("NFC", content):
        raise UserError(f"{content!r} is not in NFC, as the file's own normalizer makes text", where=where)
    return {"id": number, "content": content} | flags


def check_ids(tokens: dict[str, Any], where: str) -> dict[str, int]:
    """A table of tokens and ids, each id a number of its own."""
    owner: dict[int, str] = {}
    for token, number in tokens.items():
        if type(number) is not int or number < 0:
            raise UserError(f"the id of {token!r} is {number!r}", where=where, expected="a whole number from 0 on")
        if (other := owner.setdefault(number, token)) != token:
            raise UserError(f"{other!r} and {token!r} have the same id {number}", where=where)
    return tokens


def field_of(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """A field of exactly this type. Raises UserError."""
    value = record.get(key)
    if type(value) is not kind:
        found = "is missing" if key not in record else f"is {str(value)[:40]!r}"
        raise UserError(f"{key} {found}", where=where, expected=f"{key} of type {kind.__name__}")
    return value


def load_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(read_text_file(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise UserError(f"the file holds a {type(content).__name__}", where=str(path), expected="an object")
    return content


def read_text_file(path: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the file can't be read: {error}", where=str(path)) from error


def check_text(content: str, where: str) -> None:
    """Raise UserError for what no UTF-8 text can hold."""
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{content!r} is no text: {error.reason}", where=where) from error
