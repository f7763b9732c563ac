"""Finding all kinds, settling which of two that overlap counts, and writing placeholders in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from groundup.corpus.personal.accounts import find_cards, find_ibans, find_social_security_numbers
from groundup.corpus.personal.addresses import find_addresses, find_emails
from groundup.corpus.personal.keys import find_keys
from groundup.corpus.personal.phones import find_phones
from groundup.corpus.personal.rows import Rows
from groundup.recipe.personal import KINDS, Kind

_PASSES = 16  # enough for any text that was not written to need more


@dataclass(frozen=True)
class Spans:
    """What was found in a batch, in order and disjoint: int64 [m] each.

    Args:
        row: the number of the text.
        start, stop: bytes of its UTF-8.
        kind: index into `groundup.recipe.personal.KINDS`.
    """

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True)
class Redacted:
    """Texts with placeholders.

    Args:
        texts: large_string [n].
        counts: replacements of each kind asked for.
        changed: bool [n], the texts in which there were any.
    """

    texts: pa.LargeStringArray
    counts: dict[str, int]
    changed: np.ndarray


def redact(
    texts: pa.LargeStringArray,
    kinds: Sequence[Kind] = KINDS,
    placeholder: str = "<{kind}>",
    private_addresses: bool = False,
) -> Redacted:
    """Replace personal data of the given kinds by `placeholder`, in which {kind} becomes the kind's name.

    Doing it again changes nothing: a text in which something was replaced is read again until nothing is found,
    since a placeholder may free what stands beside it.

    Args:
        texts: large_string [n], no nulls.
        private_addresses: take IP addresses outside public use too.
    """
    counts: dict[str, int] = {kind: 0 for kind in KINDS if kind in kinds}
    marks = [placeholder.replace("{kind}", kind).encode() for kind in KINDS]
    whole = rows = Rows.of_texts(texts)
    places = np.arange(len(texts))
    written: dict[int, bytes] = {}
    for _ in range(_PASSES):
        spans = _without_marks(_find(rows, kinds, private_addresses), rows, marks)
        if not len(spans.row):
            break
        for kind, count in zip(KINDS, np.bincount(spans.kind, minlength=len(KINDS)).tolist(), strict=True):
            if count:
                counts[kind] += count
        hit, new = _rewrite(rows, spans, marks)
        places = places[hit]
        written.update(zip(places.tolist(), new, strict=True))
        rows = Rows.of_bytes(new)
    changed = np.zeros(len(texts), bool)
    changed[list(written)] = True
    return Redacted(_joined(whole, written) if written else texts, counts, changed)


def find(texts: pa.LargeStringArray, kinds: Sequence[Kind] = KINDS, private_addresses: bool = False) -> Spans:
    """Where personal data stand, without replacing them: what the first reading of `redact` finds."""
    return _find(Rows.of_texts(texts), kinds, private_addresses)


def _find(rows: Rows, kinds: Iterable[str], private: bool) -> Spans:
    """All spans; of two that overlap the one of the kind that is earlier in KINDS, within a kind the first."""
    finders: dict[str, Callable[[], Iterable[tuple[int, int]]]] = {
        "key": lambda: find_keys(rows),
        "email": lambda: find_emails(rows),
        "iban": lambda: find_ibans(rows),
        "credit_card": lambda: find_cards(rows),
        "us_ssn": lambda: find_social_security_numbers(rows),
        "ip": lambda: find_addresses(rows, private),
        "phone": lambda: find_phones(rows),
    }
    starts = stops = found = np.zeros(0, np.int64)
    for number, kind in enumerate(KINDS):
        if kind not in kinds:
            continue
        new = np.array(list(finders[kind]()), np.int64).reshape(-1, 2)
        new = _disjoint(new[np.argsort(new[:, 0], kind="stable")])
        before = np.searchsorted(starts, new[:, 1])  # earlier spans that begin before the new one ends
        free = (before == 0) | (np.concatenate(([0], stops))[before] <= new[:, 0])
        order = np.argsort(np.concatenate((starts, new[free, 0])), kind="stable")
        starts = np.concatenate((starts, new[free, 0]))[order]
        stops = np.concatenate((stops, new[free, 1]))[order]
        found = np.concatenate((found, np.full(free.sum(), number)))[order]
    row = rows.row_of(starts)
    return Spans(row, starts - rows.offsets[row], stops - rows.offsets[row], found)


def _disjoint(spans: np.ndarray) -> np.ndarray:
    """Sorted spans [m, 2] without those that begin before the last kept one ends."""
    kept, end = [], -1
    for number, (start, stop) in enumerate(spans.tolist()):
        if start >= end:
            kept.append(number)
            end = stop
    return spans[kept]


def _without_marks(spans: Spans, rows: Rows, marks: list[bytes]) -> Spans:
    """The spans that are not placeholders already."""
    first = rows.offsets[spans.row]
    places = zip((first + spans.start).tolist(), (first + spans.stop).tolist(), spans.kind.tolist(), strict=True)
    new = np.array([rows.data[start:stop] != marks[kind] for start, stop, kind in places], bool)
    return Spans(spans.row[new], spans.start[new], spans.stop[new], spans.kind[new])


def _rewrite(rows: Rows, spans: Spans, marks: list[bytes]) -> tuple[np.ndarray, list[bytes]]:
    """(numbers of the texts with spans, those texts with each span replaced by the mark of its kind)."""
    hit, first = np.unique(spans.row, return_index=True)
    bounds = [*first.tolist(), len(spans.row)]
    new = []
    for row, a, b in zip(hit.tolist(), bounds, bounds[1:], strict=False):
        text = rows.data[int(rows.offsets[row]) : int(rows.offsets[row + 1])]
        pieces, end = [], 0
        for start, stop, kind in zip(
            spans.start[a:b].tolist(), spans.stop[a:b].tolist(), spans.kind[a:b].tolist(), strict=True
        ):
            pieces += [text[end:start], marks[kind]]
            end = stop
        new.append(b"".join((*pieces, text[end:])))
    return hit, new


def _joined(rows: Rows, written: dict[int, bytes]) -> pa.LargeStringArray:
    """All texts, those of the numbers in `written` replaced."""
    lengths = np.diff(rows.offsets)
    pieces: list[bytes | memoryview] = []
    old, end = memoryview(rows.data), 0
    for row in sorted(written):
        pieces += [old[end : int(rows.offsets[row])], written[row]]
        end = int(rows.offsets[row + 1])
        lengths[row] = len(written[row])
    pieces.append(old[end : rows.size])
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return pa.LargeStringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(b"".join(pieces)))
