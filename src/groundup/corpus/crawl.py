"""Common Crawl: `commoncrawl:CC-MAIN-2024-10` with a number of files becomes so many of the crawl's archives.

A crawl publishes the list of its archives (https://commoncrawl.org/get-started). Nothing else is asked for here, and
that only because the recipe names the crawl. `$GROUNDUP_COMMONCRAWL` names a mirror: an address or a folder.
"""

from __future__ import annotations

import gzip
import os
import re

from groundup.corpus.listing import Listed, bad_source, explained, scheme_of
from groundup.run import UserError

COMMONCRAWL = "commoncrawl:"
_SERVER = "https://data.commoncrawl.org"
_CRAWL = re.compile(r"(CC-[A-Z]+(?:-\d{4}-\d{2,4}|/\d{4}/\d{2}))(?:/([^/]*))?")
# Mean size as stored, since the list tells none: of CC-MAIN-2016-40, 28.94 and 4.54 TiB in 30,374 files each.
_BYTES = {"warc": 2**30, "wet": 157 * 2**20}


def list_crawl(path: str, files: int | None, where: str) -> tuple[str, list[Listed]]:
    """The format ("warc", or "wet" for the texts that Common Crawl extracted) and `files` archives of a crawl.

    They are spread over the crawl evenly, since its list is ordered: by the bit-reversal (van der Corput) sequence,
    so that the archives of a smaller number are always among those of a larger one. Sizes are a mean.

    Raises UserError for a crawl that isn't there, and where `files` is None.
    """
    found = _CRAWL.fullmatch(path.removeprefix(COMMONCRAWL))
    kind = (found[2] or "warc") if found else ""
    if found is None or kind not in _BYTES:
        expected = f"{COMMONCRAWL}CC-MAIN-2024-10 for its pages, {COMMONCRAWL}CC-MAIN-2024-10/wet for their texts alone"
        raise bad_source(path, where, "no such crawl", expected=expected)
    if files is None:
        raise UserError(
            f"corpus source {path!r}: a crawl needs a number of files, it has up to 100,000",
            where=f"{where}.files",
            expected=f"a number; each file is about {_BYTES[kind] / 2**30:.2g} GiB to download",
            mend=f'{{path = "{path}", files = 10}}',
        )
    names = _names(path, found[1], kind, where)
    server = _server()
    chosen = [names[place] for place in sorted(spread(len(names), files))]
    return kind, [Listed(f"{server}/{name}", _BYTES[kind], identity={"path": COMMONCRAWL + name}) for name in chosen]


def spread(count: int, wanted: int) -> list[int]:
    """The first `wanted` of the numbers below `count` in the order of their reversed bits: 0, 1/2, 1/4, 3/4, …"""
    bits = max(1, (count - 1).bit_length())
    order = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(2**bits))
    return [place for place in order if place < count][:wanted]


def _server() -> str:
    return (os.environ.get("GROUNDUP_COMMONCRAWL") or _SERVER).rstrip("/")


def _names(path: str, crawl: str, kind: str, where: str) -> list[str]:
    """The names of all archives of a crawl, as the crawl lists them."""
    address = f"{_server()}/crawl-data/{crawl}/{kind}.paths.gz"
    with explained(address if scheme_of(address) else path, where):
        import fsspec

        try:
            with fsspec.open(address, "rb") as file:
                names = gzip.decompress(file.read()).decode("utf-8").split()
        except FileNotFoundError as error:
            raise bad_source(
                path, where, f"no list of archives at {address}", expected="a crawl of https://index.commoncrawl.org"
            ) from error
    if not names:
        raise bad_source(path, where, f"the list of archives at {address} is empty", expected=None)
    return sorted(set(names))
