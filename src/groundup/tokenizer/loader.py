"""Updates in order, read ahead by a thread."""

import copy
import queue
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from groundup.run import UserError
from groundup.tokenizer.packing import Batch, PackedRows
from groundup.tokenizer.sizes import UpdateSizes

Update = TypeVar("Update")
Update_co = TypeVar("Update_co", covariant=True)


class Loader:
    """Cuts the rows into updates. Update `step` is a pure function of its number: that is the whole cursor.

    To carry on after step n, ask for step n; nothing needs to be saved or skipped over. Of `world` processes, the
    one of number `rank` gets a consecutive share of each update's rows; the shares differ by one row at most, and
    in the order of ranks they are the update of a single process. Where the sources' `epochs` are used up, the last
    update has the rows that are left. `end` is the update at which training ends, where that is known: no epoch beyond
    is planned ahead of its need. A `ramp` can't be read without it: (share of the updates until which it holds, rows
    of an update), both rising.
    """

    def __init__(
        self,
        rows: PackedRows,
        rows_per_update: int,
        *,
        ramp: Sequence[tuple[float, int]] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Raises UserError where `rows_per_update` is below 1, ValueError for a rank outside 0…world - 1 and for a ramp
        that doesn't rise.
        """
        if rows_per_update < 1:
            raise UserError(
                f"an update has {rows_per_update} rows",
                expected="tokens_per_update of at least sequence_length",
            )
        self.rows, self.sizes = rows, UpdateSizes(rows_per_update, ramp)
        self.end: int | None = None
        self.rank, self.world = checked_rank(rank, world)

    def update(self, step: int) -> Batch:
        """This process's rows of one update; `step` counts from 0."""
        first, end = (self.sizes.taken(updates, self.end) for updates in (step, step + 1))
        self.rows.epochs.plan_ahead(first, None if self.end is None else self.sizes.taken(self.end, self.end))
        count = self.rows.epochs.clip(end) - first
        mine = share(count, self.rank, self.world)
        return self.rows.batch(range(first + mine.start, first + mine.stop))

    def passes(self, step: int) -> float:
        """Passes over the data in the first ``step`` updates of all processes."""
        return self.rows.epochs.passes(self.rows.epochs.clip(self.sizes.taken(step, self.end)))

    def first_updates(self, steps: int) -> int:
        """`steps`, or of how many updates a training can be where that is less. No epoch beyond those is planned."""
        wanted = self.sizes.taken(steps, steps)
        there = self.rows.epochs.clip(wanted)
        return steps if there == wanted else self.sizes.fewest(there / self.sizes.whole)

    def of_size(self, rows: int) -> Self:
        """The same rows in updates of one size."""
        other = copy.copy(self)
        other.sizes, other.end = UpdateSizes(rows), None
        return other


def checked_rank(rank: int, world: int) -> tuple[int, int]:
    """(rank, world). Raises ValueError for a rank outside 0…world - 1."""
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes; ranks are 0 to {world - 1}")
    return rank, world


def share(count: int, rank: int, world: int) -> slice:
    """Which of `count` rows process `rank` of `world` gets."""
    return slice(count * rank // world, count * (rank + 1) // world)


class Updates(Protocol[Update_co]):
    """Anything whose update ``step`` is a pure function of its number."""

    def update(self, step: int) -> Update_co: ...


class Ramp:
    """Shows the rows of early updates in shorter rows: a curriculum by sequence length (Li et al. 2022,
    arXiv:2108.06084). Tokens and targets of an update stay; only what a token sees before it is less.
    """

    def __init__(self, loader: Updates[Batch], stages: Sequence[tuple[float, int]], steps: int) -> None:
        """`stages`: (share of the `steps` until which it holds, length of a row), both rising."""
        self.loader, self.stages, self.steps = loader, list(stages), steps

    def length(self, step: int) -> int | None:
        """The length of rows at an update; None where rows are whole."""
        return next((length for until, length in self.stages if step < until * self.steps), None)

    def update(self, step: int) -> Batch:
        """One update; `step` counts from 0."""
        batch, length = self.loader.update(step), self.length(step)
        return batch if length is None else batch.shortened(length)


class Prefetch(Generic[Update]):
    """Yields updates `start`, `start` + 1, … (to `end`, excluded) while a thread reads `depth` of them ahead.

    An error of the thread is raised here, at the update it belongs to. `close`, or leaving the `with` block, stops
    the thread.

    started: seconds that the consumer waited for the first update.
    waited: seconds that it waited for all others.
    """

    def __init__(self, loader: Updates[Update], start: int, end: int | None = None, *, depth: int = 2) -> None:
        self.started = 0.0
        self.waited = 0.0
        self._first = True
        self._ready: queue.Queue[Update | BaseException | None] = queue.Queue(maxsize=depth)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(loader, start, end), name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Update:
        if self._closing.is_set():
            raise StopIteration
        begun = time.perf_counter()
        item = self._ready.get()
        seconds = time.perf_counter() - begun
        if self._first:
            self.started, self._first = seconds, False
        else:
            self.waited += seconds
        if item is None or isinstance(item, BaseException):
            self.close()
            raise StopIteration if item is None else item
        return item

    def close(self) -> None:
        """Stop reading ahead. There is nothing to read afterwards."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, item: Update | BaseException | None) -> bool:
        while not self._closing.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _read(self, loader: Updates[Update], step: int, end: int | None) -> None:
        try:
            while (end is None or step < end) and self._put(loader.update(step)):
                step += 1
            self._put(None)
        except StopIteration as error:  # which would end the consumer's loop as if all updates had been read
            wrong = RuntimeError(f"reading update {step} raised StopIteration")
            wrong.__cause__ = error
            self._put(wrong)
        except BaseException as error:  # noqa: BLE001 - handed over whole, and raised by the consumer
            self._put(error)
