"""Texts of tests among the documents (see `targets` for what is looked for): removed, and reported by task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.columns import flags
from groundup.corpus.dedup.groups import firsts
from groundup.corpus.documents import Outcome
from groundup.corpus.sizes import as_texts
from groundup.corpus.targets import Hits, Targets

__all__ = ["Contamination", "Targets", "decontaminate"]

EXAMPLES = 5  # of each task
AROUND = 80  # characters before and after
Remove = Literal["document", "span", "nothing"]


def decontaminate(texts: pa.LargeStringArray, targets: Targets, remove: Remove) -> tuple[Outcome, Hits]:
    """Look for tests in a batch of documents, and remove what `remove` says.

    Returns:
        the outcome, of which a failed document's rule is the first task (by number in `targets.tasks`) it has a text
        of and its value the number of shared runs; with "span" the documents fail of which nothing is left, and with
        "nothing" none does. And what was found, for `Contamination.add`.
    """
    plain = texts.to_pylist()
    hits = targets.find(plain)
    failed, value = np.full(len(plain), -1, np.int16), np.full(len(plain), np.nan)
    edited: dict[int, str] = {}
    for document, runs, spans in _by_document(hits):
        if remove == "span":
            edited[document] = without_spans(plain[document], spans)
        if remove == "document" or (remove == "span" and not edited[document]):
            failed[document] = targets.owner_tasks[targets.texts_of(runs)].min()
            value[document] = len(runs)
    if not edited:
        return Outcome(failed, value), hits
    mask = np.zeros(len(plain), bool)
    mask[list(edited)] = True
    changed = as_texts(list(edited.values()))
    return Outcome(failed, value, pc.replace_with_mask(texts, flags(mask), changed)), hits


def without_spans(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text less the characters of the spans (rising) and the punctuation that touches them."""
    kept = ""
    position = 0
    for start, end in spans:
        left = text[position:start]
        kept = _join(kept, left[: _past_marks(left, len(left) - 1, -1) + 1])
        position = _past_marks(text, end, 1)
    return _join(kept, text[position:]).strip()


def _past_marks(text: str, place: int, step: Literal[1, -1]) -> int:
    """From `place` on, or back, the first character that is no punctuation; one past the text where there is none."""
    while 0 <= place < len(text) and not (text[place].isalnum() or text[place].isspace() or text[place] == "_"):
        place += step
    return place


@dataclass
class Contamination:
    """What was found of the tests, to be added up over batches and units.

    Args:
        documents: of each task, the documents that have a text of it.
        found: numbers of the tests' texts that were found.
        examples: of each task, the first few documents: file, record, and the shared words with some before and after.
    """

    documents: Counter[str] = field(default_factory=Counter)
    found: set[int] = field(default_factory=set)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, targets: Targets, hits: Hits, texts: pa.LargeStringArray, files: pa.Array, records: pa.Array) -> None:
        """Count the hits of a batch, of which `files` and `records` say where each document stands."""
        for document, runs, spans in _by_document(hits):
            owners = targets.texts_of(runs)
            self.found.update(owners.tolist())
            for task in np.unique(targets.owner_tasks[owners]).tolist():
                name = targets.tasks[task]
                self.documents[name] += 1
                if len(self.examples.setdefault(name, [])) < EXAMPLES:
                    start, end = spans[0]
                    text = texts[document].as_py()
                    excerpt = text[max(0, start - AROUND) : min(end, start + 10 * AROUND) + AROUND]
                    place = {"file": files[document].as_py(), "record": records[document].as_py()}
                    self.examples[name].append(place | {"excerpt": excerpt})

    def merge(self, other: Contamination) -> None:
        """Add what comes after."""
        self.documents.update(other.documents)
        self.found |= other.found
        for task, examples in other.examples.items():
            mine = self.examples.setdefault(task, [])
            mine += examples[: EXAMPLES - len(mine)]

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"documents": dict(self.documents), "found": sorted(self.found), "examples": self.examples}

    @staticmethod
    def load(content: dict[str, Any]) -> Contamination:
        """From what `dump` gave."""
        return Contamination(Counter(content["documents"]), set(content["found"]), content["examples"])

    def report(self, targets: Targets) -> dict[str, dict[str, Any]]:
        """By task: its texts, those too short to be looked for, those found, documents that have any, and examples."""
        found = np.bincount(targets.owner_tasks[sorted(self.found)], minlength=len(targets.tasks))
        texts = np.bincount(targets.owner_tasks, minlength=len(targets.tasks))
        return {
            task: {
                "texts": int(texts[number]),
                "too_short": int(targets.skipped[number]),
                "found": int(found[number]),
                "documents": self.documents[task],
                "examples": self.examples.get(task, []),
            }
            for number, task in enumerate(targets.tasks)
        }


def _by_document(hits: Hits) -> Iterator[tuple[int, np.ndarray, list[tuple[int, int]]]]:
    """Of every document with hits: its place in the batch, its runs, and the stretches they cover, in characters."""
    borders = np.append(np.flatnonzero(firsts(hits.documents)), len(hits.documents))
    for first, last in pairwise(borders.tolist()):
        spans: list[tuple[int, int]] = []
        for start, end in zip(hits.starts[first:last].tolist(), hits.ends[first:last].tolist(), strict=True):
            if spans and start <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(end, spans[-1][1])
            else:
                spans.append((start, end))
        yield int(hits.documents[first]), hits.runs[first:last], spans


def _join(left: str, right: str) -> str:
    """Two pieces of a text, with one space less where both have one at the seam."""
    return left + (right.lstrip(" ") if not left or left[-1].isspace() else right)
