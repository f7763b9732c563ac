"""Taking over other people's vocabularies: GPT-2's files, tiktoken's, any tokenizer.json that knows all bytes.

All become a tokenizer.json in which every token keeps its id, and to which our special tokens are added at the end.
What could not promise that every text comes back exactly is refused, with the part that stands in the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple

from groundup.run import UserError, log
from groundup.tokenizer.alphabet import byte_of_character, character_of_byte
from groundup.tokenizer.extend import extend, overlap
from groundup.tokenizer.foreign import FLAGS, Vocabulary, check_ids, load_json, read_json_vocabulary, read_text_file
from groundup.tokenizer.patterns import pattern_of
from groundup.tokenizer.ranks import KNOWN, KnownRanks, merges_of, read_ranks
from groundup.tokenizer.sentencepiece import is_sentencepiece, read_pieces
from groundup.tokenizer.special import special_tokens
from groundup.tokenizer.tokenizer import read_tokenizer

PAIRS_OF_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
_BRACKETED = re.compile(r"<.+>|\[.+\]")


class Adopted(NamedTuple):
    """The content of a tokenizer.json, and for each id that was added to the file's own its pieces (see `extend`)."""

    json: str
    pieces: dict[int, list[int]]


def adopt(path: Path, *, split_pattern: str | None = None, reserved: int = 9) -> Adopted:
    """Read somebody's vocabulary; its tokens keep their ids.

    Args:
        path: one of
            - a tokenizer.json of byte-level BPE or of SentencePiece's BPE with bytes to fall back to (see
              `sentencepiece`), or the directory that holds it;
            - a directory with GPT-2's encoder.json and vocab.bpe, or vocab.json and merges.txt;
            - a rank file of tiktoken (a line is a token in base64, a space and its rank): *.tiktoken, or Llama 3's
              tokenizer.model. The split pattern and the special tokens of r50k_base, p50k_base, cl100k_base,
              o200k_base, qwen and Llama 3's tokenizer are known by file name and number of ranks; ids that they leave
              free become <|unused_N|>.
        split_pattern: a name or a regular expression (see `pattern_of`); for the pair of files GPT-2's where None, for
            a rank file needed unless known, and wrong for a tokenizer.json, which has its own.
        reserved: how many <|reserved_N|> the result has.

    Of a tokenizer.json the post-processor, truncation and padding are dropped, and an NFC normalizer (Qwen's): on text
    in NFC it changes nothing, nor on any part of such a text, for NFC is closed under substrings (Unicode Annex 15);
    so ids are the same there, as on the corpus, which is in NFC; and all other text now comes back as it was.

    Special tokens of ours that the file has under the same spelling are used as they are. The others are added at
    the end. No text can give the id of a special token.

    Raises UserError for files that are missing, broken or of another kind, and for those whose ids have gaps.
    """
    path, specials = _find(Path(path)), special_tokens(reserved)
    text, present = _read(path, split_pattern, specials)
    return Adopted(*extend(text, [token for token in specials if token not in present], special=True))


def _read(path: Path, split_pattern: str | None, specials: Sequence[str]) -> tuple[str, AbstractSet[str]]:
    """The tokenizer.json of a vocabulary without those of our special tokens that it lacks; and all its tokens."""
    if path.is_dir():
        vocabulary = _read_pair(path, split_pattern or "gpt2")
    elif path.suffix == ".json":
        if split_pattern is not None:
            raise UserError("a tokenizer.json has its own split pattern", where=str(path), mend="give no split pattern")
        file = load_json(path)
        if is_sentencepiece(file.get("model")):
            pieces = read_pieces(file, path, specials)
            if pieces.prefixed:
                log(f"{path} puts a space before every text; here it does not, so that texts come back exactly")
            return pieces.json, pieces.present
        vocabulary = read_json_vocabulary(file, path)
    else:
        vocabulary = _read_ranks(path, split_pattern)
    return _assemble(vocabulary, specials, str(path)), vocabulary.tokens.keys() | vocabulary.added.keys()


def adopted_files(path: Path) -> list[Path]:
    """The files that `adopt` reads of a path. Raises UserError where there are none."""
    found = _find(Path(path))
    if not found.is_dir():
        return [found]
    pair = next(pair for pair in PAIRS_OF_FILES if all((found / name).exists() for name in pair))
    return [found / name for name in pair]


def _find(path: Path) -> Path:
    """The file to read, or the directory where it is a pair of files."""
    if not path.is_dir():
        if not path.exists():
            raise UserError("no such file", where=str(path), expected="a tokenizer.json, GPT-2's files or *.tiktoken")
        return path
    if (path / "tokenizer.json").exists():
        return path / "tokenizer.json"
    if any(all((path / name).exists() for name in pair) for pair in PAIRS_OF_FILES):
        return path
    ranks = sorted(file for file in path.iterdir() if file.suffix in (".tiktoken", ".model"))
    if len(ranks) == 1:
        return ranks[0]
    raise UserError(
        f"{len(ranks)} rank files" if ranks else "no vocabulary here",
        where=str(path),
        expected="tokenizer.json, encoder.json and vocab.bpe, vocab.json and merges.txt, or one *.tiktoken",
    )


def _read_pair(directory: Path, split_pattern: str) -> Vocabulary:
    """GPT-2's two files: a table of tokens and ids, and one merge a line after a line that names the version.

    A token that no merge makes is special, if it looks like one; else the two files don't belong together.
    """
    pair = next(pair for pair in PAIRS_OF_FILES if all((directory / name).exists() for name in pair))
    table, list_of_merges = (directory / name for name in pair)
    if (more := directory / "added_tokens.json").exists():
        raise UserError(
            "the pair of files leaves out tokens that are added here", where=str(more), mend="adopt its tokenizer.json"
        )
    lines = read_text_file(list_of_merges).removesuffix("\n").split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    merges = []
    for number, line in enumerate(lines[first:], first + 1):
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2:
            raise UserError(f"a merge is {line!r}", where=f"{list_of_merges}: line {number}", expected="two tokens")
        merges.append((parts[0], parts[1]))
    tokens = check_ids(load_json(table), str(table))
    made = {left + right for left, right in merges}
    unmade = [token for token in tokens if len(token) > 1 and token not in made]
    if other := [token for token in unmade if not _BRACKETED.fullmatch(token)]:
        raise UserError(
            f"no merge makes the token {other[0]!r}",
            where=str(list_of_merges),
            expected=f"a merge for each token of {table.name} but special ones, as <s> or [PAD]",
        )
    return Vocabulary(
        tokens=tokens,
        merges=merges,
        added={token: _special(token, tokens[token]) for token in unmade},
        splitters=_splitters_of(split_pattern),
        whole_words=False,
        tokens_at=str(table),
        merge_at=lambda number: f"{list_of_merges}: line {number + first + 1}",
    )


def _read_ranks(path: Path, split_pattern: str | None) -> Vocabulary:
    """A rank file of tiktoken, with the special tokens of a known one, and the merges it amounts to."""
    where = str(path)
    ranks = read_ranks(path)
    known = KNOWN.get(path.stem)
    if known is None or known.ranks != len(ranks):
        known = KnownRanks(len(ranks), "", {})
    pattern = split_pattern or known.pattern
    if not pattern:
        names = ", ".join(f"{name} ({entry.ranks} ranks)" for name, entry in KNOWN.items())
        raise UserError(
            f"the split pattern of {len(ranks)} ranks named {path.stem!r} isn't known",
            where=where,
            expected=names,
            mend="give the split pattern",
        )
    special = dict(known.special)
    if special:
        taken = {*ranks.values(), *special.values()}
        special |= {f"<|unused_{number}|>": number for number in range(max(taken)) if number not in taken}
    merges, unmerged = merges_of(ranks)
    return Vocabulary(
        tokens={_spelled(token): rank for token, rank in ranks.items()},
        merges=[(_spelled(left), _spelled(right)) for left, right in merges],
        added={token: _special(token, number) for token, number in special.items()},
        splitters=_splitters_of(pattern),
        whole_words=bool(unmerged),
        tokens_at=where,
        merge_at=lambda number: f"{where}: merge {number}",
    )


def _assemble(vocabulary: Vocabulary, specials: Sequence[str], where: str) -> str:
    """The tokenizer.json of a vocabulary, whose tokens of our spelling become special. Raises UserError."""
    added = dict(vocabulary.added)
    for name in specials:
        number = added[name]["id"] if name in added else vocabulary.tokens.get(name)
        if number is not None:
            added[name] = _special(name, number)
    _check_alphabet(vocabulary)
    _check_merges(vocabulary)
    _check_added(vocabulary, added, specials)
    tokens = _with_added(vocabulary, added)
    file = {
        "version": "1.0",
        "added_tokens": sorted(added.values(), key=lambda token: int(token["id"])),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": vocabulary.splitters},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": tokens,
            "merges": vocabulary.merges,
            "ignore_merges": vocabulary.whole_words,
        },
    }
    text = json.dumps(file)
    tokenizer = read_tokenizer(text, where)
    for token in added.values():
        word = token["content"]
        if vocabulary.whole_words and word in tokens and len(tokenizer.pre_tokenizer.pre_tokenize_str(word)) == 1:
            raise UserError(f"text that spells the added token {word!r} would become it", where=vocabulary.tokens_at)
    return text


def _check_alphabet(vocabulary: Vocabulary) -> None:
    """Raise UserError unless every byte has a token and every token stands for bytes."""
    for byte, character in sorted(character_of_byte().items()):
        if character not in vocabulary.tokens:
            raise UserError(
                f"no token for the byte 0x{byte:02x}, spelled {character!r}",
                where=vocabulary.tokens_at,
                expected="byte-level BPE, with a token for each of the 256 bytes",
            )
    table = byte_of_character()
    for token, number in vocabulary.tokens.items():
        if token not in vocabulary.added and not all(character in table for character in token):
            raise UserError(
                f"the token {token!r} of id {number} is not spelled in GPT-2's byte alphabet",
                where=vocabulary.tokens_at,
                expected="byte-level BPE",
            )


def _check_merges(vocabulary: Vocabulary) -> None:
    """Raise UserError for a merge of or into an unknown token, and for one that is given twice."""
    seen = set()
    for number, (left, right) in enumerate(vocabulary.merges):
        where = vocabulary.merge_at(number)
        for token in (left, right, left + right):
            if token not in vocabulary.tokens:
                raise UserError(f"the merge names {token!r}, which is no token", where=where)
        if (left, right) in seen:
            raise UserError(f"{left!r} and {right!r} are merged twice", where=where)
        seen.add((left, right))


def _check_added(vocabulary: Vocabulary, added: dict[str, dict[str, Any]], specials: Sequence[str]) -> None:
    """Raise UserError where ids contradict each other or leave gaps, or where text could become an added token.

    A special token that merges make could come of text; a text token would come of other bytes than its own, unless
    they are spelled alike in the byte alphabet; and text tokens must not overlap with special ones (see `extend`).
    """
    where = vocabulary.tokens_at
    owner = {number: token for token, number in vocabulary.tokens.items()}
    for content, token in added.items():
        number = token["id"]
        if (holder := owner.setdefault(number, content)) != content or vocabulary.tokens.get(content, number) != number:
            raise UserError(
                f"the added token {content!r} has id {number}, which contradicts {holder!r} in the vocabulary",
                where=where,
            )
    if gaps := sorted(set(range(len(owner))) - owner.keys()):
        raise UserError(
            f"no token has id {gaps[0]}, but the last id is {max(owner)}",
            where=where,
            expected="ids from 0 on without a gap",
        )
    made = {left + right for left, right in vocabulary.merges} | byte_of_character().keys()
    for content, token in added.items():
        if content in made and (token["special"] or content != _spelled(content.encode())):
            raise UserError(f"text can become the added token {content!r}: merges make it", where=where)
    if pair := overlap(
        [content for content, token in added.items() if not token["special"]],
        [*(content for content, token in added.items() if token["special"]), *specials],
    ):
        raise UserError("the text token {!r} overlaps with the special token {!r}".format(*pair), where=where)


def _with_added(vocabulary: Vocabulary, added: dict[str, dict[str, Any]]) -> dict[str, int]:
    """The tokens with the added ones that stand among them: the library numbers the rest on from their count."""
    last = max(vocabulary.tokens.values())
    return vocabulary.tokens | {content: token["id"] for content, token in added.items() if token["id"] < last}


def _special(content: str, number: int) -> dict[str, Any]:
    return {"id": number, "content": content} | dict.fromkeys(FLAGS, False) | {"special": True}


def _splitters_of(split_pattern: str) -> list[dict[str, Any]]:
    return [
        {"type": "Split", "pattern": {"Regex": pattern_of(split_pattern)}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]


def _spelled(token: bytes) -> str:
    table = character_of_byte()
    return "".join(table[byte] for byte in token)
