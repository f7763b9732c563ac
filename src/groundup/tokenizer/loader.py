"""Updates in order, read ahead by a thread."""

import queue
import threading
from collections.abc import Generator
from typing import Protocol, TypeVar

from groundup.run import UserError
from groundup.tokenizer.packing import Batch, PackedRows

Update = TypeVar("Update")
Update_co = TypeVar("Update_co", covariant=True)


class Loader:
    """Cuts the rows into updates. Update `step` is a pure function of its number: that is the whole cursor.

    To carry on after step n, ask for step n; nothing needs to be saved or skipped over.
    """

    def __init__(self, rows: PackedRows, rows_per_update: int) -> None:
        """Raises UserError where `rows_per_update` is below 1."""
        if rows_per_update < 1:
            raise UserError(
                f"an update has {rows_per_update} rows",
                expected="tokens_per_update of at least sequence_length",
            )
        self.rows, self.rows_per_update = rows, rows_per_update

    def update(self, step: int) -> Batch:
        """All rows of one update; `step` counts from 0."""
        first = step * self.rows_per_update
        return self.rows.batch(range(first, first + self.rows_per_update))

    def updates(self) -> int | None:
        """How many whole updates the sources' `epochs` allow; None where there is no limit."""
        available = self.rows.available()
        return None if available is None else available // self.rows_per_update

    def epoch(self, step: int) -> float:
        """How many epochs are done before update `step`, with the share of the current one."""
        epoch, row = self.rows.epoch_of(step * self.rows_per_update)
        return epoch + row / self.rows.rows(epoch)


class Updates(Protocol[Update_co]):
    """Anything whose update ``step`` is a pure function of its number."""

    def update(self, step: int) -> Update_co: ...


def prefetch(
    loader: Updates[Update], start: int, end: int | None = None, *, depth: int = 2
) -> Generator[Update, None, None]:
    """Yield updates `start`, `start` + 1, … (to `end`, excluded) while a thread reads `depth` of them ahead.

    An error of the thread is raised here, at the update it belongs to. Closing the generator, or leaving the
    loop that holds it, stops the thread.
    """
    ready: queue.Queue[Update | BaseException | None] = queue.Queue(maxsize=depth)
    closing = threading.Event()

    def put(item: Update | BaseException | None) -> bool:
        while not closing.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        step = start
        try:
            while (end is None or step < end) and put(loader.update(step)):
                step += 1
            put(None)
        except BaseException as error:  # noqa: BLE001 - handed over whole, and raised by the consumer
            put(error)

    thread = threading.Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closing.set()
        thread.join()
