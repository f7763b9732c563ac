"""What the sides of the training benchmarks share: they say when they are ready, and then take as many steps as they
are told.

    {"ready": {…}}                          to standard output, when the first step is done
    12                                      from standard input: so many steps
    {"seconds": 3.1, "losses": […], …}      what they took
    {"out_of_memory": "…"}                  in place of an answer, and the last one: this micro-batch is too large

Only the standard library and numpy, and torch where a side has a GPU: peers run in environments of their own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def shape() -> dict[str, Any]:
    """What this run is about: layers, width, heads, vocabulary, length, rows, threads, data, compile.

    ``device`` is "cpu" where it is absent, ``micro`` (rows in one pass) all ``rows``, or what the side finds best.
    """
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


def feed(
    source: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]], device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches as tensors on a device; to a GPU they are copied while it works, from memory that is pinned."""
    import torch

    for ids, targets in source:
        pair = torch.from_numpy(ids), torch.from_numpy(targets)
        if device == "cuda":
            ids_there, targets_there = (each.pin_memory().to(device, non_blocking=True) for each in pair)
            pair = ids_there, targets_there
        yield pair


def serve(told: TextIO, step: Callable[[], float], begun: float, *, device: str = "cpu", **known: Any) -> None:
    """Take the first step, say so, and then as many as standard input asks for. ``begun``: when building began.

    On a GPU the clock is read when all work given to it is done. Where memory is not enough, say that and return.
    """
    try:
        loss = step()
        wait(device)
        _say(told, {"ready": {**known, "first_seconds": time.perf_counter() - begun, "loss": loss}})
        for line in sys.stdin:
            wait(device)
            begin, losses = time.perf_counter(), []
            for _ in range(int(line)):
                losses.append(step())
            wait(device)
            seconds = time.perf_counter() - begin
            _say(told, {"seconds": seconds, "losses": losses, "peak_mb": peak_mb(), **peak_gpu(device)})
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _say(told, {"out_of_memory": str(error).partition("\n")[0]})


def wait(device: str) -> None:
    """Until a GPU has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough: by PyTorch's class of it, or by words of CUDA or cuBLAS, which
    the compiler may wrap."""
    words = str(error)
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "out of memory" in words or "CUBLAS_STATUS_ALLOC_FAILED" in words


def peak_mb() -> float:
    """The most memory that this process held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def peak_gpu(device: str) -> dict[str, float]:
    """The most memory that tensors held on a GPU, in MB."""
    if device != "cuda":
        return {}
    import torch

    return {"peak_gpu_mb": torch.cuda.max_memory_allocated() / 1e6}


def _say(told: TextIO, content: dict[str, Any]) -> None:
    told.write(json.dumps(content) + "\n")
    told.flush()
