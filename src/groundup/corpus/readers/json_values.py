"""JSON values: parsed leniently where that loses nothing, and found one by one in a stream of any layout."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from groundup.corpus.readers.common import LONGEST, Readable
from groundup.corpus.readers.streams import UnreadableError
from groundup.corpus.text import decode, mend_surrogates

_BETWEEN = re.compile(rb"[\s,]*+")
_BRACKET = re.compile(rb'["{}\[\]]')
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_REST = re.compile(rb"[^\n]*+")  # of what is neither an object nor an array
_REST_IN_ARRAY = re.compile(rb'(?:"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|[^",\]\n]++)*+"?')
_NEXT_OBJECT = re.compile(rb"\n\s*+(?=\{)")
_INDENT = 64  # blanks at most before an object that is gone to after a value that is too long
_LARGE = 2**22  # bytes of a text that orjson isn't given: its errors take 12 times the memory of what is broken
_LINES_TRIED = 3  # at the head of a file, for an object on one line


class Parsed(NamedTuple):
    """A JSON value, or why there is none; and the encoding of its text."""

    value: Any
    encoding: str
    reason: str = ""


Values = Iterator[tuple[int, bytes, Parsed]]  # number from 1, JSON text, value


def parse(data: bytes) -> Parsed:
    """The value of a JSON text; what isn't UTF-8 is decoded first, and a lone surrogate is let through."""
    if len(data) < _LARGE:
        with contextlib.suppress(orjson.JSONDecodeError):
            return Parsed(orjson.loads(data), "utf-8")
    text, encoding = decode(data)
    try:
        return Parsed(_mended(json.loads(text)), encoding)
    except (ValueError, RecursionError):  # RecursionError: thousands of open brackets
        return Parsed(None, encoding, "broken_json")


def _mended(value: Any) -> Any:
    """The value with surrogates in its strings mended, which escapes bring in and orjson refuses."""
    if isinstance(value, str):
        return mend_surrogates(value)
    if isinstance(value, list):
        return [_mended(each) for each in value]
    if isinstance(value, dict):
        return {mend_surrogates(key): _mended(each) for key, each in value.items()}
    return value


def holds_lines(head: bytes) -> bool:
    """Whether the head of a file is of one object a line, as many .json files are; if unsure, it isn't."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lines = head.split(b"\n", _LINES_TRIED)[:_LINES_TRIED]
    return head.startswith(b"{") and any(isinstance(parse(line).value, dict) for line in lines)


def read_values(stream: Readable) -> Values:
    """Every value of a stream of JSON values; of an array at the outermost level its elements.

    Values may follow each other with or without commas between. A value of more than `LONGEST` bytes is refused,
    with what follows it up to the next line that begins an object.
    """
    finder = _Finder(stream)
    number = 0
    while finder.go_to_value():
        number += 1
        data = finder.take_value()
        if data is None:
            yield number, b"", Parsed(None, "", "record_too_long")
            continue
        parsed = parse(data)
        if not (parsed.reason and finder.torn and finder.damage):  # else the damage stands for it
            yield number, data, parsed
    if finder.damage is not None:
        yield number, str(finder.damage).encode(), Parsed(None, "", finder.damage.reason)


class _Finder:
    """Finds where values begin and end by their brackets and strings; whether they are valid is for others to say."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self._in_array = False
        self.damage: UnreadableError | None = None  # why the stream broke off
        self.torn = False  # the last value taken isn't whole
        self._at_end = False  # nothing more comes from the stream

    def go_to_value(self) -> bool:
        """Stand at the next value; False at the end."""
        while True:
            between = _BETWEEN.match(self._data, self._at)
            self._at = between.end() if between else self._at
            if self._at == len(self._data):
                if not self._fill():
                    return False
            elif self._data[self._at] == ord("[") and not self._in_array:
                self._in_array = True
                self._at += 1
            elif self._data[self._at] == ord("]") and self._in_array:
                self._in_array = False
                self._at += 1
            else:
                return True

    def take_value(self) -> bytes | None:
        """The text of the value here, as far as the stream goes; None where it is too long."""
        bracketed = self._data[self._at] in b"{["
        scanned, depth = 0, 0  # from the value's beginning
        while True:
            if bracketed:
                scanned, depth = self._scan(scanned, depth)
                whole = not depth and scanned > 0
            else:
                scanned = self._rest()
                whole = self._at + scanned < len(self._data)
            if whole or not self._fill():
                self.torn = not whole
                value = self._data[self._at : self._at + scanned] if whole else self._data[self._at :]
                self._at += max(1, len(value))
                return value
            if len(self._data) - self._at > LONGEST:
                self._skip_to_object()
                return None

    def _scan(self, scanned: int, depth: int) -> tuple[int, int]:
        """Go on over brackets and strings until the value ends (depth 0) or the data do."""
        data, start = self._data, self._at
        while bracket := _BRACKET.search(data, start + scanned):
            mark = bracket.group()
            if mark == b'"':
                string = _STRING.match(data, bracket.start())
                if string is None:
                    return bracket.start() - start, depth
                scanned = string.end() - start
                continue
            scanned = bracket.end() - start
            depth += 1 if mark in b"{[" else -1
            if not depth:
                return scanned, 0
        return len(data) - start, depth

    def _rest(self) -> int:
        """Length of what is no object or array: in an array up to a comma, else up to the end of the line."""
        found = (_REST_IN_ARRAY if self._in_array else _REST).match(self._data, self._at)
        return max(1, found.end() - self._at) if found else 1

    def _skip_to_object(self) -> None:
        """Let go of all that was read, and go on at the next line that begins an object."""
        while True:
            self._at = max(0, len(self._data) - _INDENT)
            more = self._fill()
            found = _NEXT_OBJECT.search(self._data)
            if found or not more:
                self._at = found.end() if found else len(self._data)
                return

    def _fill(self) -> bool:
        """Read on, half as much again as is kept; what is behind `_at` is let go. False when nothing more comes."""
        pieces = [self._data[self._at :]]
        wanted = len(pieces[0]) // 2 + 1
        self._at = 0
        try:
            while wanted > 0 and not self._at_end:
                pieces.append(self._stream.read())
                wanted -= len(pieces[-1])
                self._at_end = not pieces[-1]
        except UnreadableError as error:
            self.damage, self._at_end = error, True
        self._data = b"".join(pieces)
        return len(self._data) > len(pieces[0])
