"""Archives of crawls: every file of the collection against what warcio reads, and records broken in every way."""

import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.documents import Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers import archives, http, read_part

OPTIONS = ReaderOptions()

# What warcio 1.7.5 reads of each file: responses, resources but for wget's own notes, and conversions; and how many of
# those are pages or plain texts with a status of 200. It stops where it meets an error.
WARCIO = {
    "aut__badexample.arc.gz": (0, 0), "aut__example.arc.gz": (299, 130), "aut__example.docs.warc.gz": (9, 0),
    "aut__example.pdf.warc.gz": (35, 1), "aut__example.txt.warc.gz": (2, 1), "aut__example.warc.gz": (299, 130),
    "aut__issue-493.warc": (10, 4), "aut__issue-514.warc": (2, 1), "daft__example.warc": (0, 0),
    "dolma__sample-0000.warc.gz": (22, 22), "dolma__sample-0001.warc.gz": (15, 15),
    "iipc__IAH-20080430204825-00000-blackbook-truncated.arc": (0, 0), "iipc__IAH-urls-wget.warc": (16, 3),
    "iipc__IAH-urls-wget.warc.gz": (16, 3), "iipc__mutliple-headers.warc": (1, 1),
    "resiliparse__block-sized-records.warc": (0, 0), "resiliparse__block-sized-records.warc.gz": (0, 0),
    "resiliparse__block-sized-records.warc.lz4": (0, 0), "resiliparse__clipped.warc.gz": (1, 1),
    "resiliparse__clueweb-quirk.warc.gz": (29, 29), "resiliparse__warcfile.warc": (16, 16),
    "resiliparse__warcfile.warc.gz": (16, 16), "resiliparse__warcfile.warc.lz4": (0, 0), "warcio__bad.arc": (3, 0),
    "warcio__example-bad-non-chunked.warc.gz": (0, 0), "warcio__example-bad.warc.gz.bad": (0, 0),
    "warcio__example-digest.warc": (0, 0), "warcio__example-iana.org-chunked.warc": (1, 1),
    "warcio__example-resource.warc.gz": (1, 1), "warcio__example-space-in-target-uri.warc.gz": (1, 0),
    "warcio__example-space-in-url.arc": (1, 1), "warcio__example-trunc.warc": (1, 1),
    "warcio__example-wget-bad-target-uri.warc.gz": (1, 1), "warcio__example-wrong-chunks.warc.gz": (1, 1),
    "warcio__example.arc": (1, 1), "warcio__example.arc.gz": (1, 1), "warcio__example.warc": (1, 1),
    "warcio__example.warc.gz": (1, 1), "warcio__post-test.warc.gz": (3, 0), "whirlwind__whirlwind.warc": (1, 1),
    "whirlwind__whirlwind.warc.gz": (1, 1), "whirlwind__whirlwind.warc.wat": (0, 0),
    "whirlwind__whirlwind.warc.wat.gz": (0, 0), "whirlwind__whirlwind.warc.wet": (1, 1),
    "whirlwind__whirlwind.warc.wet.gz": (1, 1),
}  # fmt: skip
# What we find where warcio stops early, or a record is broken: (documents, what is refused).
BROKEN = {
    "aut__badexample.arc.gz": (2, ["not_text", "broken_record", "damaged_archive"]),
    "daft__example.warc": (1, ["not_text"] * 10),
    "iipc__IAH-20080430204825-00000-blackbook-truncated.arc": (3, ["not_text"] * 5),
    "resiliparse__block-sized-records.warc.lz4": (0, ["unsupported_compression"]),
    "resiliparse__clipped.warc.gz": (1, ["damaged_archive"]),
    "resiliparse__warcfile.warc.lz4": (0, ["unsupported_compression"]),
    "warcio__bad.arc": (1, ["broken_record"] * 3),
    "warcio__example-bad-non-chunked.warc.gz": (1, []),
    "warcio__example-bad.warc.gz.bad": (1, ["http_redirect"]),
    "warcio__example-space-in-url.arc": (1, ["damaged_archive"]),
    "whirlwind__whirlwind.warc.wat": (0, ["wat_file"]),
    "whirlwind__whirlwind.warc.wat.gz": (0, ["wat_file"]),
}


def read(path: Path, kind: str = "warc", options: ReaderOptions = OPTIONS) -> list[Raw | Refused]:
    return list(read_part(Part(str(path), kind, path.stat().st_size), options))


def written(path: Path, data: bytes, kind: str = "warc") -> list[Raw | Refused]:
    path.write_bytes(data)
    return read(path, kind)


def pages(found: list[Raw | Refused]) -> list[bytes]:
    return [item.html for item in found if isinstance(item, Raw) and item.html is not None]


def refusals(found: list[Raw | Refused]) -> list[tuple[int, str]]:
    return [(item.record, item.reason) for item in found if isinstance(item, Refused)]


def test_every_file_of_the_collection(real_data: Path) -> None:
    seen = {}
    for path in sorted((real_data / "warc").iterdir()):
        found = read(path, "arc" if ".arc" in path.name else "warc")
        documents = sum(isinstance(item, Raw) for item in found)
        least, least_documents = WARCIO[path.name]
        assert len(found) >= least, path.name
        assert documents >= least_documents, path.name
        reasons = [item.reason for item in found if isinstance(item, Refused)]
        if path.name in BROKEN:
            assert (documents, reasons) == BROKEN[path.name], path.name
        else:
            assert not {"broken_record", "damaged_archive", "broken_http", "record_too_long"} & set(reasons), path.name
            assert len(found) == least
        assert all(item.crawled and item.file == str(path) for item in found if isinstance(item, Raw))
        seen[path.name] = documents
    assert seen.keys() == WARCIO.keys()
    assert sum(seen.values()) >= sum(documents for _, documents in WARCIO.values()) + 8


@pytest.mark.parametrize(
    "name", ["resiliparse__warcfile.warc.gz", "dolma__sample-0000.warc.gz", "aut__example.warc.gz"]
)
def test_pages_are_what_fastwarc_reads(name: str, real_data: Path) -> None:
    path = real_data / "warc" / name
    expected = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response, auto_decode="all"):
            headers = record.http_headers
            if headers and headers.status_code == 200 and (record.http_content_type or "").lower() == "text/html":
                url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
                expected.append((url, record.http_charset, record.reader.read()))
    found = [item for item in read(path) if isinstance(item, Raw) and item.html is not None]
    assert len(expected) > 10
    assert [(item.url, (item.charset or "").lower() or None, item.html) for item in found] == expected


def test_a_page_and_a_text(real_data: Path) -> None:
    (page,) = read(real_data / "warc" / "whirlwind__whirlwind.warc.gz")
    assert isinstance(page, Raw)
    assert (page.url, page.record, page.charset) == ("https://an.wikipedia.org/wiki/Escopete", 3, "UTF-8")
    assert page.html is not None
    assert page.html.startswith(b"<!DOCTYPE html>")
    (text,) = read(real_data / "warc" / "whirlwind__whirlwind.warc.wet.gz", "wet")
    assert isinstance(text, Raw)
    assert text.text.startswith("Escopete - Biquipedia, a enciclopedia libre")
    assert (text.url, text.record, text.encoding) == ("https://an.wikipedia.org/wiki/Escopete", 2, "utf-8")


def warc(
    body: bytes,
    *,
    kind: str = "response",
    status: str = "HTTP/1.1 200 OK",
    headers: str = "Content-Type: text/html; charset=utf-8",
    type: str = "application/http; msgtype=response",
    length: object = None,
    url: str = "http://example.org/",
) -> bytes:
    """One record of an archive."""
    block = f"{status}\r\n{headers}\r\n\r\n".encode() + body if status else body
    size = len(block) if length is None else length
    return (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: {type}\r\n"
        f"Content-Length: {size}\r\n\r\n".encode()
        + block
        + b"\r\n\r\n"
    )


def page(number: int) -> bytes:
    return f"<!doctype html><p>Page {number}. ".encode() + random.Random(number).randbytes(40).hex().encode()


def arc(body: bytes, url: str = "http://example.org/", length: object = None) -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
    size = len(block) if length is None else length
    return f"{url} 127.0.0.1 20140102000000 text/html {size}\n".encode() + block + b"\n"


PLAIN: dict[str, Callable[[list[bytes]], bytes]] = {
    "plain": b"".join,
    "member by member": lambda records: b"".join(map(gzip.compress, records)),
    "one member": lambda records: gzip.compress(b"".join(records)),
    "frames": lambda records: b"".join(map(zstandard.ZstdCompressor(write_checksum=True).compress, records)),
}
packings = pytest.mark.parametrize("packing", PLAIN)
makers = pytest.mark.parametrize("maker", [warc, arc])


@packings
@makers
def test_records_of_sound_archives(packing: str, maker: Callable[..., bytes], tmp_path: Path) -> None:
    found = written(tmp_path / "a.warc", PLAIN[packing]([maker(page(number)) for number in range(20)]))
    assert pages(found) == [page(number) for number in range(20)]
    assert [item.record for item in found] == list(range(1, 21))


@packings
@makers
@pytest.mark.parametrize("error", [-30, -3, -1, 1, 2, 3, 5, 9, 14, 30, 60, 250])
def test_wrong_lengths_are_mended(packing: str, maker: Callable[..., bytes], error: int, tmp_path: Path) -> None:
    sound = maker(page(1))
    length = len(sound) - sound.index(b"HTTP/") - (4 if maker is warc else 1)
    records = [maker(page(0)), maker(page(1), length=length + error), maker(page(2)), maker(page(3))]
    found = written(tmp_path / "a.warc", PLAIN[packing](records))
    assert [each.rstrip(b"\r\n") for each in pages(found)] == [page(number) for number in range(4)]
    assert not refusals(found)


@packings
@pytest.mark.parametrize(
    "broken",
    [
        warc(page(1)).replace(b"Content-Length: ", b"Content-Length: x"),
        warc(page(1)).replace(b"Content-Length: ", b"Content-Length: -"),
        warc(page(1)).replace(b"Content-Length: ", b"Length: "),
        warc(page(1)).replace(b"WARC/1.0", b"WART/1.0"),
        b"some bytes that belong to no record\r\n",
        b"WARC/1.0\r\nWARC-Type: response\r\n",
        b"WARC/1.0\r\n" + b"X-Long: " + b"y" * 300_000 + b"\r\n\r\n",
        bytes(5000) + b"\r\n",
    ],
)
def test_a_broken_record_costs_no_other(packing: str, broken: bytes, tmp_path: Path) -> None:
    found = written(tmp_path / "a.warc", PLAIN[packing]([warc(page(0)), broken, warc(page(2)), warc(page(3))]))
    assert pages(found) == [page(0), page(2), page(3)]
    assert refusals(found) == [(2, "broken_record")]


def test_a_broken_record_of_an_arc_costs_no_other(tmp_path: Path) -> None:
    for broken in (arc(page(1), length="none"), b"no header at all\n", arc(page(1)).replace(b"20140102", b"null")):
        found = written(tmp_path / "a.arc", arc(page(0)) + broken + arc(page(2)), "arc")
        assert pages(found) == [page(0), page(2)]
        assert refusals(found) == [(2, "broken_record")]


@packings
@makers
def test_a_file_cut_off_gives_what_came_before(packing: str, maker: Callable[..., bytes], tmp_path: Path) -> None:
    records = [maker(page(number)) for number in range(4)]
    whole = PLAIN[packing](records)
    for cut in range(0, len(whole), 7):
        name = "a.warc" if packing == "plain" else "a.warc.zst" if packing == "frames" else "a.warc.gz"
        found = written(tmp_path / name, whole[:cut], "arc" if maker is arc else "warc")
        complete = [each.rstrip(b"\r\n") for each in pages(found)]
        torn = complete.pop() if complete and complete[-1] not in map(page, range(4)) else b""
        assert complete == [page(number) for number in range(len(complete))]
        assert page(len(complete)).startswith(torn)
        reasons = [reason for _, reason in refusals(found)]
        if packing == "plain":  # nothing tells that a plain file goes on after a whole record
            read = sum(map(len, records[: len(complete)]))
            assert reasons == ["damaged_archive"] * (cut > read)
        elif packing == "one member" or reasons:
            assert reasons == ["damaged_archive"]
        else:
            assert sum(len(PLAIN[packing]([record])) for record in records[: len(complete)]) == cut


@packings
def test_damaged_members(packing: str, tmp_path: Path) -> None:
    bodies = [random.Random(number).randbytes(700).hex().encode() for number in range(20)]
    records = [warc(body) for body in bodies]
    whole = bytearray(PLAIN[packing](records))
    middle = len(whole) // 2
    for place in range(middle, middle + 8):
        whole[place] ^= 0x55
    found = written(tmp_path / "a.warc", bytes(whole))
    sound = [each for each in pages(found) if each in bodies]
    if packing in ("member by member", "frames"):
        assert len(sound) == 19
        assert [reason for _, reason in refusals(found)] == ["damaged_archive"]
    else:
        assert len(sound) >= 9
        assert sound[:9] == bodies[:9]


@given(st.data())
@settings(max_examples=60)
def test_no_damage_stops_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    maker = data.draw(st.sampled_from([warc, arc]))
    packing = data.draw(st.sampled_from(list(PLAIN)))
    whole = bytearray(PLAIN[packing]([maker(page(number)) for number in range(5)]))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(whole) - 1))
        action = data.draw(st.sampled_from(["alter", "remove", "insert", "swap"]))
        if action == "alter":
            whole[place] = data.draw(st.integers(0, 255))
        elif action == "remove":
            del whole[place : place + data.draw(st.integers(1, 300))]
        elif action == "insert":
            whole[place:place] = data.draw(st.binary(max_size=100))
        else:
            whole[place:] = whole[place // 2 : place] + whole[place:]
        if not whole:
            break
    found = written(tmp_path_factory.mktemp("warc") / "a.warc", bytes(whole))
    assert len(found) < 100
    records = [item.record for item in found]
    assert records == sorted(records)


def test_records_that_are_no_documents(tmp_path: Path) -> None:
    kinds = ("warcinfo", "request", "metadata", "revisit", "continuation", "unknown", "strange")
    records = [warc(page(0), kind=kind) for kind in kinds]
    records.append(warc(b"a log", kind="resource", type="text/plain", status="", url="metadata://gnu.org/wget.log"))
    (found,) = written(tmp_path / "a.warc", b"".join([*records, warc(page(1))]))
    assert found.record == len(records) + 1


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (warc(page(1), status="HTTP/1.1 301 Moved"), "http_redirect"),
        (warc(page(1), status="HTTP/1.1 404 Not Found"), "http_error"),
        (warc(page(1), status="HTTP/2 503"), "http_error"),
        (warc(page(1), status="no HTTP"), "broken_http"),
        (warc(b"x", headers="Content-Type: image/png"), "not_text"),
        (warc(b"{}", headers="Content-Type: application/json"), "not_text"),
        (warc(b"%PDF-1.7\n\0\0\0", headers="Content-Type: text/html"), "not_text"),
        (warc(b"abc\0\0", headers="Content-Type: text/plain"), "not_text"),
        (warc(b"1.2.3.4", status="", type="text/dns", url="dns:example.org"), "not_text"),
        (warc(b"no page", headers="X: y"), "not_text"),
    ],
)
def test_responses_that_give_no_document(record: bytes, expected: str, tmp_path: Path) -> None:
    assert refusals(written(tmp_path / "a.warc", record)) == [(1, expected)]


@pytest.mark.parametrize(
    ("record", "html", "text", "charset"),
    [
        (warc(b"<p>x", headers="content-type:TEXT/HTML;Charset='KOI8-R'"), b"<p>x", "", "KOI8-R"),
        (warc(b"<p>x", headers="Content-Type: application/xhtml+xml"), b"<p>x", "", None),
        (warc(b"<!-- hi --> <HTML><p>x", headers="X: y"), b"<!-- hi --> <HTML><p>x", "", None),
        (warc(b"<html>\0", headers="Content-Type: application/octet-stream"), b"<html>\0", "", None),
        (warc("<p>é".encode("utf-16-le"), headers="Content-Type: text/html; charset=utf-16"),
         "<p>é".encode("utf-16-le"), "", "utf-16"),
        (warc("é à".encode("latin-1"), headers="Content-Type: text/plain; charset=iso-8859-1"), None, "é à", None),
        (warc("привет".encode("koi8-r"), headers="Content-Type: text/plain; charset=koi8-r"), None, "привет", None),
        (warc("é".encode("utf-16-be"), headers="Content-Type: text/plain; charset=utf-16be"), None, "é", None),
        (warc(b"# A\n", headers="Content-Type: text/markdown"), None, "# A\n", None),
        (warc(b"<p>x", status="", kind="resource", type="text/html; charset=utf-8"), b"<p>x", "", "utf-8"),
        (warc(b"<html>x", status="", kind="resource", type=""), b"<html>x", "", None),
        (warc("¡Hola!".encode(), status="", kind="conversion", type="text/plain"), None, "¡Hola!", None),
    ],
)  # fmt: skip
def test_responses_that_give_one(
    record: bytes, html: bytes | None, text: str, charset: str | None, tmp_path: Path
) -> None:
    (found,) = written(tmp_path / "a.warc", record)
    assert isinstance(found, Raw)
    assert (found.html, found.text, found.charset) == (html, text, charset)
    assert (found.url, found.record, found.crawled) == ("http://example.org/", 1, True)


def test_a_bomb_in_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LONGEST", 10**6)
    record = warc(gzip.compress(bytes(10**7)), headers="Content-Type: text/html\r\nContent-Encoding: gzip")
    found = written(tmp_path / "a.warc", record + warc(page(1)))
    assert pages(found) == [page(1)]
    assert refusals(found) == [(1, "page_too_long")]


def test_long_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LONGEST", 10**6)
    long = b"<p>" + bytes(2 * 10**6)
    records = [
        warc(page(0)),
        warc(long),
        warc(long, kind="metadata"),
        warc(page(1)),
        warc(b"", length=10**17),
        warc(page(2)),
    ]
    found = written(tmp_path / "a.warc", b"".join(records))
    assert pages(found) == [page(0), page(1), page(2)]
    assert refusals(found) == [(2, "record_too_long"), (5, "record_too_long")]
    found = written(tmp_path / "a.arc", arc(page(0)) + arc(long) + arc(page(1)))
    assert pages(found) == [page(0), page(1)]
    assert refusals(found) == [(2, "record_too_long")]


def test_addresses(tmp_path: Path) -> None:
    urls = ["<http://example.org/a>", "http://example.org/a b", "http://example.org/ü", ""]
    found = written(tmp_path / "a.warc", b"".join(warc(page(0), url=url) for url in urls))
    assert [item.url for item in found if isinstance(item, Raw)] == ["http://example.org/a", *urls[1:3], None]
    (found_arc,) = written(tmp_path / "a.arc", arc(page(0), url="http://example.org/?a b=c d"))
    assert isinstance(found_arc, Raw)
    assert found_arc.url == "http://example.org/?a b=c d"


def test_what_is_no_archive(tmp_path: Path) -> None:
    for data in (b"<html>" * 10_000, bytes(100_000), b"{}\n" * 1000):
        assert refusals(written(tmp_path / "a.warc", data)) == [(1, "broken_record")]
    assert written(tmp_path / "a.warc", b"") == []
    assert refusals(written(tmp_path / "a.warc.gz", b"")) == [(0, "damaged_archive")]


def test_a_reader_of_small_blocks_finds_the_same(real_data: Path) -> None:
    """Wherever the blocks of the stream end, the records are the same."""
    from groundup.corpus.readers.cursor import Cursor

    class Drip(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(self.drop)

        def resume(self) -> bool:
            return False

    data = (real_data / "warc" / "warcio__example.warc").read_bytes() + b"garbage\r\n" + warc(page(1), length=9)
    data += warc(page(2)) * 3
    expected = list(archives.find_records(Cursor(io.BytesIO(data))))  # type: ignore[arg-type]
    assert len(expected) > 8
    for drop in (1, 2, 3, 7, 100, 1001):
        drip = Drip(data)
        drip.drop = drop  # type: ignore[attr-defined]
        assert list(archives.find_records(Cursor(drip))) == expected
