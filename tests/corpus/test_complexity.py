"""Tags counted many at a time against tags read one by one."""

import random
import re

import pytest

from groundup.corpus import complexity
from groundup.corpus.complexity import is_too_complex

TAG = re.compile(rb"<(/?)([A-Za-z0-9]*)(?=(.?))", re.S)
NAMES = [
    "div",
    "DIV",
    "p",
    "li",
    "b",
    "B",
    "font",
    "strike",
    "blockquote",
    "blockquotes",
    "h1",
    "u",
    "small",
    "table",
    "",
]
ENDS = [">", " x=1>", "/>", "\n>", "\t", "-x>", "!", "é>", ""]


def depth(closings: list[bool]) -> int:
    """The greatest number of elements open at once; what closes none is left out."""
    level = most = 0
    for closing in closings:
        level = max(0, level - 1) if closing else level + 1
        most = max(most, level)
    return most


def slowly(data: bytes) -> tuple[int, int]:
    """(elements open at once, tags of formatting that are opened again), by reading tag by tag."""
    nested: list[bool] = []
    formatting: dict[int, list[bool]] = {}
    for slash, letters, following in TAG.findall(data):
        name = int.from_bytes(letters[:8].lower(), "little")
        if name not in complexity._NEVER_NESTED:
            nested.append(bool(slash))
        has_attributes = len(letters) <= 8 and following in (b" ", b"\t", b"\n", b"\f", b"\r", b"/") and following
        if name in complexity._FORMATTING and (slash or has_attributes):
            formatting.setdefault(name, []).append(bool(slash))
    return depth(nested), sum(map(depth, formatting.values()))


def soup(dice: random.Random, count: int) -> bytes:
    """So many tags at random, and a text that ends in the middle of one."""
    closing = dice.random()
    parts = []
    for _ in range(count):
        slash = "/" if dice.random() < closing else ""
        parts.append(f"<{slash}{dice.choice(NAMES)}{dice.choice(ENDS)}{dice.choice(['', 'text', ' '])}")
    return "".join(parts).encode() + dice.choice([b"", b"<", b"</", b"<di", b"<font "])


@pytest.mark.parametrize("seed", range(150))
def test_nesting_is_that_of_tags_read_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    data = soup(dice, dice.randrange(1, 400))
    deepest, reopened = slowly(data + b"\0")
    tags = data[:-1].count(b"<")
    monkeypatch.setattr(complexity, "_SUSPECT_TAGS", 0)
    monkeypatch.setattr(complexity, "_SUSPECT_UNCLOSED", 0)
    bounds = [(deepest, reopened * tags), (deepest - 1, reopened * tags), (deepest, reopened * tags - 1)]
    for (most_open, most_reopened), expected in zip(bounds, (False, True, True), strict=True):
        monkeypatch.setattr(complexity, "DEEPEST", most_open)
        monkeypatch.setattr(complexity, "MOST_REOPENED", most_reopened)
        assert is_too_complex(data) == expected, data


def test_a_long_tag_is_found_wherever_it_stands() -> None:
    attributes = b"<div " + b" ".join(b"a%d=1" % number for number in range(20_000)) + b">"
    for before, after in (
        (b"", b""),
        (b"x" * 70_000, b""),
        (b"<p>" * 2000 + b"</p>" * 2000, b"<p>x"),
        (b"<b>", b"<i>"),
    ):
        assert is_too_complex(before + attributes + after)
        assert not is_too_complex(before + b"x" * len(attributes) + after)
