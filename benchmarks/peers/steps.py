"""What the sides of pretrain_cpu.py share: they say when they are ready, and then take as many steps as they are told.

    {"ready": {…}}                          to standard output, when the first step is done
    12                                      from standard input: so many steps
    {"seconds": 3.1, "losses": […]}         what they took

Only the standard library and numpy: peers run in environments of their own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray


def shape() -> dict[str, Any]:
    """What this run is about: layers, width, heads, vocabulary, length, rows, threads, data, compile."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def channel() -> TextIO:
    """Standard output for the protocol alone: whatever else is printed goes to standard error."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return own


def batches(path: Path, rows: int, length: int, seed: int = 1) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Random windows of a file of uint16 ids without end, and the same one place on: [rows, length] each."""
    ids, random = np.memmap(path, np.uint16, "r"), np.random.default_rng(seed)
    while True:
        starts = random.integers(len(ids) - length - 1, size=rows)
        windows = np.stack([ids[start : start + length + 1] for start in starts]).astype(np.int64)
        yield np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


def serve(told: TextIO, step: Callable[[], float], begun: float, **known: Any) -> None:
    """Take the first step, say so, and then as many as standard input asks for. ``begun``: when building began."""
    loss = step()
    _say(told, {"ready": {**known, "first_seconds": time.perf_counter() - begun, "loss": loss}})
    for line in sys.stdin:
        begin, losses = time.perf_counter(), []
        for _ in range(int(line)):
            losses.append(step())
        seconds = time.perf_counter() - begin
        _say(told, {"seconds": seconds, "losses": losses, "peak_mb": peak_mb()})


def peak_mb() -> float:
    """The most memory that this process held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _say(told: TextIO, content: dict[str, Any]) -> None:
    told.write(json.dumps(content) + "\n")
    told.flush()
