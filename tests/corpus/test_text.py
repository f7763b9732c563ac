"""Decoding, normalisation and passages: pure functions that hold for any input."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.corpus.text import decode, digest, looks_binary, normalise, passages, split_position

any_text = st.text(st.characters(exclude_categories=()))  # surrogates and controls too


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (b"plain", "plain", "utf-8"),
        (b"\xef\xbb\xbfmark", "mark", "utf-8"),
        ("Grüße, 世界".encode(), "Grüße, 世界", "utf-8"),
        ("Grüße".encode("cp1252"), "Grüße", "cp1252"),
        (b"\x93quoted\x94", "“quoted”", "cp1252"),
        (b"caf\xe9 \x81", "café \x81", "latin-1"),
        ("ä ö ü ß".encode() + b"\xff", "ä ö ü ß\ufffd", "utf-8-repaired"),
        ("Grüße".encode("utf-16"), "Grüße", "utf-16"),
        ("Grüße".encode("utf-32"), "Grüße", "utf-32"),
    ],
)
def test_decode(data: bytes, text: str, encoding: str) -> None:
    assert decode(data) == (text, encoding)


@given(st.binary(max_size=200))
def test_decode_never_raises(data: bytes) -> None:
    assert isinstance(decode(data).text, str)


@given(any_text)
def test_utf8_comes_back(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode().lstrip("\ufeff\ufffe")
    assert decode(clean.encode()).text == clean


def test_normalise_values() -> None:
    assert normalise("\ufeff  e\u0301a\r\nb\rc\x00\u2028d\x07 \n") == "\u00e9a\nb\nc\nd"
    assert normalise("a\vb\fc\x85d\u2029e \ufffc\ufff9f\ufffe") == "a\nb\nc\nd\ne f"
    assert normalise("\ud83d\ude00 \ud800") == "\U0001f600 \ufffd"


@given(any_text)
def test_normalise_is_idempotent_and_clean(text: str) -> None:
    clean = normalise(text)
    assert normalise(clean) == clean
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in clean)


def test_binary() -> None:
    assert looks_binary(b"PK\x03\x04\x00\x00")
    assert looks_binary(bytes(range(1, 9)) * 10)
    assert not looks_binary(b"tab\there\r\nline")
    assert not looks_binary("wide".encode("utf-16"))


@given(st.text("ab .\n", max_size=400), st.integers(5, 80))
def test_passages_lose_nothing_but_white_space(text: str, limit: int) -> None:
    pieces = passages(text, limit)
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_passages_cut_at_blank_lines_in_even_parts() -> None:
    paragraphs = [f"{number:02d} " + "word " * 19 + "end." for number in range(60)]
    text = "\n\n".join(paragraphs)
    pieces = passages(text, 2000)
    assert len(pieces) == -(-len(text) // 2000)
    assert [paragraph for piece in pieces for paragraph in piece.split("\n\n")] == paragraphs
    assert max(map(len, pieces)) - min(map(len, pieces)) < 250
    assert passages("short", 2000) == ["short"]


def test_split_position_is_uniform() -> None:
    positions = [split_position(digest(str(number))) for number in range(4000)]
    assert all(0 <= position < 1 for position in positions)
    assert abs(sum(position < 0.1 for position in positions) - 400) < 80  # four standard deviations
