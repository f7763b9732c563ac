"""HTTP responses in archives: headers as they come, bodies unpacked, whether or not they were before."""

import gzip
import random
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from groundup.corpus.readers import http
from groundup.corpus.readers.http import BodyTooLongError, parse_headers, parse_response, parse_type


def chunked(data: bytes, size: int = 7) -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate ": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_are_unpacked(coding: str, is_chunked: bool) -> None:
    body = "<p>Grüße, 世界. ".encode() * 200
    packed = CODINGS[coding](body)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n" + "Transfer-Encoding: chunked\r\n" * is_chunked
    response = parse_response(f"{head}\r\n".encode() + (chunked(packed, 100) if is_chunked else packed))
    assert response is not None
    assert response.body == body
    unpacked_before = parse_response(f"{head}\r\n".encode() + body)  # the headers were left as they were
    assert unpacked_before is not None
    assert unpacked_before.body == body


@given(st.binary(max_size=300), st.integers(1, 50))
def test_chunks_come_back(data: bytes, size: int) -> None:
    response = parse_response(b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(data, size))
    assert response is not None
    assert response.body == data


def test_a_packed_body_cut_off_gives_its_beginning() -> None:
    body = b"<p>" + random.Random(0).randbytes(2000).hex().encode()
    for coding in ("gzip", "deflate", "br", "zstd"):
        packed = CODINGS[coding](body)
        response = parse_response(f"HTTP/1.1 200\r\nContent-Encoding: {coding}\r\n\r\n".encode() + packed[:-200])
        assert response is not None
        assert body.startswith(response.body) or response.body == packed[:-200]
        assert coding in ("br", "zstd") or len(response.body) > 1000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_in_a_body(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LONGEST", 10**6)
    packed = CODINGS[coding](bytes(10**7))
    with pytest.raises(BodyTooLongError):
        parse_response(f"HTTP/1.1 200\r\nContent-Encoding: {coding}\r\n\r\n".encode() + packed)


def test_headers() -> None:
    lines = b"HTTP/1.1 200\r\n again\r\nName : a: 1 \r\n  goes on\r\nNAME: second\r\n\tand on\r\nEmpty:\r\n: x\r\n"
    assert parse_headers(lines) == {b"name": b"a: 1 goes on", b"empty": b""}


@pytest.mark.parametrize(
    ("value", "kind", "charset"),
    [
        (b"text/html; charset=utf-8", "text/html", "utf-8"),
        (b'TEXT/HTML;Charset="KOI8-R"', "text/html", "KOI8-R"),
        (b"text/plain, text/html", "text/plain", None),
        (b"", "", None),
        (b"; charset=x", "", "x"),
        (b"text/\xff", "text/\xff", None),
    ],
)
def test_media_types(value: bytes, kind: str, charset: str | None) -> None:
    assert parse_type(value) == (kind, charset)


@given(st.binary(max_size=200))
def test_any_block(data: bytes) -> None:
    for block in (data, b"HTTP/1.1 200\r\n" + data, b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n" + data):
        parse_response(block)
