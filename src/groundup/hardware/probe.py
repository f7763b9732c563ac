"""How fast this machine multiplies matrices, measured."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

PROBE_REPEATS = 8
PROBE_SHAPE = (4096, 256, 1024)
"""Rows x inner x columns of the probe: the tall-skinny shape of a small model's training step."""
SIDES = {"cuda": (4096, 8192, 16384)}
"""Sides of the square products that a peak is sought among; one more is tried while the time allows."""
SIDES_ELSEWHERE = (1024, 2048, 3072, 4096)
SQUARE_REPEATS = 6
SQUARE_SECONDS = 1.5


def matrix_probe(device: str, *, threads: int) -> dict[str, float]:
    """Measured GFLOP/s of matrix products for "fp32" and "bf16", the best of a few alternated repeats.

    Alternation and the minimum time make a busy machine less likely to invert the order. A type the device
    can't multiply is left out. Takes a few hundred milliseconds; sets PyTorch's thread count.
    """
    import torch

    torch.set_num_threads(threads)
    rows, inner, columns = PROBE_SHAPE
    operands = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.ones(rows, inner, device=device, dtype=dtype)  # [rows, inner]
        b = torch.ones(inner, columns, device=device, dtype=dtype)  # [inner, columns]
        try:
            a @ b
        except (RuntimeError, TypeError):
            continue
        operands[name] = (a, b, torch.empty(rows, columns, device=device, dtype=dtype))
    best = dict.fromkeys(operands, float("inf"))
    for _ in range(PROBE_REPEATS):
        for name, (a, b, out) in operands.items():
            _wait(device)
            begin = time.perf_counter()
            torch.mm(a, b, out=out)
            _wait(device)
            best[name] = min(best[name], time.perf_counter() - begin)
    return {name: round(2 * rows * inner * columns / seconds / 1e9, 1) for name, seconds in best.items()}


def square_probe(device: str, precision: str, *, threads: int) -> float | None:
    """The best measured rate of products of square matrices, in GFLOP/s: what a peak is where no data sheet says one.

    Tries larger and larger ones, a few times each, as long as the next fits into ``SQUARE_SECONDS``, which is longer
    than the whole takes. Sets PyTorch's thread count; draws no random number.

    Args:
        precision: "fp32", "bf16" or "fp8".

    Returns None where the device can't multiply that type.
    """
    import torch

    torch.set_num_threads(threads)
    dtype = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}.get(precision, torch.float32)
    one = torch.ones((), device=device)
    best, begun = 0.0, time.perf_counter()
    for side in SIDES.get(device, SIDES_ELSEWHERE):
        work = 2 * side**3 / 1e9
        if best and time.perf_counter() - begun + 2 * work / best > SQUARE_SECONDS:
            break
        try:
            a = torch.linspace(-1, 1, side * side, device=device).view(side, side).to(dtype)  # [side, side]
            multiply: Any = partial(torch.mm, a, a)
            if precision == "fp8":
                multiply = partial(torch._scaled_mm, a, a.t(), one, one, out_dtype=torch.bfloat16)
            out = multiply()  # what is set up once is not timed
        except (RuntimeError, TypeError):
            break
        for _ in range(SQUARE_REPEATS):
            _wait(device)
            begin = time.perf_counter()
            multiply(out=out)
            _wait(device)
            end = time.perf_counter()
            best = max(best, work / (end - begin))
            if end - begun + work / best > SQUARE_SECONDS:
                break
    return round(best, 3) or None


def _wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
