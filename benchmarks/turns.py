"""Sides of the training benchmarks: processes that take steps when told to, and the tokens that they learn."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import HERE, TAIL, FailedError, bench_folder

ENDING = 20.0  # seconds that a side may take to end when it is told to


class TooLargeError(FailedError):
    """A side's memory was not enough; the process has ended or is about to."""


@dataclass
class Side:
    """A process that trains when it is told to (see peers/steps.py).

    ready: what it said when its first step was done. started: seconds until then, from the start of the process.
    """

    name: str
    process: subprocess.Popen[str]
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    peak_gpu_mb: float | None = None

    def take(self, steps: int) -> float:
        """Seconds of so many steps. Raises FailedError, TooLargeError where memory was not enough."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; its last words may still be read
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        found = self.answer()
        self.losses, self.peak_mb = found["losses"], found["peak_mb"]
        self.peak_gpu_mb = found.get("peak_gpu_mb")
        return float(found["seconds"])

    def answer(self) -> dict[str, Any]:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            end = self.log.read_text(errors="replace")[-TAIL:].strip()
            raise FailedError(f"{self.name} ended with {self.process.wait()}; {self.log} ends with\n{end}")
        found: dict[str, Any] = json.loads(line)
        if "out_of_memory" in found:
            raise TooLargeError(f"{self.name}: {found['out_of_memory']}; see {self.log}")
        return found

    def stop(self) -> None:
        """End the process and wait until it has ended, so that its memory is free."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # it takes no more steps, and clears up
        try:
            self.process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def side_command(python: str, script: str, settings: dict[str, Any]) -> list[str]:
    """The command of a side: peers/SCRIPT.py and what it is told about its run."""
    return [python, str(HERE / "peers" / f"{script}.py"), json.dumps(settings)]


def begin(name: str, command: Sequence[str], log: Path, environment: dict[str, str]) -> Side:
    """Start a side and wait for its first step. ``environment`` is set beside this process's.

    Raises FailedError, TooLargeError where memory was not enough; then the process has been stopped.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
            env=os.environ | environment,
        )  # fmt: skip
    side = Side(name, process, log)
    try:
        side.ready = side.answer()["ready"]
    except BaseException:
        side.stop()
        raise
    side.started = time.monotonic() - begun
    return side


def log_of(benchmark: str, name: str) -> Path:
    """Where a side's standard error goes."""
    return bench_folder() / benchmark / f"{name}.log"


def made_tokens(folder: Path, vocabulary: int, tokens: int, mean: int) -> Path:
    """Token shards of made documents, and the same ids in one file; made once.

    Ids follow Zipf's law, lengths are 20 and what is drawn from an exponential distribution of that mean.
    """
    if (folder / "done").exists():
        return folder
    import numpy as np

    from groundup.tokenizer import ShardWriter

    random = np.random.default_rng(0)
    ids = ((random.zipf(1.2, tokens) - 1) % (vocabulary - 1) + 1).astype(np.uint16)
    folder.mkdir(parents=True, exist_ok=True)
    ids.tofile(folder / "train.bin")
    lengths, left = [], tokens
    while left > 0:
        lengths.append(min(left, 20 + int(random.exponential(mean))))
        left -= lengths[-1]
    with ShardWriter(folder / "shards", "uint16", pad_id=0) as writer:
        writer.add_many(ids.astype(np.int64), lengths, [0] * len(lengths))
    (folder / "done").touch()
    return folder


def ratio(ours: Side, theirs: Side) -> float:
    """The median over the rounds of ours to theirs."""
    return median(a / b for a, b in zip(ours.rates, theirs.rates, strict=True))
