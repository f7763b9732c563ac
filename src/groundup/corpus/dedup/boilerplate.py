"""Boilerplate: lines that a site repeats on its pages, such as menus, notices and footers."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from groundup.corpus.columns import numbers
from groundup.corpus.dedup.groups import distinct, firsts, repeated, sizes
from groundup.corpus.dedup.lines import Lines, find_lines, pairs_once, take_out
from groundup.corpus.dedup.stretches import mixed
from groundup.recipe.dedup import BoilerplateSection

NO_SITE = 0


def site_of(url: str | None) -> str:
    """The host of an address in lower case, without "www." and port; "" where it has none."""
    try:
        host = urlsplit(url or "").hostname or ""
    except ValueError:  # brackets that hold no IPv6 address
        return ""
    return host.rstrip(".").removeprefix("www.")


def site_pages(urls: pa.Array) -> np.ndarray:
    """How many pages of each site are among some documents: uint64 [s, 2] of (site, pages), sorted."""
    return count_pages(page_sites(urls))


def count_pages(sites: np.ndarray) -> np.ndarray:
    """The same from the sites of pages, uint64 [n]."""
    sites, pages = np.unique(sites, return_counts=True)
    rows = np.stack((sites, pages.astype(np.uint64)), axis=1)
    return np.asarray(rows[sites != NO_SITE])


def total_pages(rows: np.ndarray) -> np.ndarray:
    """Add up tables of `site_pages` put one below the other, uint64 [n, 2]: one row a site, sorted."""
    rows = rows[np.argsort(rows[:, 0])]
    starts = np.flatnonzero(firsts(rows[:, 0]))
    return np.stack((rows[starts, 0], np.add.reduceat(rows[:, 1], starts)), axis=1) if len(rows) else rows


def site_keys(texts: pa.LargeStringArray, urls: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the lines of each site's pages are known by.

    Returns:
        uint64 [k] a hash of site and line together, uint64 [k] of the site, int64 [k] the page's place in the batch. A
        line that a page has twice is listed once. Pages without an address have no site and list nothing, nor do
        lines without a letter.
    """
    sites = page_sites(urls)
    with_site = np.flatnonzero(sites != NO_SITE)
    found = _lines_of_sites(texts.take(numbers(with_site)).to_pylist(), sites[with_site])
    keys, documents = pairs_once(found.hashes, with_site[found.documents])
    return keys, sites[documents], documents


def boilerplate_lines(rows: np.ndarray, pages: np.ndarray, section: BoilerplateSection) -> np.ndarray:
    """Which lines are boilerplate: those on more than `max_share` of a site's pages and on at least `min_pages`.

    So a line repeated on two of a small site's five pages (a teaser and its article, say) stays. What is boilerplate
    goes from all pages, so that it isn't there when the stage runs again; then only pages that are gone altogether
    can change a share.

    Args:
        rows: uint64 [n, 3] of (site and line, site, ordinal), all that the corpus has of these keys, no two equal; in
            any order.
        pages: uint64 [s, 2] of all sites (`total_pages`).

    Returns:
        removals, uint64 [m, 2] of (ordinal, site and line), sorted.

    Raises:
        ValueError: a site of `rows` isn't in `pages`.
    """
    shared = rows[repeated(rows[:, 0])]
    new = firsts(shared[:, 0])
    on_pages = sizes(new)
    sites = shared[new, 1]
    places = np.searchsorted(pages[:, 0], sites)
    if len(sites) and (places.max() == len(pages) or (pages[places, 0] != sites).any()):
        raise ValueError("lines of a site whose pages weren't counted")
    repeats = (on_pages >= section.min_pages) & (on_pages > section.max_share * pages[places, 1])
    return distinct(shared[np.repeat(repeats, on_pages)][:, [2, 0]])


def remove_boilerplate(
    texts: pa.LargeStringArray, urls: pa.Array, ordinals: np.ndarray, removals: np.ndarray
) -> tuple[pa.LargeStringArray, np.ndarray]:
    """Take the lines out that `boilerplate_lines` named; as `lines.remove_lines`."""
    sites = page_sites(urls)
    return take_out(texts, ordinals, removals, lambda some, rows: _lines_of_sites(some, sites[rows]))


def _lines_of_sites(texts: list[str], sites: np.ndarray) -> Lines:
    found = find_lines(texts)
    return Lines(mixed(found.hashes + mixed(sites[found.documents])), found.documents, found.numbers)


def page_sites(urls: pa.Array) -> np.ndarray:
    """uint64 [n]: a hash of each document's site, NO_SITE for those that have none."""
    return np.array([_hash(site_of(url)) for url in urls.to_pylist()], np.uint64)


@lru_cache(maxsize=4096)
def _hash(site: str) -> int:
    digest = hashlib.blake2b(site.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") if site else NO_SITE
