"""Rows of numbers by their equal keys, without sorting those whose key occurs once."""

from __future__ import annotations

import numpy as np


def repeated(keys: np.ndarray) -> np.ndarray:
    """int64 [m]: the rows whose key (uint64 [n]) occurs more than once, equal keys side by side."""
    order = np.argsort(keys)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(keys), bool)
    shared[1:] |= same
    shared[:-1] |= same
    return order[shared]


def firsts(*columns: np.ndarray) -> np.ndarray:
    """bool [n]: true where a row differs in any column from the row before: where a group of sorted rows begins."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def sizes(new: np.ndarray) -> np.ndarray:
    """int64 [g]: how many rows each group has, from where groups begin (`firsts`)."""
    return np.diff(np.append(np.flatnonzero(new), len(new)))


def distinct(rows: np.ndarray) -> np.ndarray:
    """The rows (uint64 [n, c]) sorted by their first column, then the second, and so on; equal ones once."""
    rows = rows[np.lexsort(rows.T[::-1])]
    return np.asarray(rows[firsts(*rows.T)])
