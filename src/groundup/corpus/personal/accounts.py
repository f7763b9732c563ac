"""Payment cards, IBAN bank accounts and US social security numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import numpy as np

from groundup.corpus.personal.rows import Rows

Span = tuple[int, int]

_CARD = re.compile(
    rb"(?<![\w+-])(?<!\d[ /.,])(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}(?:\1\d{4}(?:\1\d{1,3})?|\1\d{1,3})?"
    rb"|\d{4}([ -])\d{6}\2\d{4,5})(?!\w|[.-]\d| \d{3,})"
)
# First digits and lengths by issuer (ISO/IEC 7812): Visa; Mastercard; American Express; Diners Club; Discover;
# UnionPay; JCB; Maestro.
_ISSUERS = re.compile(
    rb"4(?:\d{12}|\d{15}|\d{18})$|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}$|3[47]\d{13}$"
    rb"|(?:30[0-5]|309)\d{11}$|3[689]\d{12,17}$|(?:6011|64[4-9]\d|65\d\d)\d{12,15}$|62\d{14,17}$|35[2-8]\d{13,16}$"
    rb"|(?:1800|2131)\d{11}$|(?:5018|5020|5038|5893|6304|6390|6759|676[1-3]|0604)\d{8,15}$"
)
_CARD_WORD = re.compile(rb"\b(?:cards?|credit|debit|cc|visa|mastercard|amex|maestro|jcb)\b\D{0,28}\Z", re.IGNORECASE)
# Lengths by country (the SWIFT registry of IBAN, ISO 13616).
_IBAN_LENGTHS = {
    code: int(length)
    for length, codes in {
        "15": "NO", "16": "BE", "18": "DK FI FO GL NL SD FK", "19": "MK SI", "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR", "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HU LB NI PL SV", "29": "BR EG PS QA UA", "30": "JO KW MU YE", "31": "MT SC",
        "32": "LC", "33": "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip
_SSN = re.compile(rb"(?<![\w.-])(?<!\d[ /])(?!000|666)[0-8]\d\d([- ]?)(?!00)\d\d\1(?!0000)\d{4}(?![\w]|[.-]\d)")
_SSN_WORD = re.compile(rb"(?:\bssn|social[ -]security)\b\D{0,32}\Z", re.IGNORECASE)


def find_cards(rows: Rows) -> Iterator[Span]:
    """Numbers whose last digit agrees (Luhn; ISO/IEC 7812-1, annex B) and that begin as an issuer's, in its lengths.

    After a word such as "card" or "visa" any such number of 12 to 19 digits counts.
    """
    numbers = rows.numbers.of_digits(12)
    for window in rows.windows(numbers.start, numbers.stop, 40, 6):
        for match in _CARD.finditer(window.data, window.start):
            digits = match[0].translate(None, b" -")
            before = window.data[max(0, match.start() - 40) : match.start()]
            if luhn_holds(digits) and (_ISSUERS.match(digits) or _CARD_WORD.search(before)):
                yield window.origin + match.start(), window.origin + match.end()


def luhn_holds(digits: bytes) -> bool:
    """True where the digits, every second from the right doubled (and its own digits summed), add up to 10 k."""
    values = [digit - 48 for digit in reversed(digits)]
    return (sum(values[::2]) + sum(2 * value - 9 * (value > 4) for value in values[1::2])) % 10 == 0


def find_ibans(rows: Rows) -> Iterator[Span]:
    """Accounts of a known country and its length whose check digits agree (modulo 97; ISO 13616), in any case."""
    digits, codes = rows.digits, rows.codes
    heads = digits[:-1][np.diff(digits) == 1]
    heads = heads[heads >= 2]
    first, second = codes[heads - 2] | 32, codes[heads - 1] | 32
    heads = heads[(first - np.uint8(97) < 26) & (second - np.uint8(97) < 26)]
    for window in rows.windows(heads - 2, heads + 2, 1, 64):
        country = window.data[window.start : window.start + 2].decode("latin-1").upper()
        length = _IBAN_LENGTHS.get(country)
        if length is None or (window.start and window.data[: window.start].isalnum()):
            continue
        match = _iban_pattern(length).match(window.data, window.start)
        if match and iban_holds(match[0].translate(None, b" -")):
            yield window.origin + match.start(), window.origin + match.end()


def iban_holds(account: bytes) -> bool:
    """True where the account, its first four characters last and letters as 10 to 35, is 1 modulo 97."""
    return int("".join(str(int(chr(code), 36)) for code in account[4:] + account[:4])) % 97 == 1


@cache
def _iban_pattern(length: int) -> re.Pattern[bytes]:
    return re.compile(rb"[A-Za-z]{2}\d\d(?:[ -]?[A-Za-z0-9]){%d}(?![A-Za-z0-9])" % (length - 4))


def find_social_security_numbers(rows: Rows) -> Iterator[Span]:
    """123-45-6789 in the ranges that are issued; with spaces or bare only where "SSN" or "social security" precedes."""
    numbers = rows.numbers.of_digits(9)
    for window in rows.windows(numbers.start, numbers.stop, 48, 2):
        for match in _SSN.finditer(window.data, window.start):
            if match[1] == b"-" or _SSN_WORD.search(window.data[max(0, match.start() - 48) : match.start()]):
                yield window.origin + match.start(), window.origin + match.end()
