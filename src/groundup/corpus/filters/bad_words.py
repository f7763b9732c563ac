"""Lists of words that no document may hold, as C4 used one (Raffel et al. 2020, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.corpus.characters import ALONE, IN_WORD, Characters, kinds_of_characters
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters.verdict import Verdict
from groundup.corpus.sizes import as_texts
from groundup.corpus.spans import count_between, ngram_hashes
from groundup.corpus.text import digest
from groundup.corpus.words import Words, normalised_words
from groundup.recipe.filters import BadWordsSection
from groundup.recipe.language import LANGUAGES, UNKNOWN
from groundup.run.errors import UserError

_JOINERS = " \t-'’."  # between the words of a phrase; an entry with any other sign is looked for as it is written


class BadWordsFilter:
    """Refuses documents with a word or phrase of the lists.

    Case does not count, nor what stands between the words of a phrase. Whole words are found; in scripts without spaces
    every letter is a word, so that an entry is found wherever it stands. Which documents are kept all the same
    (`keep_fraction`) goes by the digest of their text.
    """

    name = "bad_words"
    rules = ("bad_words",)

    def __init__(self, section: BadWordsSection) -> None:
        self.section = section
        self._lists = [_read(path, f"corpus.filters.bad_words.files[{i}]") for i, path in enumerate(section.files)]

    def __call__(self, batch: Batch) -> Outcome:
        verdict = Verdict(self.rules, len(batch))
        languages = _languages(batch)
        words = normalised_words(batch.texts)
        found = np.zeros(len(batch), np.int64)
        for each in self._lists:
            concerned = np.array(
                [each.language in (None, language) or language is None for language in languages], bool
            )
            if concerned.any():
                found += each.count(words) * concerned
        refused = found > 0
        if self.section.keep_fraction:
            for row in np.flatnonzero(refused).tolist():
                refused[row] = _position(batch.texts[row].as_py()) >= self.section.keep_fraction
        verdict.refuse("bad_words", refused, found)
        return verdict.outcome()


@dataclass(frozen=True)
class _List:
    """One list.

    Args:
        language: the documents it is for; None for all.
        phrases: by their number of words, the hashes of the entries, uint64 [e] ascending.
        begins: uint64 [b] ascending, the hashes of their first words.
        literal: entries with signs that are no part of words, in lower case.
    """

    language: str | None
    phrases: dict[int, np.ndarray]
    begins: np.ndarray
    literal: tuple[bytes, ...]

    def count(self, words: Words) -> np.ndarray:
        """int64 [n]: how often entries stand in each text."""
        ends = words.offsets[1:]
        first = np.flatnonzero(_among(words.hashes, self.begins))
        room = ends[words.documents[first]] - first
        found = np.zeros(len(ends), np.int64)
        for n, hashes in self.phrases.items():
            fits = first[room >= n]
            hits = fits[_among(ngram_hashes(words.hashes, fits, n), hashes)]
            found += np.bincount(words.documents[hits], minlength=len(found))
        for entry in self.literal:
            places = np.array(_places(words.source, entry), np.int64)
            found += count_between(places, words.text_starts, words.text_ends)
        return found


def _among(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """bool: the value is in the table; both uint64, the table ascending. Most are ruled out by their upper 16 bits."""
    marked = np.zeros(2**16, bool)
    marked[table >> np.uint64(48)] = True
    found = marked[values >> np.uint64(48)]
    likely = np.flatnonzero(found)
    found[likely] = np.isin(values[likely], table)
    return np.asarray(found)


def _places(source: Characters, entry: bytes) -> list[int]:
    """Where the entry stands with no letter or digit joined to its own, in lower case."""
    places = []
    place = source.data.find(entry)
    while place >= 0:
        end = place + len(entry)
        if not (_joined(source, place) or _joined(source, end)):
            places.append(place)
        place = source.data.find(entry, place + 1)
    return places


def _joined(source: Characters, place: int) -> bool:
    """A word goes on from before the place to behind it."""
    before, after = source.kinds[place - 1], source.kinds[place]
    return bool(IN_WORD[before] and IN_WORD[after] and ALONE not in (before, after))


def _read(path: str, where: str) -> _List:
    """A list from its file. Raises UserError where it cannot be read."""
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(
            f"cannot read the list of words {path!r}: {reason}",
            where=where,
            expected="a text file in UTF-8, a word or phrase a line",
            mend="correct the path in the recipe",
        ) from error
    entries = sorted({line.strip() for line in lines if line.strip()})
    if not entries:
        raise UserError(f"the list of words {path!r} is empty", where=where, expected="a word or phrase a line")
    signs = [entry for entry in entries if not _is_plain(entry)]
    words = normalised_words(as_texts([entry for entry in entries if _is_plain(entry)]))
    sizes, first = words.counts, words.offsets[:-1]
    written = normalised_words(as_texts(signs))
    spans = zip(written.text_starts.tolist(), written.text_ends.tolist(), strict=True)
    stem = file.name.split(".")[0].lower()
    return _List(
        stem if stem in LANGUAGES else None,
        {n: np.unique(ngram_hashes(words.hashes, first[sizes == n], n)) for n in np.unique(sizes[sizes > 0]).tolist()},
        np.unique(words.hashes[first[sizes > 0]]),
        tuple(written.source.data[start:end] for start, end in spans),
    )


def _is_plain(entry: str) -> bool:
    """The entry is made of words alone."""
    kinds = kinds_of_characters()
    return all(IN_WORD[kinds[ord(character)]] or character in _JOINERS for character in entry)


def _languages(batch: Batch) -> list[str | None]:
    """The language of each document, None where it is not known."""
    if "language" not in batch.columns:
        return [None] * len(batch)
    return [None if code == UNKNOWN else code for code in batch.columns["language"].to_pylist()]


def _position(text: str) -> float:
    """Where a document stands in [0, 1), independently of its place in the split of the corpus."""
    return int.from_bytes(digest(text)[8:14], "big") / 2**48
