"""What this machine has: devices, cores, memory, a compiler that works."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda", "mps"]


def usable_devices() -> list[Device]:
    """What PyTorch can compute on here, the fastest kind first."""
    import torch

    found: list[Device] = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def has_fp8(device: Device) -> bool:
    """Whether the device multiplies 8-bit floats: NVIDIA GPUs from compute capability 8.9 on."""
    import torch

    return device == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 9)


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


def peak_resident() -> int:
    """The most memory that this process has held in RAM so far, in bytes; 0 where the system does not say.

    Linux's high-water mark is read where it lies, since what getrusage gives there begins with that of the process
    that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else 1024 * most


def _number(command: list[str]) -> int:
    """A command's output as a number; 0 where it isn't one."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return int(text) if text.strip().isdigit() else 0
