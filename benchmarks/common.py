"""What all benchmarks share: where things lie, this machine, peers in their own environments, measuring, reporting."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LIMIT = 3600.0  # seconds that one run of a side may take
TAIL = 3000  # characters of a failed command's output that are shown


class UnavailableError(Exception):
    """A peer or a dataset isn't there: the part that needs it is left out, with this reason."""


class FailedError(Exception):
    """A command that was to be measured failed: the benchmark goes on with its other parts and exits with 1."""


def bench_folder() -> Path:
    """Where peers' environments and made data are kept: $GROUNDUP_BENCH, by default ~/.cache/groundup/bench."""
    return Path(os.environ.get("GROUNDUP_BENCH", Path.home() / ".cache" / "groundup" / "bench")).expanduser()


def real_data() -> Path:
    """The folder of real data: $GROUNDUP_DATA, by default ../shared/data beside the checkout."""
    folder = Path(os.environ.get("GROUNDUP_DATA", ROOT.parent / "shared" / "data")).expanduser()
    if not folder.is_dir():
        raise UnavailableError(f"no real data at {folder}; $GROUNDUP_DATA names another folder")
    return folder


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def peer_python(name: str) -> Path:
    """The Python of a peer's own environment, made on first use from requirements/NAME.txt.

    Raises UnavailableError where it can't be made, as without a network.
    """
    requirements = HERE / "requirements" / f"{name}.txt"
    folder = bench_folder() / name
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"making the environment of {name} in {folder} (once)")
    steps: list[list[str]] = [] if python.exists() else [[sys.executable, "-m", "venv", str(folder)]]
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    steps.append([*pip, "install", "--quiet", "--requirement", str(requirements)])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise UnavailableError(f"{name} can't be installed: {(done.stderr or done.stdout).strip()[-TAIL:]}")
    stamp.write_text(wanted)
    return python


def checkout(name: str) -> str:
    """A peer that is a repository only. Raises UnavailableError where $PEERS has no checkout of it."""
    folder = Path(os.environ.get("PEERS", ROOT.parent / "peers")).expanduser() / name
    if not folder.is_dir():
        raise UnavailableError(f"no checkout of {name} at {folder}; $PEERS names the folder of checkouts")
    return str(folder)


@dataclass(frozen=True)
class Cost:
    """What one run of a command took: seconds of CPU and on the clock, and at its peak bytes of memory (PSS).

    `exact` is False where not every descendant could be waited for (see `watch`).
    """

    cpu: float
    wall: float
    peak: int | None
    peak_rss: int | None
    exact: bool


def measure(command: Sequence[str | Path], *, limit: float = LIMIT, env: dict[str, str] | None = None) -> Cost:
    """Run a command and measure its whole process tree. Raises FailedError with the end of its output if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report.json", Path(folder) / "log"
        watched = [sys.executable, str(HERE / "watch.py"), str(report), str(limit), *map(str, command)]
        with log.open("wb") as output:
            done = subprocess.run(
                watched, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environment() | (env or {})
            )
        if done.returncode:
            end = log.read_bytes()[-TAIL:].decode("utf-8", "replace")
            raise FailedError(f"{' '.join(map(str, command))}\n{end}")
        found = json.loads(report.read_text())
    return Cost(
        found["cpu_seconds"], found["wall_seconds"], found["peak_pss_bytes"], found["peak_rss_bytes"], found["exact"]
    )


def _environment() -> dict[str, str]:
    """This process's, but Python may keep what it compiles: an installed peer has it kept, a checkout of ours would be
    compiled in every run."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def alternate(rounds: int, ours: Callable[[], Cost], theirs: Callable[[], Cost]) -> dict[str, list[Cost]]:
    """Ours, theirs, ours, theirs, …, ours: each of theirs stands between two of ours, so a slow spell hits both."""
    costs: dict[str, list[Cost]] = {"ours": [ours()], "theirs": []}
    for _ in range(rounds):
        costs["theirs"].append(theirs())
        costs["ours"].append(ours())
    return costs


def mean_cpu(costs: Sequence[Cost]) -> float:
    """Seconds, the mean over runs."""
    return fmean(cost.cpu for cost in costs)


def cost_row(part: str, side: str, costs: Sequence[Cost], megabytes: float, **more: Any) -> dict[str, Any]:
    """A row of the report: `costs` are the runs of one side, `megabytes` of 10^6 bytes what each of them read."""
    cpu = mean_cpu(costs)
    peaks = [cost.peak for cost in costs if cost.peak is not None]
    return {
        "part": part,
        "side": side,
        "runs": len(costs),
        "cpu_seconds": round(cpu, 2),
        "cpu_each": [round(cost.cpu, 2) for cost in costs],
        "wall_seconds": round(fmean(cost.wall for cost in costs), 2),
        "megabytes": round(megabytes, 2),
        "mb_per_core_second": round(megabytes / cpu, 3),
        "peak_mb": round(max(peaks) / 1e6, 1) if peaks else None,
        "exact": all(cost.exact for cost in costs),
        **more,
    }


def quality_row(part: str, measure: str, value: float | None, **more: Any) -> dict[str, Any]:
    """A row that isn't a cost; `more` holds side, n, target and the like."""
    return {"part": part, "measure": measure, "value": None if value is None else round(value, 4), **more}


@dataclass
class Report:
    """What a benchmark found, as a table for people and as one line of JSON."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=machine)

    def run(self, part: str, function: Callable[[], None]) -> None:
        """Do one part; where something it needs is missing, note the reason and go on."""
        say(f"{self.name}: {part}")
        try:
            function()
        except UnavailableError as error:
            say(f"left out: {part}: {error}")
            self.left_out[part] = str(error)
        except FailedError as error:
            say(f"failed: {part}: {error}")
            self.failed[part] = str(error)

    def show(self, as_json: bool) -> int:
        """The table on standard output, and the object as its last line if so asked; returns the exit status."""
        costs = [row for row in self.rows if "cpu_seconds" in row]
        others = [row for row in self.rows if "measure" in row]
        columns = ("part", "side", "cpu_seconds", "wall_seconds", "megabytes", "mb_per_core_second", "peak_mb", "kept")
        print(_table(costs, columns))
        if others:
            print("\n" + _table(others, ("part", "measure", "side", "value", "n", "target", "jaccard")))
        for key, value in self.ratios.items():
            print(f"\nratio {key}: {value:.1f}", end="")
        print()
        for part, reason in self.left_out.items():
            print(f"left out: {part}: {reason.splitlines()[0]}")
        for part, reason in self.failed.items():
            print(f"failed: {part}: {reason.splitlines()[-1]}")
        return self.end(as_json)

    def end(self, as_json: bool) -> int:
        """The object as the last line of standard output, if so asked; returns the exit status."""
        if as_json:
            content = {"name": self.name, "machine": self.machine, "rows": self.rows, "ratios": self.ratios}
            print(json.dumps(content | {"left_out": self.left_out, "failed": self.failed}))
        return 1 if self.failed else 0


def _table(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    cells = [list(columns), *(["" if row.get(name) is None else str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="at most 10 minutes on two cores")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def free_space(folder: Path, needed: int) -> None:
    """Raises UnavailableError where the disk of `folder` has fewer than `needed` bytes left."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UnavailableError(f"{needed / 1e9:.1f} GB of disk are needed in {folder}, {free / 1e9:.1f} are free")


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)
