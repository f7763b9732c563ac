"""Telephone numbers: by their shape where it is plain, else by the words beside them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from groundup.corpus.personal.rows import Rows, Window

Span = tuple[int, int]

_CONTEXT = 72  # bytes before a number in which a word for it is looked for

_GAP = rb"(?:[ .\-/]|\xc2\xa0)"
_EXTENSION = rb"(?: ?(?i:x|ext\.?|extension) ?\d{1,6})?"
_LEFT = rb"(?<!\w)(?<!\d\.)"
_APART = rb"(?<!\d[\-/(])(?<![-/$])"  # no further part of a longer number or of a path stands before
_RIGHT = rb"(?!\w|[.:/-]\d)"
# With a country's code: +46 (0)8 928 571 38, +442079460958, (+44) 20 7946 0958.
_FOREIGN = re.compile(
    _LEFT + rb"(?:\(\+[1-9]\d{0,2}\)|\+[1-9]\d{0,2})" + _GAP + rb"?(?:\(\d{1,4}\)" + _GAP + rb"?)?\d{1,12}"
    rb"(?:" + _GAP + rb"\d{1,5}){0,5}" + _EXTENSION + _RIGHT
)  # fmt: skip
_PLAIN = re.compile(
    _LEFT + _APART + rb"(?:"
    # North America: (212) 555-0123, 212-555-0123, 212.555.0123, 1-212-555-0123, 001-212-555-0123.
    rb"(?:(?:00)?1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}"
    # A trunk prefix in brackets, or before nine or ten digits in the groups of France, Britain and others:
    # (020) 7946 0958, 01.84.17.61.18, 07700 900 123, 020 7946 0958; and 0044 20 7946 0958.
    rb"|(?<!\d )(?:\(0\d{1,4}\) ?\d{6,8}|\(0\d{1,4}\) ?\d{2,4}[ -]\d{2,5}(?:[ -]\d{2,5})?|0[1-9](?:[.-]\d\d){4}"
    rb"|0[1-9]\d{2,3} \d{3} \d{3,4}|0[1-9]\d \d{4} \d{4}|00[1-9]\d(?:[ -]\d{2,5}){3,4})"
    rb")" + _EXTENSION + _RIGHT
)  # fmt: skip
# What is one only beside a word that says so.
_LOOSE = re.compile(
    _LEFT
    + _APART
    + rb"(?<!\d[ ,])\+?(?:\(\d{2,5}\)"
    + _GAP
    + rb"?)?\d{1,13}(?:"
    + _GAP
    + rb"\d{2,8}){0,5}"
    + _EXTENSION
    + _RIGHT
)
_BEFORE = re.compile(
    rb"(?<![\w\x80-\xff])(?:(?:tele|cell|smart)?phone|tel|mobile|cell|fax|desk|pager|landline|whatsapp|viber|sms|hotline|"
    rb"helpline|call(?:ed|ing|s)?|dial(?:l?ed|l?ing)?|ring|reach|text|contact|answering|messages?|"
    rb"telefon[eo]?|t\xc3\xa9l(?:\xc3\xa9phone)?|tel\xc3\xa9fono|handy|m\xc3\xb3vil|mobil|celular|puhelin|"
    rb"\xd1\x82\xd0\xb5\xd0\xbb(?:\xd0\xb5\xd1\x84\xd0\xbe\xd0\xbd)?|\xe7\x94\xb5\xe8\xaf\x9d|\xe9\x9b\xbb\xe8\xa9\xb1)"
    rb"(?:[^\w<>]{1,3}(?:at|by|from|her|him|home|is|line|me|my|new|no|nr|numbers?|of|office|on|or|our|please|"
    rb"registered|s|the|their|them|this|to|us|was|work|your)){0,5}[^\w<>]{0,4}\Z",
    re.IGNORECASE,
)
_AFTER = re.compile(
    rb"[ -]?\(?(?:office|fax|mobile|cell|landline)\b|[ -]?\((?:home|work|direct|main|tel)\)", re.IGNORECASE
)
# Numbers that go by another name.
_OTHER = re.compile(
    rb"(?:isbn|issn|doi|pmid|oclc|lccn|pep|rfc|isin|ean|upc|asin)[^\w]{0,3}(?:1[03])?[^\w]{0,3}\Z", re.IGNORECASE
)


def find_phones(rows: Rows) -> Iterator[Span]:
    """Numbers of 6 to 15 digits.

    A plain shape suffices: a country's code after +, or the groups of North America, France, Britain and others
    whose numbers begin with 0. Other groups of digits count where a word such as "phone", "call" or "fax" leads to
    them or follows at once. Years, dates and numbers that go by another name (ISBN) are no telephone numbers.
    """
    numbers = rows.numbers.of_digits(6)
    for window in rows.windows(numbers.start, numbers.stop, _CONTEXT, 24):
        taken = sorted((*_foreign(window), *_plain(window)))
        taken += [span for span in _loose(window) if not overlaps(span, taken)]
        for start, stop in taken:
            yield window.origin + start, window.origin + stop


def overlaps(span: Span, taken: list[Span]) -> bool:
    """True where the span shares a byte with one of `taken`, which are sorted and disjoint."""
    after = bisect_left(taken, (span[1], 0))
    return after > 0 and taken[after - 1][1] > span[0]


def _foreign(window: Window) -> Iterator[Span]:
    """Spans in the window's data, shortened to the 15 digits of E.164, in North America to 11."""
    for match in _FOREIGN.finditer(window.data, max(0, window.start - 2)):
        if match.start() >= window.stop:
            return
        number, _ = _parts(match[0])
        most = 11 if number.startswith((b"+1", b"(+1")) else 15
        end = _end_of_digits(number, most)
        digits = number[:end].translate(None, b" .-/()\xc2\xa0+")
        separated = len(digits) + 1 < end
        if len(digits) < (8 if separated else 10) or not digits[3:].strip(b"0"):
            continue
        if most == 15 or (len(digits) == 11 and digits[1] in b"23456789"):
            yield match.start(), match.end() if end == len(number) else match.start() + end


def _plain(window: Window) -> Iterator[Span]:
    for match in _PLAIN.finditer(window.data, max(0, window.start - 1)):
        if match.start() >= window.stop:
            return
        if not _OTHER.search(window.data[max(0, match.start() - 16) : match.start()]):
            yield match.span()


def _loose(window: Window) -> Iterator[Span]:
    for match in _LOOSE.finditer(window.data, max(0, window.start - 1)):
        if match.start() >= window.stop:
            return
        number, groups = _parts(match[0])
        if not 6 <= sum(map(len, groups)) <= 13 or _is_date(number, [int(group) for group in groups]):
            continue
        before = window.data[max(0, match.start() - _CONTEXT) : match.start()]
        if _BEFORE.search(before) or (_AFTER.match(window.data, match.end()) and not _OTHER.search(before)):
            yield match.span()


def _parts(text: bytes) -> tuple[bytes, list[bytes]]:
    """A number without its extension, and its groups of digits."""
    number = re.split(rb" ?[xXeE]", text)[0]
    return number, re.findall(rb"\d+", number)


def _end_of_digits(number: bytes, most: int) -> int:
    """Where the last group ends that keeps the number within `most` digits."""
    end = count = 0
    for group in re.finditer(rb"\d+", number):
        count += len(group[0])
        if count > most:
            return end
        end = group.end()
    return end


def _is_date(text: bytes, parts: list[int]) -> bool:
    """True for years (1914 1918) and for days written with points, dashes or slashes."""
    if all(1000 <= part <= 2100 for part in parts):
        return True
    if len(parts) != 3 or b" " in text:
        return False
    if parts[0] >= 1000:
        parts = parts[::-1]
    return parts[0] <= 31 and parts[1] <= 31 and min(parts[:2]) <= 12 and (parts[2] >= 1000 or parts[2] < 100)
