"""Runs a command and says what it and everything it started cost: python watch.py REPORT.json LIMIT COMMAND…

This process makes itself the reaper of all its descendants (Linux: PR_SET_CHILD_SUBREAPER) and waits for every one,
so that RUSAGE_CHILDREN is their exact CPU time, however they were started and whoever of them ended first. What this
process itself uses is not in it. Memory is sampled from /proc: the proportional set size (PSS) shares out pages that
several processes map, so its sum over processes is what they really hold; the sum of resident sizes is beside it.
Elsewhere than on Linux, descendants that outlive their parents go uncounted, and memory is None.

LIMIT is in seconds. After it, or `GRACE` seconds after the command itself ended, what still runs is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE = 20.0  # seconds that helpers of an ended command (resource trackers, servers of locks) have to end
SAMPLE = 0.2  # seconds between looks at memory, or more:
SHARE = 0.03  # of the time that looking may take, since it grows with the memory looked at
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(report: str, limit: str, *command: str) -> int:
    """Run the command and write the report; returns the command's exit status (negative: the signal)."""
    reaps = _become_subreaper()
    began = time.monotonic()
    deadline = began + float(limit)
    child = subprocess.Popen(command)
    status, wall, killed, peak, next_look = None, 0.0, 0, _NOTHING, 0.0
    try:
        while True:
            now = time.monotonic()
            ended, left = _reap(child.pid)
            if ended is not None:
                status, wall = ended, now - began
                deadline = min(deadline, now + GRACE)
            if not left:
                break
            if now >= next_look:
                used = time.process_time()
                peak = _larger(peak, _memory())
                took = time.process_time() - used
                next_look = now + max(SAMPLE, took / SHARE)
            if now > deadline:
                killed += _kill_descendants()
            time.sleep(0.03)
    finally:
        _kill_descendants()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = -signal.SIGKILL if status is None else status
    content = {
        "status": status,
        "wall_seconds": wall or time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "user_seconds": usage.ru_utime,
        "system_seconds": usage.ru_stime,
        "peak_pss_bytes": peak[0] or None,
        "peak_rss_bytes": peak[1] or None,
        "peak_processes": peak[2] or None,
        "killed": killed,
        "exact": reaps and not killed,
    }
    Path(report).write_text(json.dumps(content))
    return status


_NOTHING = (0, 0, 0)


def _become_subreaper() -> bool:
    """Orphans among the descendants become children of this process. False where the system can't."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def _reap(pid: int) -> tuple[int | None, bool]:
    """Wait for all that ended: (exit status of `pid` if it was among them, whether any child is left)."""
    status = None
    while True:
        try:
            ended, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, False
        if ended == 0:
            return status, True
        if ended == pid:
            status = os.waitstatus_to_exitcode(code)


def _descendants() -> list[int]:
    """Process ids of all descendants; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _kill_descendants() -> int:
    """SIGKILL to all descendants; returns how many there were."""
    count = 0
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            count += 1
    return count


def _memory() -> tuple[int, int, int]:
    """(PSS, RSS) in bytes summed over all descendants now, and their number."""
    pss = rss = count = 0
    for pid in _descendants():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # ended meanwhile
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:] if line.startswith(("Pss:", "Rss:"))}
        pss, rss, count = pss + sizes.get("Pss", 0), rss + sizes.get("Rss", 0), count + 1
    return pss * 1024, rss * 1024, count


def _larger(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) == 0 else 1)
