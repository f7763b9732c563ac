"""Figures of a finished corpus, from its files in one pass with bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.corpus.sizes import measure
from groundup.corpus.store import documents_files, read_groups
from groundup.run import Bar, progress

SPLITS = ("train", "validation")
COLUMNS = ("text", "source", "mixture", "language", "quality", "licence")
FILES = 2**17  # files kept in mind at most
LARGEST = 10
REPETITIONS = ("exact_duplicates", "boilerplate", "lines", "near_duplicates")
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
QUALITY_BINS = 10
PATIENCE = 2.0  # seconds before a bar is shown


class Lengths:
    """Quantiles of whole numbers from 0 to 2^53 in bounded memory, each within 0.1 % of the true one.

    Numbers below 2,048 are counted one by one; above, each power of two is divided into 1,024 parts of equal width,
    as in an HDR histogram (Tene 2014). Minimum, maximum and sum are exact.
    """

    _EXACT = 11  # bits

    def __init__(self) -> None:
        self.count, self.total = 0, 0
        self.low: int | None = None
        self.high: int | None = None
        self._counts = np.zeros((53 - self._EXACT) * 2 ** (self._EXACT - 1) + 2**self._EXACT, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count the int64 `values` [n]."""
        if not len(values):
            return
        shift = np.maximum(np.frexp(values.astype(np.float64))[1] - self._EXACT, 0).astype(np.int64)
        np.add.at(self._counts, shift * 2 ** (self._EXACT - 1) + (values >> shift), 1)
        self.count += len(values)
        self.total += int(values.sum())
        low, high = int(values.min()), int(values.max())
        self.low = low if self.low is None else min(low, self.low)
        self.high = high if self.high is None else max(high, self.high)

    def quantile(self, share: float) -> int:
        """The least number that at least this share of all numbers doesn't exceed; 0 where there is none."""
        if self.low is None or self.high is None:
            return 0
        rank = max(1, int(np.ceil(share * self.count)))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        half = 2 ** (self._EXACT - 1)
        shift = max(0, place // half - 1)
        middle = ((place - shift * half) << shift) + ((1 << shift) - 1) // 2
        return int(np.clip(middle, self.low, self.high))

    def as_json(self) -> dict[str, float]:
        """Minimum, quantiles, maximum and mean."""
        quantiles = {f"p{round(100 * share)}": self.quantile(share) for share in QUANTILES}
        mean = self.total / self.count if self.count else 0.0
        return {"min": self.low or 0, **quantiles, "max": self.high or 0, "mean": round(mean, 2)}


class _Sizes:
    """Passages, bytes and words by a name."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {}

    def add(self, names: pa.ChunkedArray, sizes: np.ndarray, words: np.ndarray) -> None:
        encoded = pc.fill_null(names, "").combine_chunks().dictionary_encode()
        indices = encoded.indices.to_numpy()
        count = len(encoded.dictionary)
        passages = np.bincount(indices, minlength=count)
        total = [np.bincount(indices, weights=values, minlength=count) for values in (sizes, words)]
        for place, name in enumerate(encoded.dictionary.to_pylist()):
            tally = self.found.setdefault(name, [0, 0, 0])
            for column, values in enumerate((passages, *total)):
                tally[column] += int(values[place])

    def prune(self, most: int) -> None:
        """Forget the smaller half where there are more than `most` names."""
        if len(self.found) > most:
            largest = sorted(self.found.items(), key=lambda item: -item[1][1])[: most // 2]
            self.found = dict(largest)

    def as_json(self, unnamed: str = "unknown") -> dict[str, dict[str, int]]:
        """By bytes, the most first."""
        ordered = sorted(self.found.items(), key=lambda item: (-item[1][1], item[0]))
        return {
            name or unnamed: dict(zip(("passages", "bytes", "words"), tally, strict=True)) for name, tally in ordered
        }


def corpus_statistics(corpus: Path) -> dict[str, Any]:
    """Measure the documents in the directory RUN/corpus.

    Returns a JSON-able dict: `splits`, `sources`, `languages` and `licences` as {name: {passages, bytes, words}},
    `lengths` as {"bytes" | "words": {min, p1, …, p99, max, mean}} (see `Lengths`), `quality` as {edges, counts,
    unknown}, `largest_files` as a list of {file, source, passages, bytes, words}. Bytes are UTF-8, words stand
    between white space. Of more than 131,072 files the smaller ones are forgotten as it goes; since the passages
    of a file stand together, the largest are found all the same.

    Raises UserError where there is no corpus.
    """
    splits, sources, languages, licences, files = (_Sizes() for _ in range(5))
    lengths = {"bytes": Lengths(), "words": Lengths()}
    quality = np.zeros(QUALITY_BINS, np.int64)
    unknown = 0
    paths = [(split, path) for split in SPLITS for path in documents_files(corpus, split)]
    for split, table in _with_bar(paths):
        sizes, words = measure(table.column("text").combine_chunks().cast(pa.large_string()))
        lengths["bytes"].add(sizes)
        lengths["words"].add(words)
        splits.add(pa.chunked_array([pa.repeat(split, len(table))]), sizes, words)
        for found, column in ((sources, "mixture"), (languages, "language")):
            found.add(table.column(column), sizes, words)
        licences.add(_licences(table.column("licence")), sizes, words)
        place = pc.binary_join_element_wise(table.column("mixture"), table.column("source"), "\0")
        files.add(place, sizes, words)
        files.prune(FILES)
        scores = table.column("quality").drop_null().to_numpy()
        quality += np.histogram(np.clip(scores, 0, 1), QUALITY_BINS, (0, 1))[0]
        unknown += len(table) - len(scores)
    return {
        "splits": splits.as_json(),
        "sources": sources.as_json(),
        "languages": languages.as_json(),
        "licences": licences.as_json(),
        "lengths": {unit: found.as_json() for unit, found in lengths.items()},
        "quality": {
            "edges": [round(edge, 4) for edge in np.linspace(0, 1, QUALITY_BINS + 1).tolist()],
            "counts": quality.tolist(),
            "unknown": unknown,
        },
        "largest_files": _largest(files),
    }


def _licences(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Licences without the file that says so: "MIT" of "MIT (LICENSE)"."""
    return pc.replace_substring_regex(names, r" \([^()]*\)$", "")


def _largest(files: _Sizes) -> list[dict[str, Any]]:
    found = []
    for name, tally in list(files.as_json().items())[:LARGEST]:
        source, _, file = name.partition("\0")
        found.append({"file": file, "source": source, **tally})
    return found


def _with_bar(paths: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, pa.Table]]:
    """The row groups of the files; a bar shows how far it is once that takes longer than two seconds."""
    paths = list(paths)
    total = sum(pq.read_metadata(path).num_row_groups for _, path in paths)
    begun, done = time.monotonic(), 0
    bar: Bar | None = None
    with ExitStack() as stack:
        for split, path in paths:
            for table in read_groups(path, COLUMNS):
                yield split, table
                done += 1
                if bar is None and time.monotonic() - begun > PATIENCE:
                    bar = stack.enter_context(progress("reading the corpus", total, "row group"))
                if bar is not None:
                    bar.update(done)


def removed_as_repeated(funnel: dict[str, Any]) -> dict[str, dict[str, int]]:
    """What deduplication took away, by step: documents and bytes refused, and what it cut out of others, by kind."""
    total = funnel["total"]
    found: dict[str, dict[str, int]] = {}
    for step in REPETITIONS:
        if step in funnel["steps"]:
            rules = total["rejections"].get(step, {}).values()
            prefix = f"{step}/"
            found[step] = {
                "documents": sum(rule["documents"] for rule in rules),
                "bytes": sum(rule["bytes"] for rule in rules),
                **{key.removeprefix(prefix): times for key, times in total["edits"].items() if key.startswith(prefix)},
            }
    return found
