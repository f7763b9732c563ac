"""What every filter has in common: its form, and how rules become an outcome."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from groundup.corpus.documents import Batch, Outcome


class Filter(Protocol):
    """Looks at a batch and says of each document which rule it breaks, if any; a pure function of each text."""

    name: str
    rules: tuple[str, ...]

    def __call__(self, batch: Batch) -> Outcome: ...


class Verdict:
    """Rules tried one after the other on n documents; of each document the first broken rule counts."""

    def __init__(self, rules: tuple[str, ...], documents: int) -> None:
        self._rules = rules
        self._failed = np.full(documents, -1, np.int16)
        self._value = np.full(documents, np.nan)

    @property
    def passing(self) -> np.ndarray:
        """bool [n]: the documents that break no rule so far."""
        return np.asarray(self._failed < 0)

    def refuse(self, rule: str, broken: np.ndarray, values: np.ndarray) -> None:
        """The documents where `broken`, bool [n], break the rule; `values` [n] is what it measured."""
        new = broken & self.passing
        self._failed[new] = self._rules.index(rule)
        self._value[new] = values[new]

    def at_least(self, rule: str, values: np.ndarray, least: float) -> None:
        """Refuse what has less."""
        self.refuse(rule, values < least, values)

    def at_most(self, rule: str, values: np.ndarray, most: float) -> None:
        """Refuse what has more."""
        self.refuse(rule, values > most, values)

    def outcome(self, texts: pa.LargeStringArray | None = None) -> Outcome:
        """The outcome, with the texts where they were edited."""
        return Outcome(self._failed, self._value, texts)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """float64 [n]: part / whole, and 0 where there is nothing."""
    return np.asarray(np.divide(part, whole, out=np.zeros(len(whole)), where=whole != 0))
