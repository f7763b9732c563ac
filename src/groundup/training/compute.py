"""How the numbers of a step are computed: device, dtype of matrix products, compilation, reproducible kernels."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ParamSpec, TypeVar

import torch

from groundup.hardware import Hardware

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Of glibc's malloc.h."""

SHAPES = 64
"""Shapes of micro-batches that one stage may have. Two ramps of seven steps make 15 kinds of updates, each with a short
rest, and the last update of all may have another: 31, or as many again where a process goes on from before a halving
of the micro-batch."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def prepare(hardware: Hardware) -> None:
    """Settle the process for training: threads, and kernels that give the same bits each time.

    Without deterministic algorithms, torch.compile adds up embedding gradients in the order that threads happen to
    come. Beyond its limit of shapes it would go on uncompiled, to other bits after a resume: here that is an error.
    """
    from torch._dynamo import config as dynamo

    keep_memory()

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(hardware.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set through a module class
    dynamo.recompile_limit = SHAPES
    dynamo.fail_on_recompile_limit_hit = True
    torch.compiler.reset()


def keep_memory() -> None:
    """Have glibc keep the memory that is freed, for as long as the process lives.

    It would give each large block back to the system, and take it again with every page to be filled with zeros: a
    product whose result is larger than 32 MB then takes up to nine times as long. Elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20)):
            mallopt(option, value)


@contextmanager
def held_garbage() -> Iterator[None]:
    """Python's search for cycles of dead objects waits for ``gc.collect``, and looks at no object older than this: it
    would stop the host at any moment, and a GPU run out of work."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def product_dtype(hardware: Hardware) -> torch.dtype:
    """What matrix products are computed in, but for those in 8 bits; weights and reductions stay float32."""
    return torch.float32 if hardware.precision == "fp32" else torch.bfloat16


def autocast(hardware: Hardware) -> AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 matrix products where the hardware says so."""
    if hardware.precision == "fp32":
        return nullcontext()
    return torch.autocast(hardware.device, torch.bfloat16)


def compiled(loss: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """``loss`` compiled anew for each shape it sees, ``SHAPES`` at most; one more raises torch's error."""
    return torch.compile(loss, dynamic=False)
