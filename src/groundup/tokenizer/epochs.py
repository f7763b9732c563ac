"""Epoch after epoch: how often each shows a document, how many rows it has, and its plan when that is needed.

Positions 0, 1, 2, … run through the rows of epoch 0, then those of epoch 1, and so on. To find a position's epoch,
the rows of those before it are counted, which takes a tenth of planning them, and once for all epochs that show the
same documents.
"""

import contextlib
import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from groundup.run import UserError, progress
from groundup.tokenizer.plan import Integers, Plan, random_keys
from groundup.tokenizer.shards import TokenShards

SHOWN = 2.0
"""Seconds of planning from which a bar says what is being waited for."""


class Schedule:
    """How often each document is shown in each epoch, from its source's `weight` and `epochs`.

    After e epochs a document of weight w has been shown floor(e·w + φ) times, at most floor(epochs + φ). φ is
    the document's fixed rank in a shuffle of its source, in [0, 1): at weight 0.5 one half of the documents
    comes in even epochs and the other in odd ones; at weight 2 each comes twice.
    """

    def __init__(self, shards: TokenShards, seed: int) -> None:
        self.numbers, sources = shards.source_numbers, shards.sources
        self.weights = np.array([source.weight for source in sources], np.float64)
        self.caps = np.array([np.inf if s.epochs is None else s.epochs for s in sources], np.float64)
        self._present = np.unique(self.numbers[shards.lengths > 1])  # sources with something to predict
        finite = self.caps[np.isfinite(self.caps)]
        self._whole = bool(np.all(self.weights % 1 == 0) and np.all(finite % 1 == 0))
        self._phases = np.zeros(0) if self._whole else self._ranks(len(sources), seed)

    def copies(self, epoch: int) -> Integers:
        """How often each document comes in `epoch`, [documents]."""
        return self._shown(epoch + 1) - self._shown(epoch)

    def kind(self, epoch: int) -> tuple[int, ...]:
        """Epochs of one kind show the same documents equally often."""
        if not self._whole:
            return (epoch,)
        return tuple((self._by_source(epoch + 1) - self._by_source(epoch)).tolist())

    def last_epoch(self) -> int | None:
        """The number of epochs after which every source is used up; None where one has no limit."""
        caps = self.caps[self._present]
        if not np.all(np.isfinite(caps)):
            return None
        return int(np.max(np.ceil((caps + 1) / self.weights[self._present]), initial=0))

    def _by_source(self, epochs: int) -> Integers:
        return np.minimum(epochs * self.weights, self.caps).astype(np.int64)

    def _shown(self, epochs: int) -> Integers:
        if self._whole:
            return self._by_source(epochs)[self.numbers]
        shown = np.floor(epochs * self.weights[self.numbers] + self._phases)
        return np.minimum(shown, np.floor(self.caps[self.numbers] + self._phases)).astype(np.int64)

    def _ranks(self, sources: int, seed: int) -> NDArray[np.float64]:
        keys = random_keys(len(self.numbers), seed)
        phases = np.empty(len(self.numbers))
        for source in range(sources):
            members = np.flatnonzero(self.numbers == source)
            order = members[np.argsort(keys[members], kind="stable")]
            phases[order] = np.arange(len(members)) / max(1, len(members))
        return phases


class Epochs:
    """Plans of epoch after epoch, each made when it is first needed, and the one numbering of their rows.

    Two plans are kept. Safe to use from several threads.
    """

    def __init__(
        self,
        schedule: Schedule,
        make: Callable[[int, Integers], Plan],
        count: Callable[[Integers], int],
        unit: str = "rows",
    ) -> None:
        """`make` plans an epoch from its number and the copies of each document; `count` says how many rows that
        plan will have; `unit` is what its rows are called in errors.
        """
        self._schedule, self._make, self._count, self._unit = schedule, make, count, unit
        self._last = schedule.last_epoch()
        self._first = [0]  # position of the first row of each epoch known so far
        self._counted: dict[tuple[int, ...], int] = {}
        self._plans: dict[int, Future[Plan]] = {}
        self._lock = threading.Lock()

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch, made anew where it is not one of the last two used."""
        if epoch in self._plans:
            return self._plan(epoch)
        with _said_if_slow("planning an epoch"):
            return self._plan(epoch)

    def _plan(self, epoch: int) -> Plan:
        with self._lock:
            wanted, new = self._plans.pop(epoch, None), False
            if wanted is None:
                wanted, new = Future(), True
            while len(self._plans) > 1:
                self._plans.pop(next(iter(self._plans)))
            self._plans[epoch] = wanted
        if new:
            try:
                wanted.set_result(self._make(epoch, self._schedule.copies(epoch)))
            except BaseException as error:  # noqa: BLE001 - raised below, and in every thread that waits for the plan
                with self._lock:
                    if self._plans.get(epoch) is wanted:  # who asks again tries again
                        del self._plans[epoch]
                wanted.set_exception(error)
        return wanted.result()

    def first(self, epoch: int) -> int:
        """The position at which an epoch begins; each epoch before is counted once."""
        self._count_until(lambda: len(self._first) > epoch)
        return self._first[epoch]

    def _count_until(self, enough: Callable[[], bool]) -> None:
        if enough():
            return
        with _said_if_slow("counting rows"):
            while not enough():
                known = len(self._first) - 1
                kind = self._schedule.kind(known)
                if kind not in self._counted:
                    self._counted[kind] = self._count(self._schedule.copies(known))
                with self._lock:
                    if len(self._first) - 1 == known:  # another thread may have come first
                        self._first.append(self._first[known] + self._counted[kind])

    def count(self, epoch: int) -> int:
        """How many rows an epoch has. It differs between epochs that show different documents."""
        return self.first(epoch + 1) - self.first(epoch)

    def count_in(self, epochs: float) -> int:
        """Rows in the first `epochs` epochs; of a broken one its share, rounded up.

        Raises UserError where the sources' `epochs` are used up before the last of them begins.
        """
        whole = int(epochs)
        share = epochs - whole
        if self._last is not None and self.first(math.ceil(epochs) - 1) >= self.first(self._last):
            raise self._used_up()
        return self.first(whole) + (math.ceil(self.count(whole) * share) if share else 0)

    def first_filled(self) -> int:
        """The first epoch with a row: one document of weight 0.5 first comes in epoch 1.

        Raises UserError where the sources' `epochs` and weights show none at all.
        """
        return self.locate(0)[0]

    def clip(self, end: int) -> int:
        """`end`, or the number of all rows there will ever be where that is less."""
        last = self._last
        if last is None:
            return end
        self._count_until(lambda: end <= self._first[-1] or len(self._first) > last)
        return min(end, self._first[-1])

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, row within it) of a position. Raises UserError where the sources' `epochs` are used up."""
        if position < 0:
            raise ValueError(f"position is {position}; {self._unit} count from 0")
        if self._last is None:
            self._count_until(lambda: position < self._first[-1])
        if self.clip(position + 1) <= position:
            raise self._used_up()
        epoch = bisect_right(self._first, position) - 1
        return epoch, position - self._first[epoch]

    def passes(self, position: int) -> float:
        """Passes over the data in the rows before ``position``; 1.25 is one and a quarter."""
        if position < 1:
            return 0.0
        epoch, row = self.locate(position - 1)
        return epoch + (row + 1) / self.count(epoch)

    def _used_up(self) -> UserError:
        return UserError(
            f"the corpus is used up after {self._first[-1]} {self._unit}",
            expected="training that ends before its sources' `epochs` are over",
            mend="train for fewer steps, raise `epochs` in corpus.sources, or add text",
        )

    def plan_ahead(self, position: int, end: int | None = None) -> None:
        """Have a thread plan the next epoch where `position` is past the middle of its own, so nobody waits for it.

        `end`: the position at which training ends; an epoch that begins there or later is not planned.
        """
        epoch, row = self.locate(position)
        begins = self.first(epoch + 1)
        if 2 * row < self.count(epoch) or epoch + 1 in self._plans:
            return
        if epoch + 1 == self._last or (end is not None and begins >= end):
            return

        def run() -> None:
            with contextlib.suppress(BaseException):  # whoever asks for this plan gets the error
                self._plan(epoch + 1)

        threading.Thread(target=run, name=f"plan of epoch {epoch + 1}", daemon=True).start()


@contextlib.contextmanager
def _said_if_slow(what: str) -> Iterator[None]:
    """Show a bar while the block runs, if that takes longer than `SHOWN` seconds."""
    done = threading.Event()

    def show() -> None:
        if not done.wait(SHOWN):
            with progress(what, total=None, unit="epoch"):
                done.wait()

    thread = threading.Thread(target=show, name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
