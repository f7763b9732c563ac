"""The data of benchmarks/corpus.py, made from real text once and kept: documents with planted duplicates, crawls of
real pages, and larger collections that grow without repeating themselves.

Everything made here follows from the real data, the sizes asked for and fixed seeds. Each collection is a folder with
a done.json, written last, of what is known about it.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import random
import re
import shutil
import sysconfig
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from common import UnavailableError, bench_folder, free_space, real_data, say
from scores import Shingler, jaccard

FORMAT = 1  # of what is made; another one is made anew
SEED = 20261121
# Share of each kind of text; what one kind lacks is made up from the first.
SHARES = {"wikipedia": 0.50, "books": 0.22, "python": 0.14, "random": 0.08, "techdocs": 0.06}
# Planted duplicates for every 100 MB: exact ones, some with this share of words replaced, cut off, or added to.
PLANTED = {"exact": 1440, "truncated": 250, "boilerplate": 250}
EDITS, EDITED = (0.005, 0.01, 0.02, 0.04, 0.08), 360
ORIGINAL = 0.77  # of the bytes asked for are originals; the planted duplicates are the rest
NOTICE = (
    "\n\nThis page was last changed a while ago. Its text may be used under the terms of the licence named on the "
    "front page; further terms may apply. By using this site you agree to the terms of use and the privacy policy. "
    "Sign up for our newsletter to get the best of the week every Friday morning. Share this page with your friends."
)


def kept(name: str, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """(folder, what done.json says) of a collection, made by `make` in an empty folder if it isn't there yet."""
    folder = bench_folder() / "corpora" / f"{name}-{FORMAT}"
    if not (folder / "done.json").exists():
        say(f"making {folder} (once)")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "done.json").write_text(json.dumps(make(folder)))
    return folder, json.loads((folder / "done.json").read_text())


def documents(megabytes: int, files: int) -> tuple[Path, dict[str, Any]]:
    """A folder of jsonl.gz files with "id" (its number, as text) and "text", about so many megabytes of text.

    done.json has "documents", "bytes", and "planted": [first, second, kind, exact Jaccard] of every planted duplicate,
    of which each document belongs to one at most.
    """

    def make(folder: Path) -> dict[str, Any]:
        texts, planted = _with_duplicates(_base(int(megabytes * 10**6 * ORIGINAL)), random.Random(SEED))
        size = write_documents(folder / "documents", texts, files)
        return {"documents": len(texts), "bytes": size, "planted": planted}

    python = sysconfig.get_python_version()  # its library's texts are among the documents
    folder, done = kept(f"documents-{megabytes}mb-{files}-py{python}", make)
    return folder / "documents", done


def articles() -> tuple[Path, dict[str, Any]]:
    """2,500 news articles with planted near-duplicates (the data set `neardup`), in the form of `documents`."""
    source = real_data() / "neardup" / "articles_2500.train.gz"
    if not source.exists():
        raise UnavailableError(f"no {source}")

    def make(folder: Path) -> dict[str, Any]:
        lines = gzip.decompress(source.read_bytes()).decode().splitlines()
        names, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
        number = {name: i for i, name in enumerate(names)}
        truth = gzip.decompress(source.with_name("articles_2500.truth.gz").read_bytes()).decode().split()
        shingler = Shingler()
        sets = {name: shingler(texts[number[name]]) for name in truth}
        pairs = list(zip(truth[::2], truth[1::2], strict=True))
        planted = [[number[a], number[b], "articles", jaccard(sets[a], sets[b])] for a, b in pairs]
        return {"documents": len(texts), "bytes": write_documents(folder / "documents", texts, 2), "planted": planted}

    folder, done = kept("articles", make)
    return folder / "documents", done


def write_documents(folder: Path, texts: Any, files: int) -> int:
    """Write jsonl.gz files of about equal numbers of documents; returns the bytes of text (UTF-8)."""
    folder.mkdir(parents=True)
    size = 0
    bounds = np.linspace(0, len(texts), files + 1).astype(int)
    for number in range(files):
        with gzip.open(folder / f"documents-{number:03d}.jsonl.gz", "wb", compresslevel=6) as file:
            for i in range(bounds[number], bounds[number + 1]):
                size += len(texts[i].encode())
                file.write(orjson.dumps({"id": str(i), "text": texts[i]}) + b"\n")
    return size


def read_texts(folder: Path) -> list[str]:
    """The texts of `documents` in the order of their numbers."""
    return list(_jsonl(sorted(folder.glob("*.jsonl.gz"))))


def first_numbers(folder: Path) -> dict[str, int]:
    """Of every file of `documents` the number of its first one."""
    firsts, number = {}, 0
    for path in sorted(folder.glob("*.jsonl.gz")):
        firsts[path.name] = number
        number += gzip.decompress(path.read_bytes()).count(b"\n")
    return firsts


def _base(size: int) -> list[str]:
    """Real documents of about `size` bytes in all, each kind by its share, in an order of their own."""
    data, chance = real_data(), random.Random(SEED)
    kinds = {
        "wikipedia": lambda: list(_jsonl(sorted((data / "wikipedia").glob("*.jsonl.gz")))),
        "books": lambda: [p for path in sorted((data / "books").glob("*.gz")) for p in _pieces(_gunzip(path), chance)],
        "python": lambda: list(_python_texts(chance)),
        "random": lambda: list(_jsonl(sorted((data / "wikipedia_random").glob("*.jsonl.gz")))),
        "techdocs": lambda: [path.read_text("utf-8", "replace") for path in sorted((data / "techdocs").glob("*/*.*"))],
    }
    taken: list[str] = []
    total = 0
    for kind, share in reversed(SHARES.items()):  # wikipedia, the largest, comes last and fills up
        found = kinds[kind]()
        chance.shuffle(found)
        limit = size - total if kind == "wikipedia" else int(size * share)
        for text in found:
            if limit <= 0:
                break
            taken.append(text)
            limit -= len(text.encode())
            total += len(text.encode())
    if total < 0.9 * size:
        raise UnavailableError(
            f"the real data in {data} give {total / 1e6:.0f} MB of text, {size / 1e6:.0f} are needed"
        )
    chance.shuffle(taken)
    return taken


def _jsonl(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        with gzip.open(path) as file:
            for line in file:
                yield orjson.loads(line)["text"]


def _gunzip(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def _python_texts(chance: random.Random) -> Iterator[str]:
    """The documentation in the standard library's source, a document a module, and the source itself in pieces."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(path.relative_to(library).parts):
            continue
        source = path.read_text("utf-8", "replace")
        try:
            nodes = ast.walk(ast.parse(source))
        except (SyntaxError, ValueError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        documented = "\n\n".join(filter(None, (ast.get_docstring(node) for node in nodes if isinstance(node, kinds))))
        if len(documented) > 500:
            yield documented
        yield from _pieces(source, chance)


def _pieces(text: str, chance: random.Random) -> Iterator[str]:
    """The text in pieces of 1.5 to 9 kB that end at blank lines."""
    piece: list[str] = []
    size, wanted = 0, chance.randint(1500, 9000)
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        piece.append(paragraph)
        size += len(paragraph) + 2
        if size >= wanted:
            yield "\n\n".join(piece)
            piece, size, wanted = [], 0, chance.randint(1500, 9000)
    if size >= 500:
        yield "\n\n".join(piece)


def _with_duplicates(base: list[str], chance: random.Random) -> tuple[list[str], list[list[Any]]]:
    """(documents in a random order, planted pairs as in `documents`)."""
    scale = sum(len(text) for text in base) / 1e8
    originals = [i for i, text in enumerate(base) if 1500 <= len(text) <= 30000]
    chance.shuffle(originals)
    vocabulary = sorted({word for text in base[:300] for word in text.split()})
    changes: list[tuple[str, Callable[[str], str]]] = []
    changes += [("exact", str)] * int(PLANTED["exact"] * scale)
    changes += [("truncated", lambda text: text[: int(len(text) * 0.9)])] * int(PLANTED["truncated"] * scale)
    changes += [("boilerplate", lambda text: text + NOTICE)] * int(PLANTED["boilerplate"] * scale)
    for share in EDITS:
        edit = lambda text, share=share: _edit(text, share, vocabulary, chance)  # noqa: E731
        changes += [(f"edited {share:.1%}", edit)] * int(EDITED * scale)
    shingler = Shingler()
    copies: list[tuple[int, str, str, float]] = []
    for (kind, change), original in zip(changes, originals, strict=False):
        text = change(base[original])
        copies.append((original, text, kind, jaccard(shingler(base[original]), shingler(text))))
    order = list(range(len(base) + len(copies)))
    chance.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    every = base + [text for _, text, _, _ in copies]
    planted = [
        [place[original], place[len(base) + i], kind, similarity]
        for i, (original, _, kind, similarity) in enumerate(copies)
    ]
    return [every[i] for i in order], planted


def _edit(text: str, share: float, vocabulary: list[str], chance: random.Random) -> str:
    """The text with this share of its words replaced by others; white space stays."""
    parts = re.split(r"(\s+)", text)
    places = [i for i in range(0, len(parts), 2) if parts[i]]
    for i in chance.sample(places, max(1, round(share * len(places)))):
        parts[i] = chance.choice(vocabulary)
    return "".join(parts)


def pages(copies: int, files: int) -> tuple[Path, dict[str, Any]]:
    """A folder of .warc.gz files of real pages, as often as `copies`, in the form of Common Crawl.

    The first copy is as found; in the others the letters of the text, not of the markup, are changed round, since
    equal segments would be dropped by extractors that look for repetition. done.json has "pages", "bytes" (of HTML),
    and "gold": address of a page in the first copy → its true text.
    """

    def make(folder: Path) -> dict[str, Any]:
        found = list(_real_pages())
        gold = {url: text for url, _, text in found if text is not None}
        if not gold:
            raise UnavailableError(f"no pages with their true text in {real_data() / 'html' / 'readability'}")
        queue = [(f"{url}#{copy}" if copy else url, page, copy) for copy in range(copies) for url, page, _ in found]
        random.Random(SEED).shuffle(queue)
        size = 0
        (folder / "pages").mkdir()
        for number in range(files):
            with (folder / "pages" / f"pages-{number:03d}.warc.gz").open("wb") as file:
                for url, page, copy in queue[number::files]:
                    body = _other_letters(page, copy) if copy else page
                    size += len(body)
                    file.write(_warc_response(url, body))
        return {"pages": len(queue), "bytes": size, "gold": gold}

    folder, done = kept(f"pages-{copies}x{files}", make)
    return folder / "pages", done


def _real_pages() -> Iterator[tuple[str, bytes, str | None]]:
    """(address, UTF-8 page, its true text where known): the readability pages and those of the real archives."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from scores import text_of_html

    folder = real_data()
    for path in sorted((folder / "html" / "readability").glob("*/source.html.gz")):
        gold = text_of_html(_gunzip(path.with_name("expected.html.gz")))
        yield f"https://pages.example/{path.parent.name}", _gunzip(path).encode(), gold
    seen = set()
    for path in sorted((folder / "warc").glob("*.warc.gz")):
        archive = ArchiveIterator(io.BytesIO(path.read_bytes()), record_types=WarcRecordType.response)
        try:
            for record in archive:
                kind = (record.http_content_type or "") if record.is_http else ""
                page = record.reader.read()
                if "html" in kind and len(page) > 2000 and page not in seen:
                    seen.add(page)
                    text = page.decode(record.http_charset or "utf-8", "replace")
                    yield f"https://archive.example/{path.name}/{len(seen)}", text.encode(), None
        except (OSError, EOFError, RuntimeError, LookupError) as error:  # some are broken on purpose
            say(f"{path.name}: {error}")


_MARKUP = re.compile(rb"(<(script|style)\b.*?</\2\s*>|<!--.*?-->|<[^>]*>|&#?\w{1,8};)", re.S | re.I)
_VOWELS, _CONSONANTS = b"aeiou", b"bcdfghjklmnpqrstvwxz"


def _other_letters(page: bytes, turn: int) -> bytes:
    """The page with every vowel and consonant of its text `turn` places on; markup and character references stay."""
    old = _VOWELS + _CONSONANTS
    new = b"".join(
        letters[turn % len(letters) :] + letters[: turn % len(letters)] for letters in (_VOWELS, _CONSONANTS)
    )
    table = bytes.maketrans(old + old.upper(), new + new.upper())
    result, position = [], 0
    for match in _MARKUP.finditer(page):
        result += [page[position : match.start()].translate(table), match.group()]
        position = match.end()
    return b"".join([*result, page[position:].translate(table)])


def _warc_response(url: str, body: bytes) -> bytes:
    """One WARC/1.0 record in a gzip member of its own."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    identity = uuid.uuid5(uuid.NAMESPACE_URL, url)
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Record-ID: <urn:uuid:{identity}>\r\n"
        f"WARC-Date: 2026-11-01T00:00:00Z\r\nWARC-Target-URI: {url}\r\n"
        "Content-Type: application/http; msgtype=response\r\nWARC-Identified-Payload-Type: text/html\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", 6, mtime=0)


_COMMON = 200  # most frequent words, which every copy keeps
_RANKS = (_COMMON, 1000, 4000, 16000, 64000)


def grown(megabytes: int) -> tuple[Path, dict[str, Any]]:
    """A folder of jsonl.gz files with so many megabytes of text: real documents over and over, in each copy with
    other words, so that hardly a shingle returns. done.json has "documents" and "bytes".

    A copy exchanges all but the commonest words for others about as frequent and written alike (digits, capitals), one
    for one. Lines, punctuation, common words and repetition within a document stay, so filters decide as before.
    """

    def make(folder: Path) -> dict[str, Any]:
        free_space(folder, megabytes * 10**6 // 2)
        (folder / "documents").mkdir()
        base = _base(min(megabytes, 25) * 10**6)
        pieces, codes, ends = _tokens(base)
        classes = _classes(pieces, codes)
        vocabulary = pa.array(pieces, pa.large_string())
        number, size, copy = 0, 0, 0
        while size < megabytes * 10**6:
            exchange = np.arange(len(pieces))
            chance = np.random.default_rng([SEED, copy])
            for members in classes if copy else ():
                exchange[members] = chance.permutation(members)
            taken = vocabulary.take(pa.array(exchange[codes]))
            text = memoryview(taken.buffers()[2])
            offsets = np.frombuffer(taken.buffers()[1], np.int64)[np.concatenate(([0], ends))].tolist()
            path = folder / "documents" / f"documents-{copy:04d}.jsonl.gz"
            with gzip.open(path, "wb", compresslevel=1) as file:
                for begin, end in zip(offsets[:-1], offsets[1:], strict=True):
                    document = str(text[begin:end], "utf-8")
                    file.write(orjson.dumps({"id": str(number), "text": document}) + b"\n")
                    number, size = number + 1, size + end - begin
                    if size >= megabytes * 10**6:
                        break
            copy += 1
        return {"documents": number, "bytes": size}

    folder, done = kept(f"grown-{megabytes}mb-py{sysconfig.get_python_version()}", make)
    return folder / "documents", done


def _tokens(texts: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(distinct words and what stands between words, the texts as their numbers, where each text ends)."""
    number: dict[str, int] = {}
    codes, ends = [], []
    for text in texts:
        codes += [number.setdefault(token, len(number)) for token in re.findall(r"\w+|\W+", text)]
        ends.append(len(codes))
    return list(number), np.array(codes), np.array(ends)


def _classes(pieces: list[str], codes: np.ndarray) -> list[np.ndarray]:
    """The words that may stand for each other: alike in rank, digits and capitals."""
    counts = np.bincount(codes, minlength=len(pieces))
    is_word = np.array([re.match(r"\w", piece) is not None for piece in pieces])
    rank = np.empty(len(pieces), dtype=np.int64)
    rank[np.argsort(-counts * is_word, kind="stable")] = np.arange(len(pieces))
    band = np.searchsorted(_RANKS, rank, side="right")
    groups: dict[tuple[int, bool, bool, bool], list[int]] = {}
    for i, piece in enumerate(pieces):
        if is_word[i] and band[i]:
            look = (int(band[i]), piece.isdigit(), piece[:1].isupper(), piece.isupper())
            groups.setdefault(look, []).append(i)
    return [np.array(members) for members in groups.values()]
