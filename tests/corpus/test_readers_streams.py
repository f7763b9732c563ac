"""Streams: every compression, whole and damaged; bombs, long lines and files that can't be read, in bounded memory."""

import bz2
import gzip
import io
import lzma
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.documents import Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers import open_stream, read_part, streams
from groundup.corpus.readers.streams import Stream, UnreadableError
from groundup.corpus.readers.unpack import ZSTD_BLOCK, ZstdFrame
from groundup.run import UserError

OPTIONS = ReaderOptions()
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 6, mtime=0),
    ".zst": zstandard.ZstdCompressor(level=3, write_checksum=True).compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
suffixes = pytest.mark.parametrize("suffix", PACKERS)


def read(path: Path, kind: str = "text", options: ReaderOptions = OPTIONS, **fields: Any) -> list[Raw | Refused]:
    return list(read_part(Part(str(path), kind, path.stat().st_size if path.exists() else 0, **fields), options))


def read_bytes(data: bytes, suffix: str = "", limit: int = 2**30, size: int = 2**18) -> bytes:
    stream = Stream(io.BytesIO(data), f"file{suffix}", limit)
    return b"".join(iter(lambda: stream.read(size), b""))


def drain(stream: Stream) -> None:
    while stream.read():
        pass


@contextmanager
def peak_below(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@suffixes
@given(data=st.data())
@settings(max_examples=15)
def test_members_are_read_as_one(suffix: str, data: st.DataObject) -> None:
    members = data.draw(st.lists(st.binary(max_size=300).map(lambda part: part * 50), max_size=5))
    packed = b"".join(PACKERS[suffix](member) + data.draw(st.sampled_from([b"", bytes(7)])) for member in members)
    size = data.draw(st.sampled_from([1, 100, 2**18]))
    if members:
        assert read_bytes(packed, suffix, size=size) == b"".join(members)


@suffixes
@pytest.mark.parametrize("name", ["text{}", "text.txt", "text"])
def test_the_first_bytes_tell_the_compression(suffix: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name.format(suffix)
    path.write_bytes(PACKERS[suffix](b"Some text."))
    assert [item.text for item in read(path) if isinstance(item, Raw)] == ["Some text."]
    path.write_bytes(b"Plain text, whatever the name says.")
    assert [item.text for item in read(path) if isinstance(item, Raw)] == ["Plain text, whatever the name says."]


@suffixes
def test_a_truncated_archive_gives_what_came_before(suffix: str, tmp_path: Path) -> None:
    rng = random.Random(0)
    text = "".join(rng.choices("abcdefghijklmnop \n", k=3000))
    packed = PACKERS[suffix](text.encode())
    path = tmp_path / f"text.txt{suffix}"
    longest = 0
    for cut in [*range(40), *range(40, len(packed) - 40, 37), *range(len(packed) - 40, len(packed))]:
        path.write_bytes(packed[:cut])
        *documents, refusal = read(path)
        assert isinstance(refusal, Refused)
        assert (refusal.reason, refusal.record) == ("damaged_archive", 0)
        found = "".join(item.text for item in documents if isinstance(item, Raw))
        assert text.startswith(found)
        longest = max(longest, len(found))
    assert longest == len(text) or suffix in (".zst", ".bz2")  # these give a block only when they have all of it


@suffixes
def test_whole_members_before_a_truncated_one_are_all_read(suffix: str, tmp_path: Path) -> None:
    lines = [b'{"text": "%d"}\n' % number for number in range(100)]
    members = [PACKERS[suffix](b"".join(lines[start : start + 10])) for start in range(0, 100, 10)]
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(b"".join(members)[:-9])
    found = read(path, "jsonl")
    texts = [item.text for item in found if isinstance(item, Raw)]
    assert texts == [str(number) for number in range(len(texts))]
    assert len(texts) >= 90
    assert [item.reason for item in found if isinstance(item, Refused)] == ["damaged_archive"]


@suffixes
def test_reading_goes_on_behind_a_damaged_member(suffix: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefgh", k=500)) for _ in range(30)]
    members = [PACKERS[suffix](b'{"text": "%s"}\n' % text.encode()) for text in texts]
    broken = bytearray(members[10])
    for place in range(len(broken) // 2, len(broken) // 2 + 20):
        broken[place] ^= 0x5A
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(b"".join([*members[:10], bytes(broken), *members[11:]]))
    found = read(path, "jsonl")
    assert [item.text for item in found if isinstance(item, Raw)] == texts[:10] + texts[11:]
    assert [item.reason for item in found if isinstance(item, Refused)] == ["damaged_archive"]


@suffixes
@given(place=st.floats(0, 0.999), value=st.integers(1, 255))
@settings(max_examples=20)
def test_no_altered_byte_stops_a_reader(suffix: str, place: float, value: int) -> None:
    packed = bytearray(PACKERS[suffix](b"first line\n" * 100) + PACKERS[suffix](b"second line\n" * 100))
    packed[int(place * len(packed))] ^= value
    stream = Stream(io.BytesIO(bytes(packed)), f"file{suffix}", 2**20)
    reasons: set[str] = set()
    for _ in range(100):  # members that it tries to go on with
        try:
            drain(stream)
            break
        except UnreadableError as error:
            reasons.add(error.reason)
            if not stream.resume():
                break
    else:
        raise AssertionError("it never ends")
    assert reasons <= {"damaged_archive", "unpacked_limit"}


@pytest.mark.parametrize("tail", [b"garbage that is no archive", b"\x1f\x8b\x08", b"x"])
def test_garbage_after_an_archive_is_counted(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress(b"Some text.") + tail)
    document, refusal = read(path)
    assert isinstance(document, Raw)
    assert document.text == "Some text."
    assert isinstance(refusal, Refused)
    assert refusal.reason == "damaged_archive"


def zstd_bomb(size: int) -> bytes:
    """A frame whose blocks of four bytes stand for 128 KiB each."""
    blocks = [int.to_bytes(ZSTD_BLOCK << 3 | 1 << 1, 3, "little") + b"a"] * (size // ZSTD_BLOCK)
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(blocks) + b"\x01\x00\x00"


BOMB = 200 * 2**20
BOMBS: dict[str, Callable[[], bytes]] = {
    ".gz": lambda: zlib_stream(BOMB),
    ".zst": lambda: zstd_bomb(BOMB),
    ".bz2": lambda: bz2.compress(bytes(20 * 2**20)) * 10,
    ".xz": lambda: lzma.compress(bytes(BOMB // 8), preset=0) * 8,
}


def zlib_stream(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(size // 2**20)), packer.flush()])


@pytest.mark.parametrize("suffix", BOMBS)
def test_a_bomb_ends_at_the_limit(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.jsonl{suffix}"
    path.write_bytes(BOMBS[suffix]())
    assert path.stat().st_size < 2**20
    with peak_below(32 * 2**20):
        found = read(path, "jsonl", ReaderOptions(unpacked_limit=8 * 2**20))
        assert [item.reason for item in found if isinstance(item, Refused)] == ["unpacked_limit"]
    stream = open_stream(str(path), 8 * 2**20)
    with stream, pytest.raises(UnreadableError, match="8388608 bytes"):
        drain(stream)
    assert stream.unpacked == 8 * 2**20


@suffixes
def test_a_file_of_just_the_limit_is_whole(suffix: str) -> None:
    packed = PACKERS[suffix](bytes(5000))
    assert read_bytes(packed, limit=5000) == bytes(5000)
    with pytest.raises(UnreadableError, match="more than 4999 bytes"):
        read_bytes(packed, limit=4999)


@given(st.data())
@settings(max_examples=40)
def test_zstandard_frames_of_all_kinds(data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=2000)) * data.draw(st.sampled_from([0, 1, 300]))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        data.draw(st.sampled_from([1, 3, 19])),
        write_checksum=data.draw(st.booleans()),
        write_content_size=data.draw(st.booleans()),
        window_log=data.draw(st.sampled_from([10, 17, 20])),
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj(
        size=len(content) if parameters.write_content_size else -1
    )
    packed = packer.compress(content) + packer.flush()
    skipped = b"\x53\x2a\x4d\x18" + (1000).to_bytes(4, "little") + bytes(1000)
    whole = data.draw(st.sampled_from([packed, skipped + packed, packed + skipped]))
    frame, chunk = ZstdFrame(), data.draw(st.integers(1, 5000))
    found = b""
    rest = whole
    for _ in range(100_000):
        given_, rest = (rest[:chunk], rest[chunk:]) if frame.needs_input else (b"", rest)
        if frame.eof:
            if not (left := frame.unused_data + given_ + rest):
                break
            frame, rest = ZstdFrame(), left
            continue
        piece = frame.decompress(given_, 1)
        assert len(piece) <= ZSTD_BLOCK
        found += piece
    assert frame.eof
    assert found == content
    assert read_bytes(whole) == content


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    for name in ("pipe.txt", "folder.txt", "loop.txt", "gone.txt", "nul\0.txt", "x" * 300):
        part = Part(str(tmp_path / name), "text", 0)
        (refusal,) = read_part(part, OPTIONS)
        assert isinstance(refusal, Refused)
        assert (refusal.reason, refusal.file, refusal.record) == ("unreadable_file", part.path, 0)
        assert refusal.excerpt


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("secret")
    path.chmod(0)
    assert [item.reason for item in read(path) if isinstance(item, Refused)] == ["unreadable_file"]


def test_a_disk_that_fails_in_the_middle() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1000:
                raise OSError(5, "Input/output error")
            return super().read(min(size or 0, 600))

    stream = Stream(Failing(bytes(5000)), "file", 2**20)
    assert stream.read() == bytes(616)
    assert stream.read() == bytes(600)
    with pytest.raises(UnreadableError, match="Input/output error") as caught:
        drain(stream)
    assert caught.value.reason == "unreadable_file"


@pytest.mark.parametrize("head", [b"\x04\x22\x4d\x18@", b"PK\x03\x04..", b"7z\xbc\xaf\x27\x1c"])
def test_other_archives_are_named(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(head + bytes(100))
    assert [item.reason for item in read(path) if isinstance(item, Refused)] == ["unsupported_compression"]


def test_urls_are_opened_by_fsspec() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/corpus/rows.jsonl.gz", gzip.compress(b'{"text": "far away"}\n'))
    files.pipe("/corpus/rows.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    (found,) = read_part(Part("memory://corpus/rows.jsonl.gz", "jsonl", 0), OPTIONS)
    assert isinstance(found, Raw)
    assert (found.text, found.file) == ("far away", "memory://corpus/rows.jsonl.gz")
    (found,) = read_part(Part("memory://corpus/rows.jsonl", "jsonl", 0, 5, 20), OPTIONS)
    assert isinstance(found, Raw)
    assert found.text == "two"
    (missing,) = read_part(Part("memory://corpus/gone.txt", "text", 0), OPTIONS)
    assert isinstance(missing, Refused)
    assert missing.reason == "unreadable_file"


def test_an_unknown_kind_of_url_is_a_mistake_of_the_recipe() -> None:
    with pytest.raises(UserError, match="remote"):
        list(read_part(Part("nosuch://host/file.txt", "text", 0), OPTIONS))


def test_a_remote_file_is_read_on_after_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(300_000)
    fsspec.filesystem("memory").pipe("/flaky.bin", data)
    memory = fsspec.filesystem("memory")
    opened: list[Any] = []
    pauses: list[float] = []

    class Flaky(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if len(opened) % 3 and self.tell() > 50_000 * len(opened):
                raise RuntimeError("connection reset")
            return super().read(min(size or 0, 20_000))

    def open_(path: str, mode: str = "rb") -> Flaky:
        opened.append(Flaky(data))
        return opened[-1]

    monkeypatch.setattr(memory, "open", open_)
    monkeypatch.setattr(streams.time, "sleep", pauses.append)
    with open_stream("memory://flaky.bin", 2**30) as stream:
        assert b"".join(iter(stream.read, b"")) == data
    assert len(opened) > 1
    assert pauses
    monkeypatch.setattr(Flaky, "read", lambda self, size: 1 / 0)
    with pytest.raises(UnreadableError, match="ZeroDivisionError"):
        open_stream("memory://flaky.bin", 2**30)


@pytest.mark.parametrize("megabytes", [200, pytest.param(1024, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_too_long_is_refused_in_bounded_memory(megabytes: int, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"long.{kind}"
    head, tail = (b'{"text": "', b'"}\n{"text": "next"}\n') if kind == "jsonl" else (b"text\n", b"\nnext\n")
    with path.open("wb") as file:
        file.write(head + b" " * 2**20)  # a table's first bytes tell whether it is text
        file.seek(megabytes * 2**20, 1)  # a hole: zeros that take no room
        file.write(tail)
    with peak_below(200 * 2**20):
        found = read(path, kind)
    (refusal,) = (item for item in found if isinstance(item, Refused))
    assert (refusal.reason, refusal.record) == ("line_too_long", 1 if kind == "jsonl" else 2)
    assert [item.text for item in found if isinstance(item, Raw)] == ["next"]


@pytest.mark.slow
def test_a_line_of_a_gigabyte_packed(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.gz"
    path.write_bytes(
        gzip.compress(b'{"text": "first"}\n') + zlib_stream(2**30) + gzip.compress(b'\n{"text": "next"}\n')
    )
    with peak_below(200 * 2**20):
        found = read(path, "jsonl")
    assert [item.text if isinstance(item, Raw) else item.reason for item in found] == ["first", "line_too_long", "next"]
