"""E-mail and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from groundup.corpus.personal.rows import Rows, Window, byte_table

Span = tuple[int, int]

_LOCAL = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+'-"
_IN_LOCAL, _IN_DOMAIN = byte_table(_LOCAL), byte_table(_LOCAL[:62])
_DOMAIN = re.compile(rb"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}([A-Za-z]{2,24}|xn--[a-z0-9-]{2,59})(?![A-Za-z0-9])")
# Ends of file names: icon@2x.png is no address.
_FILES = frozenset(b"png jpg jpeg gif svg webp bmp ico pdf css js json html htm xml php txt".split())
_HEX = rb"[0-9A-Fa-f]{1,4}"
_IPV4 = re.compile(rb"(?<![\w.])(?<![A-Za-z]-)(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)(?!-\d++(?!\.))")
_IPV6 = re.compile(rb"(?<![\w.])(?<![0-9A-Fa-f:]:)" + _HEX + rb"(?::" + _HEX + rb"){7}(?![\w:])")
_IPV6_SHORT = re.compile(
    rb"(?<![\w.])(?<![0-9A-Fa-f:]:)[23][0-9A-Fa-f]{3}(?:(?::" + _HEX + rb"){1,6}::|::(?=[0-9A-Fa-f]))"
    rb"(?:" + _HEX + rb"(?::" + _HEX + rb"){0,6})?(?![\w:])"
)
_VERSION = re.compile(
    rb"(?:\b(?:v|ver|versions?|releases?|rev|revision|build|firmware|sections?|sect?|chapters?|clauses?|figures?|"
    rb"fig|tables?|appendix|annex|rfc|item|step|paragraph)|\xc2\xa7)[\s:.#=(v]*\Z",
    re.IGNORECASE,
)
# The blocks that the IANA special-purpose registry (RFC 6890) and RFC 5771 take out of public use.
_SPECIAL = sorted(
    (int(network.network_address), int(network.broadcast_address))
    for network in map(ipaddress.IPv4Network, (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3",
    ))
)  # fmt: skip
_SPECIAL_STARTS = [start for start, _ in _SPECIAL]
_SPECIAL6 = tuple(
    map(ipaddress.IPv6Network, ("::/8", "2001:db8::/32", "3fff::/20", "fc00::/7", "fe80::/10", "ff00::/8"))
)


def find_emails(rows: Rows) -> Iterator[Span]:
    """Addresses of ASCII letters (or punycode) with a top-level domain; not the `git@` of repositories."""
    at = rows.at_signs
    at = at[(at > 0) & _IN_DOMAIN[rows.codes[at + 1]]]
    at = at[_IN_LOCAL[rows.codes[at - 1]]]
    for window in rows.windows(at, at + 1, 65, 255):
        head = window.data[: window.start]
        local = head[len(head.rstrip(_LOCAL)) :].lstrip(b".-'%")
        domain = _DOMAIN.match(window.data, window.stop)
        if not 1 <= len(local) <= 64 or local == b"git" or domain is None or domain[1].lower() in _FILES:
            continue
        yield window.origin + window.start - len(local), window.origin + domain.end()


def find_addresses(rows: Rows, private: bool) -> Iterator[Span]:
    """IP addresses of versions 4 and 6; without `private` only those in public use.

    Not taken: four single digits in a row and what follows a word as "version" or "section" (numbers of versions
    and headings), parts of longer dotted numbers; of version 6 the shortened form outside 2000::/3, where `::` is
    far more often an operator.
    """
    numbers = rows.numbers.of_digits(5)
    dotted = _dots(rows, numbers.start, numbers.stop) >= 3
    for window in rows.windows(numbers.start[dotted], numbers.stop[dotted], 24, 8):
        for match in _IPV4.finditer(window.data, window.start):
            if match.start() < window.stop and _counts4(window, match, private):
                yield window.origin + match.start(), window.origin + match.end()
    for window in _colon_windows(rows):
        for pattern in (_IPV6, _IPV6_SHORT):
            for match in pattern.finditer(window.data):
                if _counts6(match[0], private):
                    yield window.origin + match.start(), window.origin + match.end()


def _dots(rows: Rows, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """int64 [m], the dots in each place that stand between digits."""
    dots = rows.digits[:-1][np.diff(rows.digits) == 2] + 1
    dots = dots[rows.codes[dots] == ord(".")]
    return np.searchsorted(dots, stop) - np.searchsorted(dots, start)


def _counts4(window: Window, match: re.Match[bytes], private: bool) -> bool:
    try:
        address = int(ipaddress.IPv4Address(match[0].decode()))
    except ValueError:  # a part above 255 or with a leading zero
        return False
    if len(match[0]) == 7 or _VERSION.search(window.data[max(0, match.start() - 24) : match.start()]):
        return False
    place = bisect_right(_SPECIAL_STARTS, address) - 1
    return private or place < 0 or address > _SPECIAL[place][1]


def _counts6(text: bytes, private: bool) -> bool:
    try:
        address = ipaddress.IPv6Address(text.decode())
    except ValueError:
        return False
    return private or not any(address in network for network in _SPECIAL6)


def _colon_windows(rows: Rows) -> Iterator[Window]:
    """Around chains of colons at most five bytes apart: seven of them, or a pair side by side after 2xxx or 3xxx."""
    colons = rows.positions(lambda codes: codes == ord(":"))
    if len(colons) < 2:
        return
    row = rows.row_of(colons)
    gaps = np.where(np.diff(row) == 0, np.diff(colons), 6)
    edges = np.concatenate(([0], np.flatnonzero(gaps > 5) + 1, [len(colons)]))
    pairs = np.concatenate(([0], np.cumsum(gaps == 1)))
    heads = rows.codes[np.maximum(colons - 4, 0)]
    heads = np.concatenate(([0], np.cumsum((heads == ord("2")) | (heads == ord("3")))))
    first, last = edges[:-1], edges[1:] - 1
    paired = (pairs[last] > pairs[first]) & (heads[last + 1] > heads[first])
    chosen = np.flatnonzero((last - first >= 6) | paired)
    yield from rows.windows(colons[first[chosen]], colons[last[chosen]] + 1, 7, 5)
