"""Sentence pairs: read from files or made, held out by their words, and shown as padded updates."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from groundup.model import IGNORE
from groundup.recipe import PairsTable, Seq2SeqSection
from groundup.run import UserError
from groundup.storyworld import (
    TRANSLATION_SPLITS,
    SentencePair,
    bag_of_words,
    translation_tests,
    translation_validation,
    translations,
)
from groundup.tokenizer.words import BOS, PAD

BUILTIN = "builtin:translation"
DEFAULT_COUNT = 60_000
TRAINING, VALIDATION, HELD_OUT = "training", "validation", "held_out"
"""What pairs of files are for; the last is the test split that is taken from them."""
VALIDATED = 200
"""Sentences at most that are translated, greedily, as training goes."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TextPair:
    """A sentence and its translation as texts."""

    source: str
    target: str


@dataclass(frozen=True)
class PairData:
    """What a section's data are. No source is in two of: pairs to learn from, pairs to validate with, test splits."""

    training: list[TextPair]
    validation: list[TextPair]
    """what is measured while training, and may be chosen by"""
    tests: dict[str, list[TextPair]]
    pairs_left_out: int
    """pairs of files that are made of the words of a built-in sentence held out"""
    tests_left_out: int
    """pairs of test splits that the training data have too"""


def read_pairs(section: Seq2SeqSection, seed: int) -> PairData:
    """All pairs of a section: those to learn from, at most ``VALIDATED`` to validate with, at most ``section.tests`` of
    each test split.

    Pairs of files are held out by a hash of the source without its white space, so the same source is never on both
    sides; the built-in data hold sentences out by their words, and what a file has of these is left out.

    Raises:
        UserError: a file is missing, a line is no pair, nothing is left to learn from, or two splits share a name.
    """
    parts, tests, pairs_left_out = _dealt(section, seed)
    if not parts[TRAINING]:
        raise UserError(
            "no sentence pair is left to learn from",
            where="[seq2seq] data",
            mend="give more pairs, or a smaller held_out_fraction and validation_fraction",
        )
    # What is dealt from files shares no source, by its hash; built-in sentences and test files know nothing of that.
    trained = _keys(parts[TRAINING]) if tests or section.test_data else set()
    if parts[HELD_OUT]:
        tests[HELD_OUT] = parts[HELD_OUT]
    tests |= _test_files(section.test_data, tests)
    untrained = {split: _others(pairs, trained) for split, pairs in tests.items()}
    for name in section.test_data:
        if not untrained[_split(name)]:
            raise UserError("no pair that is not in the training data", where=name, expected="other sentences")
    known = trained.union(*map(_keys, untrained.values()))
    return PairData(
        parts[TRAINING],
        _chosen(_others(parts[VALIDATION], known), VALIDATED),
        {split: _chosen(pairs, section.tests) for split, pairs in untrained.items() if pairs},
        pairs_left_out,
        sum(len(pairs) - len(untrained[split]) for split, pairs in tests.items()),
    )


def _dealt(section: Seq2SeqSection, seed: int) -> tuple[dict[str, list[TextPair]], dict[str, list[TextPair]], int]:
    """The pairs of ``section.data`` by what they are for, the built-in test splits, and how many pairs of files are
    left out for the words of a built-in sentence that is held out."""
    tables = [item if isinstance(item, PairsTable) else PairsTable(path=item) for item in section.data]
    tests: dict[str, list[TextPair]] = {}
    parts: dict[str, list[TextPair]] = {TRAINING: [], VALIDATION: [], HELD_OUT: []}
    if any(table.path == BUILTIN for table in tables):
        parts[VALIDATION] = _texts(translation_validation(seed, VALIDATED))
        tests = {split: _texts(translation_tests(seed, split, section.tests)) for split in TRANSLATION_SPLITS}
    reserved = {bag_of_words(pair.source) for pairs in (parts[VALIDATION], *tests.values()) for pair in pairs}
    left_out = 0
    for table in tables:
        if table.path == BUILTIN:
            parts[TRAINING] += _texts(translations(seed, table.count or DEFAULT_COUNT))
            continue
        for pair in _pairs(Path(table.path), table.count):
            if reserved and bag_of_words(pair.source) in reserved:
                left_out += 1
            else:
                parts[_part(pair.source, section)].append(pair)
    return parts, tests, left_out


def _texts(pairs: Iterable[SentencePair]) -> list[TextPair]:
    return [TextPair(pair.source, pair.target) for pair in pairs]


def _part(source: str, section: Seq2SeqSection) -> str:
    """What a pair of a file is for."""
    share = _share(source)
    if share < section.held_out_fraction:
        return HELD_OUT
    return VALIDATION if share < section.held_out_fraction + section.validation_fraction else TRAINING


def _test_files(names: Sequence[str], others: Mapping[str, Any]) -> dict[str, list[TextPair]]:
    """The pairs of test files by the names of their splits, of which none may be among the ``others``."""
    found: dict[str, list[TextPair]] = {}
    for name in names:
        split = _split(name)
        if split in found or split in others:
            raise UserError(f"two test splits are called {split!r}", where=name, mend="rename the file")
        found[split] = list(_pairs(Path(name), None))
    return found


def _split(name: str) -> str:
    return Path(name).name.partition(".")[0]


def _keys(pairs: Iterable[TextPair]) -> set[str]:
    return {_key(pair.source) for pair in pairs}


def _others(pairs: Iterable[TextPair], known: set[str]) -> list[TextPair]:
    """The pairs of other sources than these."""
    return [pair for pair in pairs if _key(pair.source) not in known]


def _chosen(pairs: list[TextPair], most: int) -> list[TextPair]:
    """Different pairs, at most so many: where there are more, not the first of the file but those of the least hash."""
    different = list(dict.fromkeys(pairs))
    return different if len(different) <= most else sorted(different, key=lambda pair: _share(pair.source))[:most]


def _key(source: str) -> str:
    return "".join(source.split())


def _share(source: str) -> float:
    """A number from 0 to below 1 that depends on the text alone, and not on its white space."""
    return zlib.crc32(_key(source).encode("utf-8", "surrogatepass")) / 2**32


def _pairs(path: Path, count: int | None) -> Iterator[TextPair]:
    """The pairs of a file, blank lines left out."""
    kinds: dict[str, Callable[[str], Any]] = {".jsonl": _of_json, ".tsv": _of_tabs}
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in kinds:
        raise UserError(
            f"{path.name} is no file of pairs", where=str(path), expected=f"{BUILTIN}, .jsonl or .tsv (.gz)"
        )
    taken = 0
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        found = kinds[suffix](line)
        if isinstance(found, str):
            raise UserError(found, where=f"{path}:{number}", expected="a source and a target that are not empty")
        yield found
        taken += 1
        if taken == count:
            return


def _lines(path: Path) -> Iterator[str]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as file
        ):
            yield from file
    except FileNotFoundError as error:
        raise UserError(
            f"no file {str(path)!r}", mend="check the path; relative paths start at the working directory"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8: {error}", where=str(path), mend="convert the file to UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"a damaged gzip file: {error}", where=str(path)) from error


def _of_json(line: str) -> TextPair | str:
    """The pair of a line, or what is wrong with it."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(record, dict):
        return f"a {type(record).__name__}, not an object"
    for key in ("source", "target"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            return f"{key!r} is {record.get(key)!r}"[:200]
    return TextPair(record["source"], record["target"])


def _of_tabs(line: str) -> TextPair | str:
    columns = line.rstrip("\r\n").split("\t")
    if len(columns) != 2 or not all(column.strip() for column in columns):
        return f"{len(columns)} columns: {line.strip()!r}"[:200]
    return TextPair(*columns)


@dataclass(frozen=True)
class PairRows:
    """Sentence pairs, one a row, padded on the right. All are [rows, places] int64.

    sources: what the encoder reads. inputs: the begin mark, then the target but its last. targets: what the decoder is
    to write, :data:`IGNORE` where there is nothing.
    """

    sources: Integers
    inputs: Integers
    targets: Integers

    @classmethod
    def of(cls, pairs: Sequence[tuple[Integers, Integers]]) -> Self:
        """Rows of (source, target) ids, both with their end marks."""
        width, places = (max(len(pair[side]) for pair in pairs) for side in (0, 1))
        rows = cls(
            np.full((len(pairs), width), PAD, np.int64),
            np.full((len(pairs), places), PAD, np.int64),
            np.full((len(pairs), places), IGNORE, np.int64),
        )
        for row, (source, target) in enumerate(pairs):
            rows.sources[row, : len(source)] = source
            rows.inputs[row, : len(target)] = [BOS, *target[:-1]]
            rows.targets[row, : len(target)] = target
        return rows

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def length(self) -> int:
        """Places of the longer side."""
        return int(max(self.sources.shape[1], self.targets.shape[1]))

    @property
    def source_tokens(self) -> int:
        return int(np.count_nonzero(self.sources != PAD))

    @property
    def target_tokens(self) -> int:
        return int(np.count_nonzero(self.targets != IGNORE))

    @property
    def tokens(self) -> int:
        """Words of both sides, end marks included."""
        return self.source_tokens + self.target_tokens

    def slice(self, start: int, end: int) -> PairRows:
        """Rows ``start`` to ``end`` (excluded), without the columns that none of them fills."""
        cut = {field.name: getattr(self, field.name)[start:end] for field in fields(self)}
        width = int((cut["sources"] != PAD).sum(1).max(initial=0))
        places = int((cut["targets"] != IGNORE).sum(1).max(initial=0))
        return PairRows(cut["sources"][:, :width], cut["inputs"][:, :places], cut["targets"][:, :places])


class SentencePairs:
    """Updates of a fixed number of pairs; update ``step`` is a pure function of (seed, step).

    Args:
        pairs: (source, target) ids with their end marks.
    """

    def __init__(self, pairs: Sequence[tuple[Integers, Integers]], per_update: int, seed: int) -> None:
        self.pairs, self.per_update, self.seed = pairs, per_update, seed
        self._cached: tuple[int, Integers] = (-1, np.zeros(0, np.int64))

    def chosen(self, step: int) -> list[int]:
        """Numbers of the pairs of an update: each epoch is a new permutation, and none is left out."""
        total = len(self.pairs)
        places = (divmod(at, total) for at in range(step * self.per_update, (step + 1) * self.per_update))
        return [int(self._order(epoch)[place]) for epoch, place in places]

    def _order(self, epoch: int) -> Integers:
        if self._cached[0] != epoch:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._cached = (epoch, generator.permutation(len(self.pairs)))
        return self._cached[1]

    def passes(self, step: int) -> float:
        """Passes over the pairs in the first ``step`` updates."""
        return step * self.per_update / len(self.pairs)

    def update(self, step: int) -> PairRows:
        """The rows of one update, the longest first, so that micro-batches have little padding."""
        chosen = [self.pairs[number] for number in self.chosen(step)]
        return PairRows.of(sorted(chosen, key=lambda pair: (-len(pair[0]), -len(pair[1]))))

    def mean_tokens(self) -> float:
        """Words of an update, both sides, on average."""
        return self.per_update * sum(len(source) + len(target) for source, target in self.pairs) / len(self.pairs)
