"""This machine: what it has, and what each ``auto`` of ``[hardware]`` means on it.

In come the recipe's wishes; out comes a ``Hardware`` with nothing left open. Precision is measured, not
guessed: a short probe times fp32 and bf16 matrix products and takes the faster. Whoever calls ``resolve``
stores the answer with the run and passes it as ``stored`` ever after, because a second measurement could
differ and so change the bits.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]

# bf16 must beat fp32 by this factor: casting and lost digits have their price.
_WORTHWHILE = 1.15
_PROBE_REPEATS = 8
# Rows x inner x columns of the probe: the tall-skinny shape of a small model's training step.
_PROBE_SHAPE = (4096, 256, 1024)


@dataclass(frozen=True)
class Hardware:
    """What a run computes on. ``matrix_gflops`` holds the probe's rates, empty where nothing was probed."""

    device: Device
    precision: Precision
    compile: bool
    threads: int
    matrix_gflops: Mapping[str, float]

    def apply(self) -> None:
        """Give PyTorch the run's number of threads."""
        import torch

        torch.set_num_threads(self.threads)

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)

    def bits(self) -> dict[str, Any]:
        """The fields that change the results of a training stage, for its fingerprint."""
        return {"device": self.device, "precision": self.precision, "compile": self.compile}


def resolve(
    *,
    device: str,
    precision: str,
    compile: bool | str,
    threads: int | str,
    stored: Mapping[str, Any] | None = None,
) -> Hardware:
    """Settle every ``auto``.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32" or "bf16".
        compile: "auto", true or false.
        threads: "auto" or a number of CPU threads.
        stored: an earlier answer for this run, from ``as_dict``; its values stand for ``auto`` as long as
            the device is the same, and nothing is probed again.

    Raises ValueError where the wished-for device is not there.
    """
    settled = _settle_device(device, stored)
    earlier = stored if stored is not None and stored.get("device") == settled else {}
    count = int(earlier.get("threads", physical_cores())) if threads == "auto" else int(threads)
    rates = dict(earlier.get("matrix_gflops", {}))
    if precision != "auto":
        chosen = precision
    elif "precision" in earlier:
        chosen = str(earlier["precision"])
    else:
        rates = matrix_probe(settled, threads=count)
        chosen = "bf16" if rates.get("bf16", 0.0) > _WORTHWHILE * rates["fp32"] else "fp32"
    if compile == "auto":
        compiled = bool(earlier["compile"]) if "compile" in earlier else can_compile(settled)
    else:
        compiled = bool(compile)
    return Hardware(settled, "bf16" if chosen == "bf16" else "fp32", compiled, count, rates)


def _settle_device(wish: str, stored: Mapping[str, Any] | None) -> Device:
    if wish == "auto" and stored is not None and "device" in stored:
        wish = str(stored["device"])
    if wish == "auto":
        return usable_devices()[0]
    for device in usable_devices():
        if device == wish:
            return device
    raise ValueError(f"device {wish!r} is not usable here; usable: {', '.join(usable_devices())}")


def usable_devices() -> list[Device]:
    """What PyTorch can compute on here, the fastest kind first."""
    import torch

    found: list[Device] = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def physical_cores() -> int:
    """CPU cores this process may use, hyper-threads counted once; at least 1."""
    allowed = _allowed_processors()
    if platform.system() == "Darwin":
        counted = _number(["sysctl", "-n", "hw.physicalcpu"])
        return counted or max(1, allowed // 2)
    cores = _linux_cores()
    return max(1, min(cores or allowed, allowed))


def corpus_processes(wish: int | Literal["auto"]) -> int:
    """Processes that make a corpus: as many as wished, else one a physical core, each with a GiB of memory."""
    if wish != "auto":
        return wish
    return max(1, min(physical_cores(), usable_memory() // 2**30))


def _allowed_processors() -> int:
    """Logical processors this process may run on, under its affinity and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, _, period = quota.read_text(encoding="ascii").strip().partition(" ")
        if limit.isdigit() and period.isdigit() and int(period):
            count = min(count, max(1, round(int(limit) / int(period))))
    return max(1, count)


def _linux_cores() -> int:
    """Distinct (package, core) pairs among the processors this process may use; 0 where unknown."""
    pairs = set()
    for processor in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        topology = Path(f"/sys/devices/system/cpu/cpu{processor}/topology")
        try:
            package = (topology / "physical_package_id").read_text(encoding="ascii").strip()
            core = (topology / "core_id").read_text(encoding="ascii").strip()
        except OSError:
            return 0
        pairs.add((package, core))
    return len(pairs)


def usable_memory() -> int:
    """Memory this process may use in bytes: the machine's, or its control group's limit; 0 where unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        total = 0
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists():
        text = limit.read_text(encoding="ascii").strip()
        if text.isdigit():
            return min(total, int(text)) if total else int(text)
    return total


def cpp_compiler() -> str | None:
    """Path of the C++ compiler torch.compile would use, or None. ``$CXX`` comes first, as it does there."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def can_compile(device: str) -> bool:
    """Whether torch.compile can work: the compiler builds what it needs (Python's headers, OpenMP).

    On Apple's GPU it is left off: its compiled kernels are not yet dependable.
    """
    compiler = cpp_compiler()
    if compiler is None or device == "mps":
        return False
    source = "#include <Python.h>\n#include <vector>\nint main() { std::vector<int> v(1); return v[0]; }\n"
    flags = ["-fopenmp"] if platform.system() == "Linux" else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.cpp"
        path.write_text(source, encoding="ascii")
        include = f"-I{sysconfig.get_path('include')}"
        command = [compiler, "-c", include, *flags, str(path), "-o", str(Path(folder) / "probe.o")]
        try:
            return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def matrix_probe(device: str, *, threads: int) -> dict[str, float]:
    """Measured GFLOP/s of matrix products for "fp32" and "bf16", the best of a few alternated repeats.

    Alternation and the minimum time make a busy machine less likely to invert the order. A type the device
    can't multiply is left out. Takes a few hundred milliseconds; sets PyTorch's thread count.
    """
    import torch

    torch.set_num_threads(threads)
    rows, inner, columns = _PROBE_SHAPE
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
    for _ in range(_PROBE_REPEATS):
        for name, (a, b, out) in operands.items():
            _wait(device)
            begin = time.perf_counter()
            torch.mm(a, b, out=out)
            _wait(device)
            best[name] = min(best[name], time.perf_counter() - begin)
    return {name: round(2 * rows * inner * columns / seconds / 1e9, 1) for name, seconds in best.items()}


def _wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def _number(command: list[str]) -> int:
    """A command's output as a number; 0 where it isn't one."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return int(text) if text.strip().isdigit() else 0
