"""The texts of tests as runs of words, and finding these in documents.

A test's text and a document share a run when `ngram` words in a row are equal (13 by default: Brown et al. 2020,
appendix C), words being runs of letters, marks and numbers in lower case (`dedup.stretches.hash_words`): case,
punctuation and white space play no part. Of a test's text with fewer words than that the whole has to occur, and it
is looked for only if it has `SHORTEST` words or more: shorter ones occur by chance.

Runs are compared by 64-bit hashes: where 10¹² words are looked up among 10⁷ runs, half a match by chance is expected.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from groundup.corpus.dedup.groups import distinct, firsts
from groundup.corpus.dedup.stretches import Words, hash_words
from groundup.corpus.readers.formats import format_of
from groundup.corpus.readers.json_values import read_values
from groundup.corpus.readers.streams import UnreadableError, Utf8Stream, open_stream
from groundup.corpus.text import decode, normalise
from groundup.recipe.dedup import DecontaminateSection
from groundup.run import UserError

SHORTEST = 8  # words

_BASE = 0xD1342543DE82EF95  # odd, as in `stretches`
_INVERSE = pow(_BASE, -1, 2**64)
_BLANK = re.compile(r"\n\s*\n")
_TEXTS_AT_ONCE = 4096
_LARGEST = 2**36  # bytes of a file of tests, unpacked


class Hits(NamedTuple):
    """Runs of words that documents of a batch share with tests, sorted by document and place.

    Args:
        documents: int64 [h], of which text of the batch.
        starts, ends: int64 [h], the characters (code points) of that text where the run begins and ends.
        runs: int64 [h], the place of the run in `Targets.hashes`.
    """

    documents: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    runs: np.ndarray


@dataclass(frozen=True, eq=False)
class Targets:
    """The runs of words of all tests.

    Args:
        tasks: names.
        ngram: words in a run.
        lengths: int64 [l], the numbers of words that runs have: `ngram`, and fewer where short texts are whole runs.
        hashes: uint64 [g], sorted.
        offsets: int64 [g + 1]; the texts that have run i are owners[offsets[i] : offsets[i + 1]].
        owners: int32 [o], numbers of texts.
        owner_tasks: int32 [t], the task of every text.
        skipped: int64 [tasks], texts too short to be looked for; they are in `owner_tasks` too.
        openings: uint64 [p], sorted: hashes of the first words of runs, so many as the shortest run can have.
        bitmap: uint8 [b], of which bit i is set if one of `openings` begins with the bits of i.
    """

    tasks: tuple[str, ...]
    ngram: int
    lengths: np.ndarray
    hashes: np.ndarray
    offsets: np.ndarray
    owners: np.ndarray
    owner_tasks: np.ndarray
    skipped: np.ndarray
    openings: np.ndarray
    bitmap: np.ndarray

    @staticmethod
    def of_section(section: DecontaminateSection, tests: Iterable[tuple[str, str]]) -> Targets:
        """What a recipe looks for: the (task, text) of `tests`, and its files. Raises UserError as `read_tests`."""
        return Targets.build(chain(tests, *map(read_tests, section.files)), section.ngram)

    @staticmethod
    def build(pairs: Iterable[tuple[str, str]], ngram: int) -> Targets:
        """Targets from (task, text) of all tests' texts. Memory is about 60 bytes a word."""
        tasks: dict[str, int] = {}
        owner_tasks: list[int] = []
        skipped = [0]
        found = [np.zeros((0, 3), np.uint64)]  # a run's hash, its opening's, the number of its text
        lengths: set[int] = set()
        stream = iter(pairs)
        while some := list(islice(stream, _TEXTS_AT_ONCE)):
            texts = [normalise(text) for _, text in some]
            words = _all_words("\n".join(texts))
            of_text = _documents(words.starts, texts)
            counts = np.bincount(of_text, minlength=len(texts))
            for length in _lengths(counts, ngram):
                lengths.add(length)
                places = np.arange(max(0, len(of_text) - length + 1))
                places = places[of_text[places] == of_text[places + length - 1]]
                if length < ngram:
                    places = places[counts[of_text[places]] == length]
                runs = _Runs(words.hashes)
                owners = (of_text[places] + len(owner_tasks)).astype(np.uint64)
                columns = (runs.hashes(places, length), runs.hashes(places, _shortest(ngram)), owners)
                found.append(np.stack(columns, axis=1))
            for (task, _), count in zip(some, counts.tolist(), strict=True):
                owner_tasks.append(tasks.setdefault(task, len(tasks)))
                skipped += [0] * (len(tasks) - len(skipped))
                skipped[owner_tasks[-1]] += count < _shortest(ngram)
        rows = distinct(np.concatenate(found))
        starts = np.flatnonzero(firsts(rows[:, 0]))
        openings = np.unique(rows[:, 1])
        return Targets(
            tuple(tasks),
            ngram,
            np.array(sorted(lengths), np.int64),
            np.ascontiguousarray(rows[starts, 0]),
            np.append(starts, len(rows)),
            rows[:, 2].astype(np.int32),
            np.array(owner_tasks, np.int32),
            np.array(skipped[: len(tasks)], np.int64),
            openings,
            _bitmap(openings),
        )

    def save(self, folder: Path) -> None:
        """Write the targets into a folder as targets.npz."""
        names = np.frombuffer("\0".join(self.tasks).encode("utf-8", "surrogatepass"), np.uint8)
        arrays = {name: getattr(self, name) for name in _SAVED}
        np.savez(folder / _FILE, allow_pickle=False, tasks=names, ngram=np.array(self.ngram), **arrays)

    @staticmethod
    def load(folder: Path) -> Targets:
        """Read what `save` wrote. Raises UserError where that is missing or damaged."""
        try:
            with np.load(folder / _FILE, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _SAVED}
                names = file["tasks"].tobytes().decode("utf-8", "surrogatepass")
                ngram = int(file["ngram"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(f"the tests' runs of words can't be read: {error}", where=str(folder / _FILE)) from error
        tasks = tuple(names.split("\0")) if len(arrays["skipped"]) else ()
        return Targets(tasks, ngram, **arrays, bitmap=_bitmap(arrays["openings"]))

    def find(self, texts: Sequence[str]) -> Hits:
        """The runs that the texts share with tests. Memory doesn't grow with a text's length but for its hits."""
        found = [(np.zeros(0, np.int64),) * 3]
        if len(self.hashes):
            longest = int(self.lengths.max())
            words = Words(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
            for block in hash_words("\n".join(texts)):
                words = Words(*(np.concatenate(both) for both in zip(words, block, strict=True)))
                done = max(0, len(words.hashes) - longest + 1)
                found += self._look_up(words, done)
                words = Words(*(column[done:] for column in words))
            found += self._look_up(words, len(words.hashes))
        starts, ends, runs = (np.concatenate(parts) for parts in zip(*found, strict=True))
        documents = _documents(starts, texts)
        begin = _begins(texts)[documents]
        inside = documents == _documents(ends - 1, texts)
        hits = Hits(*(column[inside] for column in (documents, starts - begin, ends - begin, runs)))
        order = np.lexsort((hits.ends, hits.starts, hits.documents))
        return Hits(*(column[order] for column in hits))

    def _look_up(self, words: Words, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(starts, ends, runs) of the tests' runs that begin at the first `count` words."""
        shortest = _shortest(self.ngram)
        runs = _Runs(words.hashes)
        openings = runs.hashes(np.s_[: min(count, max(0, len(words.hashes) - shortest + 1))], shortest)
        bits = openings >> np.uint64(64 - len(self.bitmap).bit_length() - 2)
        likely = (self.bitmap[bits >> np.uint64(3)] >> (bits & np.uint64(7)).astype(np.uint8)) & 1
        places = np.flatnonzero(likely)
        places = places[_places_in(self.openings, openings[places]) >= 0]
        for length in self.lengths.tolist():
            whole = places[places + length <= len(words.hashes)]
            which = _places_in(self.hashes, runs.hashes(whole, length))
            whole, which = whole[which >= 0], which[which >= 0]
            yield words.starts[whole], words.ends[whole + length - 1], which

    def texts_of(self, runs: np.ndarray) -> np.ndarray:
        """int64: the numbers of the tests' texts that have any of the runs, rising."""
        runs = np.unique(runs)
        parts = [self.owners[self.offsets[run] : self.offsets[run + 1]] for run in runs.tolist()]
        return np.unique(np.concatenate([np.zeros(0, np.int32), *parts]))


_FILE = "targets.npz"
_SAVED = ("lengths", "hashes", "offsets", "owners", "owner_tasks", "skipped", "openings")


class _Runs:
    """Hashes of runs of words from the words' hashes, uint64 [w].

    With running sums S of wᵢ·Cⁱ the run of n words from the i-th on has (Sᵢ₊ₙ − Sᵢ)·C⁻ⁱ (see `dedup.stretches`).
    """

    def __init__(self, words: np.ndarray) -> None:
        self.words = len(words)
        self.sums = np.zeros(len(words) + 1, np.uint64)
        np.cumsum(words * _powers(_BASE, len(words)), out=self.sums[1:])

    def hashes(self, places: slice | np.ndarray, length: int) -> np.ndarray:
        """uint64: of the runs of `length` words from the given words on, all of which are whole."""
        inverse = _powers(_INVERSE, self.words)
        runs = (self.sums[length:][places] - self.sums[places]) * inverse[places]
        return np.asarray(runs)


def _places_in(known: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """int64: the places of hashes among the known ones, which are sorted; −1 for those that aren't there."""
    places = np.searchsorted(known, hashes)
    places[places == len(known)] = 0
    return np.where(known[places] == hashes, places, -1)


def read_tests(path: str) -> Iterator[tuple[str, str]]:
    """(task, text) of a file of tests, compressed or not; the task is the file's name without its endings.

    Of .jsonl and .json every string of every record is a text, however deep. Any other file is text: its paragraphs
    are texts, or its lines where none is blank.

    Raises UserError for a file that can't be read, and for a record that is no JSON.
    """
    task = posixpath.basename(path.replace("\\", "/")).split(".")[0] or path
    try:
        with open_stream(path, _LARGEST) as file:
            stream = Utf8Stream(file)
            if format_of(path) == "jsonl":
                for number, _, parsed in read_values(stream):
                    if parsed.reason:
                        raise UserError(f"record {number} is unreadable ({parsed.reason})", where=path)
                    yield from ((task, text) for text in _strings(parsed.value))
            else:
                text = decode(b"".join(iter(stream.read, b""))).text.strip()
                yield from ((task, part) for part in (_BLANK.split(text) if _BLANK.search(text) else text.split("\n")))
    except UnreadableError as error:
        raise UserError(f"tests can't be read: {error}", where=path) from error


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value but keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _all_words(text: str) -> Words:
    blocks = list(hash_words(text))
    return Words(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def _shortest(ngram: int) -> int:
    return min(SHORTEST, ngram)


def _lengths(counts: np.ndarray, ngram: int) -> list[int]:
    """The lengths of runs that texts of so many words have."""
    lengths: list[int] = np.unique(np.minimum(counts[counts >= _shortest(ngram)], ngram)).tolist()
    return lengths


def _begins(texts: Sequence[str]) -> np.ndarray:
    """int64 [n]: where each text begins when all are joined by one character."""
    return np.cumsum([0, *(len(text) + 1 for text in texts[:-1])], dtype=np.int64)


def _documents(places: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """int64: the texts that characters of the joined texts are in."""
    return np.searchsorted(_begins(texts), places, "right") - 1


def _powers(base: int, count: int) -> np.ndarray:
    """uint64 [count] base⁰, base¹, … modulo 2**64."""
    return _power_table(base, max(0, count - 1).bit_length())[:count]


@lru_cache(maxsize=64)
def _power_table(base: int, bits: int) -> np.ndarray:
    powers = np.full(2**bits, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _bitmap(hashes: np.ndarray) -> np.ndarray:
    """A bit for every value of the leading bits of hashes (sorted), of which one in sixteen or fewer is set."""
    bits = min(32, max(16, len(hashes).bit_length() + 4))
    places = hashes >> np.uint64(64 - bits)
    which = (places >> np.uint64(3)).astype(np.int64)
    first = np.flatnonzero(firsts(which))
    bitmap = np.zeros(2 ** (bits - 3), np.uint8)
    if len(hashes):
        bitmap[which[first]] = np.bitwise_or.reduceat(np.uint8(1) << (places & np.uint64(7)).astype(np.uint8), first)
    return bitmap
