"""SIGINT and SIGTERM end a build in good order: training saves first, everything else stops at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from groundup.run import Interrupted


class Stop:
    """Whether a signal asked the build to stop.

    Outside ``deferred`` a signal raises Interrupted where the program stands: files and directories are
    atomic, so nothing half-made stays. Inside it is only noted; a second signal raises all the same.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._deferring = False

    def __call__(self) -> bool:
        """True once a signal came: what training asks between steps."""
        return self.requested is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        again = self.requested is not None
        self.requested = signal.Signals(number).name
        if again or not self._deferring:
            raise Interrupted(f"stopped by {self.requested}")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, the first signal is noted and not raised."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM within; the former handlers return afterwards."""
    stop = Stop()
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
