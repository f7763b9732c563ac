"""One process at a time builds in a run directory.

The lock is the operating system's (flock): it ends with the process, however that ends, so a killed build
never leaves one behind.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.run.errors import UserError

LOCK = ".lock"


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold the exclusive lock of a run directory, which is made where absent.

    Raises UserError at once where another process holds it.
    """
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", errors="replace").strip()
            raise UserError(
                f"another process is building in {run}",
                where=f"process {holder}" if holder else None,
                mend="wait until it ends, or build elsewhere with --out",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)
