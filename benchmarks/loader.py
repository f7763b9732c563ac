"""The loader: tokens a second of packed batches from a warm cache on one core, and the planning of an epoch.

    python benchmarks/loader.py --quick --json

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Report, arguments

from groundup.tokenizer import Batch, Buckets, Loader, PackedRows, ShardWriter, TokenShards
from groundup.tokenizer.loader import Updates
from groundup.tokenizer.plan import plan_epoch

LENGTHS = (100, 500, 5000)  # mean tokens of a document; each is between half and one and a half times as long
ROWS = (1024, 2048)
TOKENS_PER_UPDATE = 2**19
TARGET = 1e8  # tokens a second


def write(folder: Path, mean: int, tokens: int) -> TokenShards:
    """Random ids in four shards."""
    rng = np.random.default_rng(mean)
    lengths = rng.integers(mean // 2, mean * 3 // 2 + 1, tokens // mean)
    ids = rng.integers(0, 50_000, int(lengths.sum()), dtype=np.uint16)
    with ShardWriter(folder, "uint16", pad_id=1, shard_tokens=tokens // 4) as writer:
        for part in np.split(ids, np.cumsum(lengths)[:-1]):
            writer.add(part)
    return TokenShards(folder)


def speed(loader: Updates[Batch], updates: int, rounds: int) -> tuple[list[float], list[float]]:
    """Tokens a CPU second, and a second on the clock, padding not counted; a first round that is not timed fills the
    cache.
    """
    found = []
    for _ in range(rounds + 1):
        begun, clock, tokens = time.process_time(), time.perf_counter(), 0
        for step in range(updates):
            tokens += loader.update(step).tokens
        found.append((tokens / (time.process_time() - begun), tokens / (time.perf_counter() - clock)))
    return [cpu for cpu, _ in found[1:]], [clock for _, clock in found[1:]]


def batches(report: Report, tokens: int, rounds: int) -> None:
    """All lengths of documents and rows, packed, and the first length of rows padded."""
    for mean in LENGTHS:
        folder = Path(tempfile.mkdtemp(prefix="groundup-loader-"))
        try:
            shards = write(folder, mean, tokens)
            for length in ROWS:
                rows = PackedRows(shards, length, 1)
                count = rows.rows(0) * length // TOKENS_PER_UPDATE
                packed = speed(Loader(rows, TOKENS_PER_UPDATE // length), count, rounds)
                add(report, f"packed {mean}/{length}", packed, rows.padding(), cuts=rows.cuts())
                report.ratios[f"packed_{mean}_{length}"] = median(packed[0]) / TARGET
            buckets = Buckets(shards, ROWS[0], TOKENS_PER_UPDATE, 1)
            padded = speed(buckets, buckets.epochs.count(0), rounds)
            add(report, f"padded {mean}/{ROWS[0]}", padded, buckets.padding(), lengths=buckets.lengths)
        finally:
            shutil.rmtree(folder)


def add(report: Report, part: str, speeds: tuple[list[float], list[float]], padding: float, **more: Any) -> None:
    """One row: million tokens a CPU second, the median of the rounds, and on the clock."""
    each, clock = ([round(value / 1e6, 1) for value in measured] for measured in speeds)
    row = {"part": part, "measure": "M tokens/s", "value": median(each), "each": each, "target": TARGET / 1e6}
    row["on_the_clock"] = median(clock)
    report.rows.append({**row, "padding": round(padding, 5), **more})


def planning(report: Report, documents: int) -> None:
    """CPU seconds of one epoch's plan, documents of random lengths, and the peak of memory it added."""
    lengths = np.random.default_rng(0).lognormal(5.7, 1.1, documents).astype(np.int64) + 2
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    plan = plan_epoch(lengths, np.ones(documents, np.int64), 2048, 1, 0)
    seconds = time.process_time() - begun
    unit = 1 if sys.platform == "darwin" else 1024
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    part = f"plan of {documents:,} documents"
    pieces = len(plan.documents)
    report.rows.append({"part": part, "measure": "CPU seconds", "value": round(seconds, 2), "n": pieces})
    report.rows.append({"part": part, "measure": "bytes a piece", "value": round(added / pieces, 1), "n": pieces})


def main() -> int:
    """Measure and report; a ratio is the speed over 100 million tokens a second."""
    options = arguments(__doc__ or "").parse_args()
    report = Report("loader")
    report.run("planning", lambda: planning(report, 1_000_000 if options.quick else 10_000_000))
    report.run("batches", lambda: batches(report, 2**24 if options.quick else 2**26, 5))
    return report.show(options.json)


if __name__ == "__main__":
    sys.exit(main())
