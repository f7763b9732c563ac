"""Removing what stands elsewhere already: equal documents, shared lines, boilerplate of sites, near-duplicates.

Every algorithm has three parts. A *key* function turns a batch of texts into rows of uint64, of which the first
column is a well-mixed hash: rows with equal hashes have to meet, so a corpus is divided by ranges of it. A *decision*
takes all rows of a range, in any order, and says which documents or lines go. *Applying* that again takes a batch.

    documents equal but for case and white space    exact_keys    first_of_each
    lines or paragraphs of many documents           line_keys     surplus_lines        remove_lines
    lines repeated on a site's pages                site_keys     boilerplate_lines    remove_boilerplate
    documents nearly equal                          sign, band_keys    near_pairs, then choose over all ranges

A document is known by its ordinal (uint64), which says which of equal ones came first. What comes out depends on texts
and ordinals only: not on batches, ranges, the order of rows or the number of workers.
"""

from groundup.corpus.dedup.boilerplate import (
    NO_SITE,
    boilerplate_lines,
    count_pages,
    page_sites,
    remove_boilerplate,
    site_keys,
    site_of,
    site_pages,
    total_pages,
)
from groundup.corpus.dedup.clusters import choose, exact_jaccard, near_pairs
from groundup.corpus.dedup.exact import exact_keys, first_of_each
from groundup.corpus.dedup.lines import line_keys, remove_lines, surplus_lines
from groundup.corpus.dedup.near import band_keys, fingerprints, keep_ranks, sign

__all__ = [
    "NO_SITE",
    "band_keys",
    "boilerplate_lines",
    "choose",
    "count_pages",
    "exact_jaccard",
    "exact_keys",
    "fingerprints",
    "first_of_each",
    "keep_ranks",
    "line_keys",
    "near_pairs",
    "page_sites",
    "remove_boilerplate",
    "remove_lines",
    "sign",
    "site_keys",
    "site_of",
    "site_pages",
    "surplus_lines",
    "total_pages",
]
