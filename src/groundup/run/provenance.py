"""Which versions, which machine and which commit made a run. No host, user or path names are taken."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "groundup",
    "torch",
    "numpy",
    "pyarrow",
    "safetensors",
    "tokenizers",
    "pydantic",
    "typst",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's bits; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The machine in words: system, processor, logical cores, memory in bytes."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "processor": processor_name(),
        "logical_cores": os.cpu_count() or 1,
        "memory_bytes": memory_bytes(),
    }


def memory_bytes() -> int:
    """Physical memory in bytes; 0 where the system doesn't say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def processor_name() -> str:
    """The processor's marketing name where the system gives it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    return platform.processor() or platform.machine()


def git_state(path: Path) -> dict[str, Any] | None:
    """Commit and cleanness of the git work tree that holds ``path``; None outside one or without git."""
    commit = _output(["git", "-C", str(path), "rev-parse", "HEAD"])
    if not commit:
        return None
    changed = _output(["git", "-C", str(path), "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit, "changed": bool(changed)}


def _output(command: list[str]) -> str:
    """Standard output of a short command, stripped; empty where it fails or is missing."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
