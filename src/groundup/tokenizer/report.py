"""Figures of a run's tokenizer: how short it makes texts, how its vocabulary is used, and which size would be cheapest.

Two sources: texts, encoded again, of the validation split and of a sample of the training split; and the token shards,
in which every token of the training split is counted.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.recipe import Recipe, load_recipe
from groundup.run import GroundupError, UserError, progress
from groundup.tokenizer.encode import count_documents, open_table, row_batches, text_groups
from groundup.tokenizer.shards import TokenShards
from groundup.tokenizer.tokenizer import Tokenizer

SPLITS = ("validation", "train")
SAMPLE_BYTES = 64 * 2**20  # text of a split that is encoded again at most, about
GROUPS = 64  # row groups that a sample is drawn from at least
UNDER_TRAINED = 100  # occurrences
LISTED, TOP, POINTS = 50, 20, 60
BLOCK = 2**20  # ids counted at a time
SPACELESS = 0.3  # share of characters of scripts without spaces from which on words aren't counted
REFERENCE = "Land & Bartolo 2024, Fishing for Magikarp, arXiv:2405.05417"

# Thai, Lao, Tibetan, Burmese, Khmer, Japanese kana and Chinese characters stand without spaces between words.
_SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_MARKS = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}  # Unicode's categories of what can't be seen


class _Document(NamedTuple):
    text: str
    mixture: str
    language: str | None


def report(run: Path, compare: Path | None = None, *, sample_bytes: int = SAMPLE_BYTES) -> dict[str, Any]:
    """Measure the tokenizer of a run on its corpus. Memory is bounded, whatever the corpus's size.

    Args:
        run: a run directory with its corpus and tokenizer stages done.
        compare: another vocabulary, in any form that `adopt` reads, measured on the same texts.
        sample_bytes: of each split no more than about so much text is encoded again. What is drawn depends on the
            documents' ids alone.

    Returns a JSON-able dict: `tokenizer` {vocabulary_size, special, merges, engine, fingerprint}, `fertility` (see
    `fertility`), `vocabulary` (see `vocabulary_use`), `advice` (see `advice.advise`; None where the recipe plans no
    model or there is no text), `compare` {path, vocabulary_size} or None.

    Raises UserError where a stage is missing, GroundupError for shards that another vocabulary wrote.
    """
    run = Path(run)
    recipe = _recipe(run)
    tokenizer = Tokenizer.load(run / "tokenizer")
    other = None if compare is None else _adopted(compare)
    shards = TokenShards(run / "tokenizer" / "shards" / "train")
    counts = _counts(shards, tokenizer.vocabulary_size)
    return {
        "run": str(run),
        "tokenizer": {
            "vocabulary_size": tokenizer.vocabulary_size,
            "special": len(tokenizer.special_ids()),
            "merges": len(tokenizer.merges()),
            "engine": tokenizer.engine,
            "fingerprint": tokenizer.fingerprint,
        },
        "compare": other and {"path": str(compare), "vocabulary_size": other.vocabulary_size},
        "fertility": {split: fertility(run / "corpus", split, tokenizer, other, sample_bytes) for split in SPLITS},
        "vocabulary": vocabulary_use(tokenizer, counts),
        "advice": advice_for(recipe, tokenizer, counts),
    }


def fertility(
    corpus: Path, split: str, tokenizer: Tokenizer, other: Tokenizer | None = None, limit: int = SAMPLE_BYTES
) -> dict[str, Any]:
    """How many tokens the texts of a split take; of a chat its texts alone, without the format around them.

    Returns {documents, bytes, share, all, sources, languages}: `share` is the part of the split's documents that was
    encoded. `all`, and each of `sources` and `languages` by name, is {documents, bytes, characters, words, tokens,
    tokens_per_byte, tokens_per_character, tokens_per_word, bytes_per_token}, and where there is another vocabulary
    {other_tokens, other_tokens_per_byte, ratio}, `ratio` being our tokens for one of its. Words stand between white
    space; `tokens_per_word` is None where 30 % of the characters or more are of scripts that have none between words.
    `languages` is empty where the corpus names none. Ordered by bytes, the most first.
    """
    tallies: dict[tuple[str, str], NDArray[np.int64]] = {}
    groups = text_groups(corpus, split)
    size = sum(each for _, _, each in groups)
    with progress(f"encoding {split} texts", min(limit, size), "B") as bar:
        for documents in _sample(corpus, groups, size, limit):
            texts = [document.text for document in documents]
            ours = map(len, tokenizer.encode_batch(texts))
            theirs = map(len, other.encode_batch(texts)) if other else [0] * len(texts)
            sizes = map(_sizes, texts)
            rows = np.array([(*each, *more) for each, *more in zip(sizes, ours, theirs, strict=True)], np.int64)
            members: dict[tuple[str, str], list[int]] = {}
            for place, document in enumerate(documents):
                for key in (("all", ""), ("source", document.mixture), ("language", document.language or "unknown")):
                    members.setdefault(key, []).append(place)
            for key, places in members.items():
                tallies[key] = tallies.get(key, 0) + rows[places].sum(axis=0)
            bar.advance(float(rows[:, 1].sum()))
    whole = tallies.get(("all", ""), np.zeros(7, np.int64))
    total = count_documents(corpus, split)

    def named(kind: str) -> dict[str, Any]:
        found = sorted((-row[1], name) for (each, name), row in tallies.items() if each == kind)
        return {name: _rates(tallies[kind, name], compared=other is not None) for _, name in found}

    languages = named("language")
    return {
        "documents": int(whole[0]),
        "bytes": int(whole[1]),
        "share": int(whole[0]) / total if total else 0.0,
        "all": _rates(whole, compared=other is not None),
        "sources": named("source"),
        "languages": {} if set(languages) == {"unknown"} else languages,
    }


def count_ids(shards: TokenShards, vocabulary_size: int) -> NDArray[np.int64]:
    """How often each id occurs in all documents, [vocabulary].

    Raises GroundupError where an id is outside the vocabulary.
    """
    counts = np.zeros(vocabulary_size, np.int64)
    with progress("counting tokens", shards.tokens, "token") as bar:
        for block in _blocks(shards):
            if int(block.max()) >= vocabulary_size:
                raise GroundupError(
                    f"{shards.directory} holds id {int(block.max())}, and the vocabulary ends at {vocabulary_size - 1}"
                )
            counts += np.bincount(block, minlength=vocabulary_size)
            bar.advance(len(block))
    return counts


def vocabulary_use(tokenizer: Tokenizer, counts: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """How the ids of a vocabulary occur in the training tokens.

    A token that occurs rarely or never keeps the embedding it began with, and a prompt that contains it gets nonsense
    (Land & Bartolo 2024, arXiv:2405.05417, who find such tokens in trained models by their embeddings).

    Args:
        counts: [vocabulary], how often each id occurs.

    Returns {size, tokens, used, share_used, never_used, under_trained, unreachable, partial, longest, most_frequent,
    lengths, rank_frequency}. A token is {id, text, bytes, count}: `text` as `visible` shows it, `bytes` hexadecimal.

    - `never_used` {count, special, bytes, tokens}: how many, how many of these are special or single bytes, and the
      first of the others.
    - `under_trained` {below, count, tokens}: tokens that occur, but fewer than 100 times; the rarest first.
    - `unreachable` {count, tokens}: what a token spells is encoded differently, so no text of just that gives it.
    - `partial` {count, share, tokens}: no valid UTF-8 by themselves; their share of all tokens.
    - `lengths`: a list of {bytes, tokens, share}: how many tokens are so long, and their share of all that occur.
    - `rank_frequency`: at most 60 pairs [rank, count], the ranks about evenly apart in their logarithm (Zipf's law
      would be a straight line through the logarithms).
    """
    special = set(tokenizer.special_ids().values())
    contents = [tokenizer.token(number, special=True) for number in range(len(counts))]
    ordinary = [number for number in range(len(counts)) if number not in special]
    total = int(counts.sum())
    never = [number for number in range(len(counts)) if not counts[number]]
    learned = [number for number in never if number not in special and len(contents[number]) > 1]
    rare = sorted((int(counts[number]), number) for number in ordinary if 0 < counts[number] < UNDER_TRAINED)
    partial = [number for number in ordinary if not _is_text(contents[number])]
    texts = [number for number in ordinary if _is_text(contents[number])]
    encoded = tokenizer.encode_batch([contents[number].decode() for number in texts])
    unreachable = [number for number, ids in zip(texts, encoded, strict=True) if ids != [number]]
    by_length = sorted(ordinary, key=lambda number: (-len(contents[number]), number))
    by_count = np.argsort(-counts.astype(np.int64), kind="stable")
    used = int(np.count_nonzero(counts))

    def listed(numbers: Sequence[int], most: int = LISTED) -> list[dict[str, Any]]:
        return [
            {
                "id": int(number),
                "text": visible(contents[number]),
                "bytes": contents[number].hex(),
                "count": int(counts[number]),
            }
            for number in numbers[:most]
        ]

    return {
        "size": len(counts),
        "tokens": total,
        "used": used,
        "share_used": used / len(counts),
        "never_used": {
            "count": len(never),
            "special": sum(number in special for number in never),
            "bytes": sum(number not in special and len(contents[number]) == 1 for number in never),
            "tokens": listed(learned),
        },
        "under_trained": {
            "below": UNDER_TRAINED,
            "count": len(rare),
            "tokens": listed([number for _, number in rare]),
            "reference": REFERENCE,
        },
        "unreachable": {"count": len(unreachable), "tokens": listed(unreachable)},
        "partial": {
            "count": len(partial),
            "share": float(counts[partial].sum() / max(1, total)),
            "tokens": listed(partial),
        },
        "longest": listed(by_length, TOP),
        "most_frequent": listed([number for number in by_count.tolist() if counts[number]], TOP),
        "lengths": _lengths([len(contents[number]) for number in ordinary], counts[ordinary]),
        "rank_frequency": [[int(rank), int(counts[by_count[rank - 1]])] for rank in _ranks(used)],
    }


def visible(content: bytes, *, spaces: bool = True) -> str:
    """Bytes as they may be shown on a terminal, in which nothing hides and nothing commands.

    White space becomes · ⏎ ␍ ⇥ (only ␍ where `spaces` is False); what is no valid UTF-8, as a part of a character,
    becomes its bytes, as <E4><B8>; what can't be seen or would turn the direction of writing its number, as ⟨U+202E⟩;
    and a mark that would sit on the character before it gets a circle.
    """
    shown = []
    for place, character in enumerate(content.decode("utf-8", "surrogateescape")):
        category = unicodedata.category(character)
        if character in _MARKS:
            shown.append(character if not spaces and character != "\r" else _MARKS[character])
        elif "\udc80" <= character <= "\udcff":
            shown.append(f"<{ord(character) - 0xDC00:02X}>")
        elif category in _UNSEEN:
            shown.append(f"⟨U+{ord(character):04X}⟩")
        else:
            shown.append("◌" + character if category[0] == "M" and not place else character)
    return "".join(shown)


def _recipe(run: Path) -> Recipe:
    if not (run / "recipe.toml").is_file():
        raise UserError(
            f"{str(run)!r} is not a run: it has no recipe.toml",
            mend="give a directory made by groundup build; groundup runs lists them",
        )
    if not (run / "tokenizer" / "tokenizer.json").is_file():
        raise UserError(f"{str(run)!r} has no tokenizer yet", mend="groundup build RECIPE --until tokenizer makes it")
    if not any((run / "corpus" / "documents").glob("train-*.parquet")):
        raise UserError(f"{str(run)!r} has no corpus", mend="groundup build RECIPE --until corpus makes it")
    return load_recipe(run / "recipe.toml")


def _adopted(path: Path) -> Tokenizer:
    from groundup.tokenizer.adopt import adopt

    return Tokenizer(adopt(path).json)


def advice_for(recipe: Recipe, tokenizer: Tokenizer, counts: NDArray[np.int64]) -> dict[str, Any] | None:
    """What `advise` says of the model that the recipe plans, in rows as long as pretraining's; None without one."""
    special = list(tokenizer.special_ids().values())
    if "model" not in recipe.model_fields_set or counts.sum() == counts[special].sum():
        return None
    from groundup.model import Architecture
    from groundup.tokenizer.advice import advise

    arch = Architecture.from_section(recipe.model, tokenizer.vocabulary_size)
    asked = recipe.tokenizer if recipe.tokenizer is not None and recipe.tokenizer.adopt is None else None
    context = (recipe.pretrain and recipe.pretrain.sequence_length) or arch.context_length
    exhausted = asked is not None and tokenizer.vocabulary_size < asked.vocabulary_size
    return advise(tokenizer, counts, arch, context, exhausted=exhausted)


def _sample(corpus: Path, groups: list[tuple[str, int, int]], size: int, limit: int) -> Iterator[list[_Document]]:
    """Documents of about `limit` bytes, out of row groups (see `text_groups`) that hold `size`.

    Of a large split, row groups evenly apart are read, four times as many as hold `limit` bytes, and of each the
    documents whose id's checksum is below a bound: little is read, and every part of the corpus has its share.
    """
    share = 1.0
    if size > limit:
        wanted = min(len(groups), max(GROUPS, int(4 * limit / size * len(groups)) + 1))
        groups = [groups[place * len(groups) // wanted] for place in range(wanted)]
        share = limit / max(1, sum(each for _, _, each in groups))
    columns = ["id", "text", "mixture", "language"]
    for name, part in groupby(groups, key=lambda group: group[0]):
        with open_table(corpus / "documents" / name) as file:
            for batch in row_batches(file, [group for _, group, _ in part], columns):
                rows = zip(*(batch.column(column).to_pylist() for column in columns), strict=True)
                kept = [_Document(*row) for key, *row in rows if zlib.crc32(key.encode()) < share * 2**32]
                if kept:
                    yield kept


def _sizes(text: str) -> tuple[int, int, int, int, int]:
    """(1, bytes, characters, words, characters of scripts without spaces)."""
    if text.isascii():
        return 1, len(text), len(text), len(text.split()), 0
    spaceless = sum(map(len, _SPACELESS.findall(text)))
    return 1, len(text.encode()), len(text), len(text.split()), spaceless


def _rates(row: NDArray[np.int64], *, compared: bool) -> dict[str, Any]:
    documents, size, characters, words, spaceless, tokens, others = row.tolist()
    counted = words and spaceless < SPACELESS * characters
    rates: dict[str, Any] = {
        "documents": documents,
        "bytes": size,
        "characters": characters,
        "words": words,
        "tokens": tokens,
        "tokens_per_byte": tokens / max(1, size),
        "tokens_per_character": tokens / max(1, characters),
        "tokens_per_word": tokens / words if counted else None,
        "bytes_per_token": size / max(1, tokens),
    }
    if compared:
        rates |= {
            "other_tokens": others,
            "other_tokens_per_byte": others / max(1, size),
            "ratio": tokens / max(1, others),
        }
    return rates


def _counts(shards: TokenShards, vocabulary_size: int) -> NDArray[np.int64]:
    """How often each id occurs: as counted when the shards were written, or else counted now."""
    path = shards.directory / "counts.bin"
    if path.exists():
        counts = np.fromfile(path, "<u8").astype(np.int64)
        if len(counts) == vocabulary_size and counts.sum() == shards.tokens:
            return counts
    return count_ids(shards, vocabulary_size)


def _blocks(shards: TokenShards) -> Iterator[NDArray[np.integer[Any]]]:
    """All ids in blocks of about `BLOCK`, none of them empty."""
    held: list[NDArray[np.integer[Any]]] = []
    size = 0
    for number in range(len(shards)):
        ids = shards.doc(number)
        for start in range(0, len(ids), BLOCK):
            part = ids[start : start + BLOCK]
            held.append(part)
            size += len(part)
            if size >= BLOCK:
                yield np.concatenate(held)
                held, size = [], 0
    if size:
        yield np.concatenate(held)


def _lengths(lengths: Sequence[int], counts: NDArray[np.integer[Any]]) -> list[dict[str, Any]]:
    tokens = np.bincount(lengths)
    occurrences = np.bincount(lengths, weights=counts)
    total = max(1.0, float(occurrences.sum()))
    return [
        {"bytes": int(length), "tokens": int(tokens[length]), "share": float(occurrences[length] / total)}
        for length in np.flatnonzero(tokens)
    ]


def _ranks(used: int) -> list[int]:
    """At most `POINTS` ranks from 1 to `used`."""
    return np.unique(np.geomspace(1, used, POINTS).round().astype(np.int64)).tolist() if used else []


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
