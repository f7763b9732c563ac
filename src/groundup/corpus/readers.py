"""Files to raw documents: .txt and .md (one document a file), .jsonl (one a line), each plain or .gz.

A reader yields what can be read and counts what can't in the source's funnel; no bad byte, broken line or
damaged archive stops it. Memory is bounded by `BLOCK` (text) and `LONGEST_LINE` (JSON), not by the file.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from groundup.corpus.funnel import SourceFunnel
from groundup.corpus.text import decode, is_wide, looks_binary, mend_surrogates

FORMATS = (".txt", ".md", ".jsonl")
BLOCK = 16 * 2**20  # a text file of more bytes than this is read as several documents, cut at a blank line
LONGEST_LINE = 64 * 2**20  # a longer JSON line is refused


@dataclass(frozen=True)
class Raw:
    """A document as found: its text, and where it stood (`line` is 0 for a whole file). A chat has messages too."""

    text: str
    file: str = ""
    line: int = 0
    url: str | None = None
    language: str | None = None
    messages: list[dict[str, str]] | None = None  # {"role", "content"} of each


def file_format(path: Path) -> str | None:
    """The kind of a file this room reads: ".txt", ".md" or ".jsonl", with ".gz" looked through; else None."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def read_file(path: Path, funnel: SourceFunnel, text_field: str) -> Iterator[Raw]:
    """All documents of one file; `text_field` names the text in a JSON object."""
    funnel.files += 1
    reader = _read_jsonl(path, funnel, text_field) if file_format(path) == ".jsonl" else _read_text(path, funnel)
    try:
        yield from reader
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        funnel.reject("damaged_gzip", file=str(path), excerpt=str(error))
    except OSError as error:
        funnel.reject("unreadable_file", file=str(path), excerpt=str(error))


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _read_text(path: Path, funnel: SourceFunnel) -> Iterator[Raw]:
    with _open(path) as file:
        for number, data in enumerate(_blocks(file)):
            if number == 0 and looks_binary(data):
                funnel.reject("binary_file", file=str(path), excerpt=repr(data[:64]))
                return
            text, encoding = decode(data)
            funnel.encodings[encoding] += 1
            yield Raw(text, str(path))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """The file in blocks of about `BLOCK` bytes, cut after a blank line, else after a line, else anywhere.

    Cut at a newline, no UTF-8 character is torn. UTF-16 and UTF-32, rare and small, come whole. What was read
    before an archive turned out damaged is yielded before the error is raised.
    """
    pending = bytearray()
    damage: Exception | None = None
    while True:
        try:
            data = file.read(BLOCK // 16)
        except (EOFError, zlib.error, OSError) as error:
            data, damage = b"", error
        pending += data
        if not data:
            break
        if len(pending) >= BLOCK and not is_wide(bytes(pending[:4])):
            cut = max(pending.rfind(b"\n\n"), pending.rfind(b"\n\r\n")) + 1 or pending.rfind(b"\n") + 1
            cut = cut or len(pending)
            yield bytes(pending[:cut])
            del pending[:cut]
    if pending:
        yield bytes(pending)
    if damage is not None:
        raise damage


def _read_jsonl(path: Path, funnel: SourceFunnel, text_field: str) -> Iterator[Raw]:
    with _open(path) as file:
        for number, line in _lines(file):
            if line is None:
                funnel.reject("line_too_long", file=str(path), line=number)
                continue
            text, encoding = decode(line)
            if not text.strip():
                continue
            found = _parse(text, text_field)
            if isinstance(found, str):
                funnel.reject(found, file=str(path), line=number, excerpt=text)
                continue
            funnel.encodings[encoding] += 1
            url, language = found.get("url"), found.get("language")
            yield Raw(
                cast(str, found[text_field]),
                str(path),
                number,
                mend_surrogates(url) if isinstance(url, str) else None,
                mend_surrogates(language) if isinstance(language, str) else None,
            )


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line), with None in place of a line longer than `LONGEST_LINE`."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        whole = line.endswith(b"\n") or len(line) < LONGEST_LINE
        yield number, line if whole else None
        while not whole:
            rest = file.readline(LONGEST_LINE)
            whole = rest.endswith(b"\n") or len(rest) < LONGEST_LINE


def _parse(line: str, text_field: str) -> dict[str, object] | str:
    """The record of a line, or the reason why it holds no document."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # RecursionError: thousands of open brackets
        return "broken_json"
    if not isinstance(record, dict):
        return "no_json_object"
    if text_field not in record:
        return "no_text_field"
    return record if isinstance(record[text_field], str) else "text_field_is_no_string"
