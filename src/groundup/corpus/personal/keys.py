"""Keys, tokens and passwords: by the marks their issuers give them, or by the name they are assigned to."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from groundup.corpus.personal.rows import Rows, byte_table

Span = tuple[int, int]

# What issuers document. Each is 20 characters or longer: `Rows.tokens` promises no shorter ones.
_MARKED = re.compile(
    rb"(?<![A-Za-z0-9])(?:"
    rb"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS
    rb"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[\w-]{20,64}"  # GitHub, GitLab
    rb"|sk-(?=[\w-]{0,64}\d)[\w-]{20,200}"  # OpenAI, Anthropic and those who follow them
    rb"|xox[abeoprs]-(?=[\w-]{0,64}\d)[\w-]{16,250}|xapp-\d-[\w-]{16,250}"  # Slack
    rb"|hooks\.slack\.com/services/T\w{6,16}/B\w{6,16}/\w{16,40}"
    rb"|AIza[\w-]{35}(?![\w-])|GOCSPX-[\w-]{28}|ya29\.[\w-]{20,400}"  # Google
    rb"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9+/=]{24,100}"  # Stripe
    rb"|(?<![_-])eyJ[\w-]{8,4000}\.eyJ[\w-]{8,8000}\.[\w-]{16,2000}"  # JSON web tokens (RFC 7519)
    rb"|npm_[A-Za-z0-9]{36}|pypi-AgEI[\w-]{50,500}|hf_[A-Za-z0-9]{30,64}|SG\.[\w-]{16,32}\.[\w-]{16,64}"
    rb"|dop_v1_[a-f0-9]{64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"
    rb")"
)
_BEGIN = b"-----BEGIN "
_BEGIN_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_END_KEY = re.compile(rb"-----END (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BASE64_LINES = re.compile(rb"(?:[\s\\nr\"',+]{0,16}+[A-Za-z0-9+/=]{16,}+)*+")
_LONGEST_BLOCK = 16384
# name = "value", name: value, "name": "value", name => 'value'. The name ends in one of these words.
_NAME = re.compile(
    rb"(?:pass(?:word|wd|phrase)|pwd|secret|token|(?:api|access|account|secret|private|auth|client|encryption|signing|"
    rb"shared|master|service)[_ -]?key)[\"'`\])\s]{0,3}\Z",
    re.IGNORECASE,
)
_VALUE = re.compile(
    rb"(?:=>|:=|={1,3}|:)\s{0,8}(?:[bBrRfFuU]{0,2}(?P<quote>[\"'`])(?P<quoted>[^\s\"'`<>]{8,512})(?P=quote)"
    rb"|(?P<bare>[A-Za-z0-9+/=_.!@#$%^&*~-]{10,512}))"
)
_TAILS = np.array(
    [int.from_bytes(tail, "big") for tail in (b"ord", b"swd", b"ase", b"pwd", b"ret", b"ken", b"key")], np.uint32
)
_DIGITS, _LETTERS = b"0123456789", b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BETWEEN = byte_table(b"\"'`]) \t")
# Values that stand for a secret or fetch one: words, shell and template variables, paths, dotted names, calls.
_STANDS_FOR = re.compile(rb"passw|secret|token|your|example|changeme|placeholder|x{4}|\*{3}|\.{3}|[$({]", re.IGNORECASE)
_NAMES = re.compile(rb"(?:[.~]{1,2}|/[a-z]+)/|%\w*%|[A-Za-z]\w*+(?:[.-][A-Za-z_]\w*+)+\Z|[A-Za-z]+[\d.-]{1,4}\Z")
_URL_PASSWORD = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@]{0,64}:([^\s/@]{6,128})\Z")


def find_keys(rows: Rows) -> Iterator[Span]:
    """Keys known by their marks, private keys in PEM form, and values that look random and are named as secrets.

    Such a value stands after a name that ends in "password", "secret", "token" or "… key", or as the password of a
    URL. It has 8 characters or more, in quotes, or 10 without, letters and digits among them.
    """
    yield from _blocks(rows)
    for window in rows.windows(*rows.tokens, 1, 0):
        for match in _MARKED.finditer(window.data):
            yield window.origin + match.start(), window.origin + match.end()
    yield from _assigned(rows)
    at = rows.at_signs
    for window in rows.windows(at, at + 1, 224, 0):
        found = _URL_PASSWORD.search(window.data[: window.start]) if b"://" in window.data else None
        if found and _looks_random(found[1], 6):
            yield window.origin + found.start(1), window.origin + found.end(1)


def _blocks(rows: Rows) -> Iterator[Span]:
    """Private keys from their first line to their last, or to the end of the code where the last is missing."""
    start = rows.data.find(_BEGIN)
    while start >= 0:
        row = int(rows.row_of(np.array([start]))[0])
        data = rows.data[start : min(start + _LONGEST_BLOCK, int(rows.offsets[row + 1]))]
        head = _BEGIN_KEY.match(data)
        stop = start + len(_BEGIN)
        if head:
            end = _END_KEY.search(data, head.end()) or _BASE64_LINES.match(data, head.end())
            stop = start + (end.end() if end else head.end())
            yield start, stop
        start = rows.data.find(_BEGIN, stop)


def _assigned(rows: Rows) -> Iterator[Span]:
    signs = rows.positions(lambda codes: (codes == ord("=")) | (codes == ord(":")))
    last = signs - 1
    for _ in range(3):
        last = last - _BETWEEN[rows.codes[np.maximum(last, 0)]]
    last = np.maximum(last, 2)
    tails = np.zeros(len(last), np.uint32)
    for back in (2, 1, 0):
        tails = tails << np.uint32(8) | (rows.codes[last - back] | np.uint32(32))
    signs = signs[np.isin(tails, _TAILS)]
    for window in rows.windows(signs, signs + 1, 24, 532):
        if not _NAME.search(window.data[: window.start]):
            continue
        match = _VALUE.match(window.data, window.start)
        if match is None or window.data[match.end() : match.end() + 1] in (b"(", b"["):
            continue
        group, least = ("quoted", 8) if match["quoted"] else ("bare", 10)
        value = match[group].rstrip(b".")
        if _looks_random(value, least):
            yield window.origin + match.start(group), window.origin + match.start(group) + len(value)


def _looks_random(value: bytes, least: int) -> bool:
    """Letters and digits, not few different ones; no name, path, call or word that stands for a secret."""
    plain = value.translate(None, _DIGITS)
    if len(value) < least or len(plain) == len(value) or len(plain.translate(None, _LETTERS)) == len(plain):
        return False
    return len(set(value)) >= 5 and not _STANDS_FOR.search(value) and not _NAMES.match(value)
