"""Sources behind a web server of this machine: single files, and a crawl by its name."""

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from groundup.corpus.documents import Raw, ReaderOptions
from groundup.corpus.listing import name_of
from groundup.corpus.sources import external_files, external_identities, resolve_sources
from groundup.corpus.units import make_units, read_unit
from groundup.recipe import CorpusSection
from groundup.run import UserError

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'groundup[remote]'")
ROWS = [f"document {number}" for number in range(300)]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder behind a web server; gives its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def texts(section: CorpusSection) -> list[str]:
    sources = resolve_sources(section)
    found = [
        item
        for unit in make_units(sources, 1000)
        for item in read_unit(unit, sources[unit.source].table, ReaderOptions(), 1)
    ]
    assert all(isinstance(item, Raw) for item in found)
    return [item.text for item in found if isinstance(item, Raw)]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    data = "\n".join(json.dumps({"text": row}) for row in ROWS).encode()
    (tmp_path / "rows.jsonl").write_bytes(data)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(data))
    with served(tmp_path) as address:
        yield tmp_path, address


def test_single_files(web: tuple[Path, str]) -> None:
    folder, address = web
    plain, packed = f"{address}/rows.jsonl", f"{address}/rows.jsonl.gz?download=true"
    section = CorpusSection(sources=(plain, packed))
    assert name_of(packed) == "rows.jsonl.gz"
    assert texts(section) == ROWS + ROWS  # a server that gives no stretches
    assert external_files(section) == []
    identities = external_identities(section)
    size = (folder / "rows.jsonl").stat().st_size
    assert [each["path"] for each in identities] == [plain, packed]
    assert identities[0]["bytes"] == size
    assert all("last_modified" in each for each in identities)


def test_what_is_not_there(web: tuple[Path, str]) -> None:
    for path, reason in ((f"{web[1]}/nothing.txt", "404"), ("http://127.0.0.1:1/a.txt", "nothing is at this address")):
        with pytest.raises(UserError, match="nothing is at this address") as caught:
            resolve_sources(CorpusSection(sources=(path,)))
        assert reason in caught.value.what
        assert caught.value.where == "corpus.sources[0]"


def test_a_crawl(web: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = web
    names = [f"crawl-data/CC-MAIN-2024-10/segments/1/wet/{number}.warc.wet.gz" for number in range(8)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = f"Page {name}".encode()
        head = f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
        (folder / name).write_bytes(gzip.compress(head.encode() + text + b"\r\n\r\n"))
    listed = gzip.compress("\n".join(names).encode())
    (folder / "crawl-data" / "CC-MAIN-2024-10" / "wet.paths.gz").write_bytes(listed)
    monkeypatch.setenv("GROUNDUP_COMMONCRAWL", address)
    section = CorpusSection.model_validate({"sources": [{"path": "commoncrawl:CC-MAIN-2024-10/wet", "files": 3}]})
    assert texts(section) == [f"Page {names[place]}" for place in (0, 2, 4)]
    assert external_identities(section) == [{"path": f"commoncrawl:{names[place]}"} for place in (0, 2, 4)]
