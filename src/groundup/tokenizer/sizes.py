"""How much an update takes: the same always, or less early on."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise


class UpdateSizes:
    """The sizes of a stage's updates, in units of its data: rows, or tokens where updates are planned as wholes.

    A ramp begins with small ones: the size up to which a larger update is worth its work grows as the loss falls (the
    noise scale of McCandlish et al. 2018, arXiv 1812.06162). Where update n begins depends on n and the number of steps
    alone, and data are read in the order that they have without a ramp.
    """

    def __init__(self, whole: int, ramp: Sequence[tuple[float, int]] = (), *, nested: bool = False) -> None:
        """
        Args:
            whole: the size of an update after the ramp.
            ramp: (share of the steps until which it holds, size), both rising.
            nested: the whole updates without a ramp are kept, and smaller ones are equal parts of them: what is left
                of a part where a greater size begins is an update of its own. Each size divides the next.

        Raises ValueError for sizes that are not so.
        """
        self.whole, self.ramp, self.nested = whole, list(ramp), nested
        for (until, size), (after, larger) in pairwise([(0.0, 1), *self.ramp, (1.0, whole)]):
            if until > after or size > larger or (nested and larger % size):
                raise ValueError(f"updates of {[*(size for _, size in self.ramp), whole]} units are no ramp")

    def taken(self, updates: int, steps: int | None) -> int:
        """Units in the first ``updates`` of a stage of ``steps``. Raises ValueError for a ramp of unknown steps."""
        if not self.ramp:
            return updates * self.whole
        if steps is None:
            raise ValueError("a ramp holds for shares of the steps, whose number is not known")
        at = done = 0
        for until, size in (*self.ramp, (math.inf, self.whole)):
            end = updates if until == math.inf else min(updates, math.ceil(until * steps))
            if end > done:
                begin = at - at % size if self.nested else at
                at, done = begin + (end - done) * size, end
        return at

    def worth(self, steps: int) -> float:
        """How many whole updates have as much as a stage of ``steps``."""
        return self.taken(steps, steps) / self.whole

    def fewest(self, updates: float) -> int:
        """The steps of the shortest stage that takes as much as so many whole updates."""
        if not self.ramp:
            return math.ceil(updates)
        most = math.ceil(updates * self.whole / self.ramp[0][1])
        return bisect_left(range(most), updates, key=self.worth)
