"""Shares of figures, capitals, symbols and addresses."""

from __future__ import annotations

import numpy as np

from groundup.corpus.characters import ALONE, CLINGING, DIGIT, LOWER, SPACE, UPPER, Characters
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters.verdict import Verdict, share
from groundup.corpus.words import Words
from groundup.recipe.filters import SymbolsSection


class SymbolsFilter:
    """Refuses what is mostly figures, capitals, symbols or addresses.

    A web address reaches from "http://", "https://" or "www." to the next white space.
    """

    name = "symbols"
    rules = ("max_digits", "max_capitals", "max_symbols", "max_addresses")

    def __init__(self, section: SymbolsSection) -> None:
        self.section = section

    def __call__(self, batch: Batch) -> Outcome:
        words, section = batch.words, self.section
        source = words.source
        first = (source.octets & 0xC0) != 0x80  # of a character's bytes the first alone counts
        kinds = source.kinds
        visible = _count(words, (kinds != SPACE) & first)
        letters = _count(words, ((kinds == LOWER) | (kinds == UPPER) | (kinds == ALONE)) & first)
        verdict = Verdict(self.rules, len(batch))
        verdict.at_most("max_digits", share(_count(words, (kinds == DIGIT) & first), visible), section.max_digits)
        verdict.at_most("max_capitals", share(_count(words, (kinds == UPPER) & first), letters), section.max_capitals)
        verdict.at_most("max_symbols", share(_count(words, (kinds > CLINGING) & first), visible), section.max_symbols)
        verdict.at_most("max_addresses", share(_in_addresses(words), visible), section.max_addresses)
        return verdict.outcome()


def _count(words: Words, chosen: np.ndarray) -> np.ndarray:
    """int64 [n]: how many of the bytes chosen, bool [N], stand in each text."""
    spans = zip(words.text_starts.tolist(), words.text_ends.tolist(), strict=True)
    return np.array([np.count_nonzero(chosen[start:end]) for start, end in spans], np.int64)


def _in_addresses(words: Words) -> np.ndarray:
    """int64 [n]: characters of each text that stand in web addresses."""
    source = words.source
    begins = _address_starts(source)
    if not len(begins):
        return np.zeros(len(words.text_starts), np.int64)
    spaces = np.flatnonzero(source.kinds == SPACE)
    following = np.searchsorted(spaces, begins)
    _, once = np.unique(following, return_index=True)  # an address within an address
    starts, ends = begins[once], spaces[following[once]]
    lengths = source.lengths(starts, ends)
    places = np.searchsorted(starts, np.stack((words.text_starts, words.text_ends)))
    total = np.concatenate(([0], np.cumsum(lengths)))
    return np.asarray(total[places[1]] - total[places[0]])


def _address_starts(source: Characters) -> np.ndarray:
    """int64 [a]: where "http://", "https://" and "www." stand, ascending."""
    found = []
    colons = np.flatnonzero(source.octets == ord(":"))
    colons = colons[(source.eights[colons] & np.uint64(0xFFFFFF)) == int.from_bytes(b"://", "little")]
    for scheme in (b"http", b"https"):
        before = source.eights[colons - 8] >> np.uint64(8 * (8 - len(scheme)))
        found.append(colons[before == int.from_bytes(scheme, "little")] - len(scheme))
    dots = np.flatnonzero(source.octets == ord("."))
    found.append(dots[source.eights[dots - 3] & np.uint64(0xFFFFFF) == int.from_bytes(b"www", "little")] - 3)
    return np.sort(np.concatenate(found))
