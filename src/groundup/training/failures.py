"""Memory and disks that are too small: what is tried again, and what is said in plain words."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from groundup.run import GroundupError
from groundup.training.checkpoint import checkpoints

NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How errors say so that have no class of their own."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, or no more allowed."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one it was raised from, says that memory was not enough."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY):
            return True
        error = error.__cause__
    return False


def release_memory() -> None:
    """Give back what nobody holds: cycles of Python's, and blocks that the GPU's allocator keeps for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def plain_words(stage: str, out: Path) -> Iterator[None]:
    """Within, an error of the disk, or a lack of memory that no smaller micro-batch mends, becomes a plain one.

    Raises:
        GroundupError: saying what is left and what to do.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise GroundupError(f"{stage}: can't go on below {out}: {error}.{_room(error)} {_intact(out)}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise GroundupError(
            f"{stage}: out of memory, and not in the passes that a smaller micro-batch makes smaller "
            f"({str(error).splitlines()[0]}). Make the model smaller, or take a machine with more memory. "
            f"{_intact(out)}"
        ) from error


def _room(error: BaseException) -> str:
    full = any(os.strerror(number) in str(error) for number in NO_ROOM)  # of safetensors' errors the text is all
    return " Make room for one checkpoint more than keep_checkpoints." if full else ""


def _intact(out: Path) -> str:
    found = checkpoints(out / "checkpoints")
    if not found:
        return "No checkpoint had been saved yet: the same command begins anew."
    return f"The checkpoint {found[-1].name} is intact: the same command goes on from there."
