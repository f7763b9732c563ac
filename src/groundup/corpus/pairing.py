"""Near-duplicates: pairs by ranges of bands, then which documents go."""

from __future__ import annotations

from functools import partial

import numpy as np

from groundup.corpus.dedup import choose, near_pairs
from groundup.corpus.keys import read_range
from groundup.corpus.plan import Plan, finished_folder
from groundup.corpus.segments import read_fingerprints, read_summaries
from groundup.recipe import NearSection


def pair(plan: Plan, number: int, ranges: int) -> None:
    """Make WORK/pair/<range>: pairs.npy, the verified pairs among documents that share a band of this range."""
    near = _near(plan)
    rows = read_range(plan.tables("bands", final=True), number, ranges)
    rows = rows[~np.isin(rows[:, 2], plan.gone("settle_again" if plan.refines else "settle"))]
    pairs = near_pairs(rows, partial(_lookup, plan), near)
    with finished_folder(plan.place("pair", number)) as folder:
        np.save(folder / "pairs.npy", pairs, allow_pickle=False)


def cluster(plan: Plan) -> None:
    """Make WORK/cluster/00000: near.npy, (ordinal of a document that goes, of the one that stays for it), sorted."""
    pairs = np.concatenate([np.load(path, allow_pickle=False) for path in plan.decisions("pair", "pairs")])
    gone = choose(pairs, partial(_lookup, plan), _near(plan))
    with finished_folder(plan.place("cluster", 0)) as folder:
        np.save(folder / "near.npy", gone, allow_pickle=False)


def _near(plan: Plan) -> NearSection:
    assert plan.section.dedup.near is not None
    return plan.section.dedup.near


def _lookup(plan: Plan, ordinals: np.ndarray) -> np.ndarray:
    """Fingerprints, uint8 [m, signature], of documents given by rising ordinals, read segment by segment."""
    width = _near(plan).signature
    found = np.empty((len(ordinals), width), np.uint8)
    units = (ordinals >> np.uint64(32)).astype(np.int64)
    rows = (ordinals & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    filled = 0
    for segment in plan.segments:
        low, high = np.searchsorted(units, [segment.unit, segment.unit + 1])
        if low == high:
            continue
        folder = plan.texts(segment)
        own = read_summaries(folder)["row"]
        if not len(own):
            continue
        start = low + int(np.searchsorted(rows[low:high], own[0]))
        stop = low + int(np.searchsorted(rows[low:high], own[-1], "right"))
        if stop > start:
            places = np.searchsorted(own, rows[start:stop])
            found[start:stop] = read_fingerprints(folder, places, width)
            filled += stop - start
    assert filled == len(ordinals)
    return found
