"""The watchdog: a step that hangs leaves the stacks of all threads behind, and goes on."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from pathlib import Path

from groundup.run import log, now

FIRST = 900.0
"""Seconds that the first step may take: it compiles."""
LEAST = 300.0
"""Seconds that any step may take."""
FACTOR = 10.0
"""A step hangs that takes so many times as long as the slowest one before."""
POLLED = 5.0
"""Seconds, at most, from the dump of the stacks to the word about it."""


class Watchdog:
    """Watches over the steps of a training stage, from the beginning of one to the beginning of the next.

    The stacks are appended to a file by a thread of the C library, which needs no lock of Python's: a step that hangs
    inside a library shows too. Then they are repeated on stderr as soon as Python can run.

    Args:
        path: where stacks go, as RUN/pretrain/stacks.txt; there is no such file after a stage that never hung.
    """

    def __init__(self, path: Path, *, first: float = FIRST, least: float = LEAST, factor: float = FACTOR) -> None:
        self.path, self.least, self.factor = path, least, factor
        self.limit = first
        self.slowest = 0.0
        self._step = 0
        self._begun: float | None = None
        self._file = path.open("ab")
        self._told = self._size()
        self._telling = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
        self._thread.start()

    def begins(self, step: int) -> None:
        """Step number ``step`` begins, and the one before has ended."""
        if self._size() > self._told:
            self._tell()
        at = time.monotonic()
        if self._begun is not None:
            self.slowest = max(self.slowest, at - self._begun)
            self.limit = max(self.least, self.factor * self.slowest)
        self._step, self._begun = step, at
        faulthandler.dump_traceback_later(self.limit, repeat=True, file=self._file)

    def close(self) -> None:
        """Watch no longer."""
        faulthandler.cancel_dump_traceback_later()
        self._closing.set()
        self._thread.join()
        if self._size() > self._told:
            self._tell()
        self._file.close()
        if not self._told:
            self.path.unlink(missing_ok=True)

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _look(self) -> None:
        """Tell of what was dumped, once it is whole."""
        before = self._told
        while not self._closing.wait(min(POLLED, self.least) / 2):
            size = self._size()
            if size == before and size > self._told:
                self._tell()
            before = size

    def _tell(self) -> None:
        """Sign what was dumped with the step and its time, and repeat it on stderr."""
        with self._telling, self.path.open("rb") as file:
            file.seek(self._told)
            stacks = file.read().decode("utf-8", "replace")
            if not stacks:
                return
            seconds = 0.0 if self._begun is None else time.monotonic() - self._begun
            said = f"step {self._step} has taken {seconds:.1f} s so far, the slowest before {self.slowest:.1f} s"
            self._file.write(f"{now()}: {said}\n\n".encode())
            self._file.flush()
            self._told = self._size()
        log(f"{said}; it goes on. The stacks of all threads, also in {self.path}:\n{stacks}")
