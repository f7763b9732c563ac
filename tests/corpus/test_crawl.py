"""Common Crawl by name, from a mirror in a folder and behind a server of this machine."""

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.corpus.crawl import list_crawl, spread
from groundup.corpus.sources import external_files, external_identities, resolve_sources
from groundup.recipe import CorpusSection
from groundup.run import UserError

CRAWL = "CC-MAIN-2024-10"


def names(kind: str, count: int) -> list[str]:
    return [f"crawl-data/{CRAWL}/segments/17/{kind}/{number:05d}.warc.{kind}.gz" for number in range(count)]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mirror"
    for crawl in (CRAWL, "CC-NEWS/2024/02"):
        (folder / "crawl-data" / crawl).mkdir(parents=True)
        for kind in ("warc", "wet"):
            listed = "\n".join(names(kind, 90)) + "\n"
            (folder / "crawl-data" / crawl / f"{kind}.paths.gz").write_bytes(gzip.compress(listed.encode()))
    monkeypatch.setenv("GROUNDUP_COMMONCRAWL", f"{folder}/")
    return folder


def section(path: str, **options: object) -> CorpusSection:
    return CorpusSection.model_validate({"sources": [{"path": path, **options}]})


def test_archives_of_a_crawl(mirror: Path) -> None:
    [source] = resolve_sources(section(f"commoncrawl:{CRAWL}", files=4))
    every = names("warc", 90)
    assert [part.path for part in source.parts] == [f"{mirror}/{every[place]}" for place in (0, 16, 32, 64)]
    assert {part.format for part in source.parts} == {"warc"}
    assert {part.bytes for part in source.parts} == {2**30}
    [texts] = resolve_sources(section(f"commoncrawl:{CRAWL}/wet", files=1000, format="wet"))
    assert [part.path for part in texts.parts] == [f"{mirror}/{name}" for name in names("wet", 90)]
    assert {part.format for part in texts.parts} == {"wet"}
    assert len(resolve_sources(section("commoncrawl:CC-NEWS/2024/02", files=7))[0].parts) == 7


def test_a_crawl_is_identified_by_its_names(mirror: Path) -> None:
    chosen = section(f"commoncrawl:{CRAWL}", files=2)
    assert external_files(chosen) == []
    every = names("warc", 90)
    assert external_identities(chosen) == [{"path": f"commoncrawl:{every[0]}"}, {"path": f"commoncrawl:{every[64]}"}]


@given(st.integers(1, 3000), st.integers(1, 40))
def test_the_spread(count: int, wanted: int) -> None:
    order = spread(count, count)
    assert sorted(order) == list(range(count))
    assert spread(count, wanted) == order[:wanted]
    chosen = [*sorted(order[:wanted]), count]
    gaps = [after - before for before, after in pairwise(chosen)]
    assert chosen[0] == 0
    assert max(gaps) <= 4 * count / wanted + 1  # no stretch is left out


@pytest.mark.parametrize(
    ("path", "options", "what", "where"),
    [
        (f"commoncrawl:{CRAWL}", {}, "a crawl needs a number of files", ".files"),
        (f"commoncrawl:{CRAWL}/wat", {"files": 1}, "no such crawl", ""),
        ("commoncrawl:2024-10", {"files": 1}, "no such crawl", ""),
        ("commoncrawl:../../etc", {"files": 1}, "no such crawl", ""),
        ("commoncrawl:CC-MAIN-2025-99", {"files": 1}, "no list of archives at ", ""),
        (f"commoncrawl:{CRAWL}", {"files": 1, "format": "wet"}, "of format 'warc', not 'wet'", ".format"),
        (f"commoncrawl:{CRAWL}", {"files": 1, "extensions": [".gz"]}, "extensions has no effect", ".extensions"),
    ],
)
def test_errors(mirror: Path, path: str, options: dict[str, object], what: str, where: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_sources(section(path, **options))
    assert what in caught.value.what
    assert repr(path) in caught.value.what
    assert caught.value.where == f"corpus.sources[0]{where}"


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"a" * 10**4)[:40], gzip.compress(b"\n")])
def test_a_damaged_list_is_an_error(mirror: Path, content: bytes) -> None:
    (mirror / "crawl-data" / CRAWL / "warc.paths.gz").write_bytes(content)
    with pytest.raises(UserError, match="commoncrawl:CC-MAIN-2024-10"):
        list_crawl(f"commoncrawl:{CRAWL}", 3, "corpus.sources[0]")
